"""psis: importance weights with a smoothed tail, and whether they can be relied on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl.summary import count
from ..array_module import array_module, as_floats
from ..warned import warned

_FEWEST = 5  # weights in a tail to which a law can be fitted


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Psis:
    """Weights of which the largest were smoothed. Its repr has a warning if they are not to be relied on.

    Attributes:
      log_weight: float ``[..., n]``, normalised: the weights sum to one.
      khat: ``[...]``, the shape of the tail of the weights. They have finite moments of all orders below ``1 / khat``:
        a finite variance below one half, a finite mean below one.
    """

    log_weight: np.ndarray | jax.Array
    khat: np.ndarray | jax.Array

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust averages under the weights, in words; none if there is none to be seen."""
        n, worst = self.log_weight.shape[-1], float(np.max(self.khat, initial=-np.inf))
        if math.isnan(worst):
            return (
                "Some weights are NaN or infinite, or all of a set are zero: there is nothing to average over.",
            )
        bad, limit = int(np.sum(self.khat > largest_khat(n))), largest_khat(n)
        if not bad:
            return ()
        which = f"{bad} of {self.khat.size} sets of weights" if self.khat.ndim else "the weights"
        if worst == math.inf:
            return (f"The tail of {which} has fewer than {_FEWEST} members: too few to see how heavy it is.",)
        if worst >= 1:
            return (
                f"The tail of {which} is so heavy (k-hat {worst:.2f}) that their mean need not exist: averages under "
                "them mean nothing, however many there are. Find a proposal with tails as heavy as the target's.",
            )
        return (
            f"The tail of {which} is heavy (k-hat {worst:.2f}, above {limit:.2f}): averages under them converge too "
            f"slowly to rely on {n} of them. Find a proposal nearer to the target.",
        )

    def __repr__(self) -> str:
        if isinstance(self.khat, jax.core.Tracer):
            return f"Psis(log_weight={self.log_weight!r}, khat={self.khat!r})"
        *sets, n = self.log_weight.shape
        of = f"{count(math.prod(sets), 'set')} of {count(n, 'weight')}" if sets else count(n, "weight")
        worst = np.max(self.khat, initial=-np.inf)
        title = f"Psis of {of}: k-hat {worst:.2f} ({largest_khat(n):.2f} is the most to rely on)"
        return warned(title, self.warnings)


def psis(log_weight, relative_ess=1.0) -> Psis:
    """Pareto-smoothed importance weights, and k-hat.

    A generalised Pareto distribution is fitted to the largest weights, ``min(n / 5, 3 sqrt(n / relative_ess))`` of
    them, and they are replaced by its quantiles, but by none larger than the largest of them. Estimates under the
    smoothed weights have a small bias, and much less variance if the tail is heavy.

    Args:
      log_weight: float ``[..., n]``, such as ``importance(program, n)``'s ``population.log_weight``. Those of a
        population that was resampled tell of its last steps only.
      relative_ess: the effective sample size of the draws over their number ``n``, ``[...]``: 1 if independent.

    k-hat is infinite if fewer than five weights make a tail, and minus infinity if all weights are the same. The arrays
    are NumPy's, in double precision; in ``jit`` and ``vmap`` they are part of what is compiled.

    Raises:
      ValueError: a weight is NaN or infinite, or all are zero. (In ``jit``, where that is not known, k-hat and the
        smoothed weights are NaN.) A relative effective sample size is not positive.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto smoothed importance sampling*, JMLR 25 (2024).

    >>> x = np.random.default_rng(0).normal(size=1000)
    >>> good, bad = psis(-0.05 * x**2), psis(0.45 * x**2)
    >>> bool(good.khat < 0.5), bool(bad.khat > 0.7), len(bad.warnings)
    (True, True, 1)
    """
    x, share = as_floats(log_weight), as_floats(relative_ess)
    if x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"log weights have a last axis that counts them; these have the shape {x.shape}")
    *sets, n = x.shape
    most = math.ceil(n / 5)
    if isinstance(x, np.ndarray):
        _check(x)
    if isinstance(share, np.ndarray):
        if not np.all(share > 0):
            raise ValueError(f"a relative effective sample size is a positive number, not {relative_ess!r}")
        most = _tail_size(n, np.min(share, initial=np.inf))
    else:
        x = jnp.asarray(x)
    xp = array_module(x)
    rows, share = x.reshape(-1, n), xp.broadcast_to(xp.asarray(share), sets).reshape(-1)
    if xp is np:
        found = [_smoothed(*row, most) for row in zip(rows, share)]
        smoothed, khat = [row for row, _ in found], [k for _, k in found]
    else:
        smoothed, khat = jax.vmap(_smoothed, (0, 0, None))(rows, share, most)
    return Psis(xp.reshape(xp.asarray(smoothed), x.shape), xp.reshape(xp.asarray(khat), sets))


def largest_khat(n: int) -> float:
    """Up to which k-hat ``n`` weights are enough, ``min(1 - 1 / log10(n), 0.7)``; section 3.2.4 of the paper.

    >>> round(largest_khat(200), 2), largest_khat(10_000)
    (0.57, 0.7)
    """
    return min(1 - 1 / math.log10(n), 0.7) if n > 10 else 0.0


def _check(log_weight: np.ndarray) -> None:
    if np.isnan(log_weight).any() or np.any(log_weight == np.inf):
        raise ValueError(
            "a log weight is NaN or infinite: there is no distribution that these are weights of"
        )
    if np.any(np.all(log_weight == -np.inf, axis=-1)):
        raise ValueError("all weights are zero: there is nothing to average over")


# ------------------------------------------------------------------------- one set of weights


def _tail_size(n: int, relative_ess):
    """How many of ``n`` weights make the tail."""
    if isinstance(relative_ess, jax.Array):
        return jnp.ceil(jnp.minimum(n / 5, 3 * jnp.sqrt(n / relative_ess))).astype(int)
    return math.ceil(min(n / 5, 3 * math.sqrt(n / relative_ess)))


def _smoothed(log_weight, relative_ess, most: int):
    """The weights with their tail smoothed, normalised, and k-hat. There are at most ``most`` weights in the tail."""
    xp, n = array_module(log_weight), len(log_weight)
    x = log_weight - log_weight.max()
    order = xp.argsort(x, stable=True)
    ordered = x[order]
    cutoff = ordered[xp.maximum(n - _tail_size(n, relative_ess) - 1, 0)]
    cutoff = xp.maximum(cutoff, math.log(np.finfo(x.dtype).tiny))
    rest, tail = ordered[: n - most], ordered[n - most :]
    is_tail = tail > cutoff
    size = is_tail.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        k, sigma = _fit(xp.where(is_tail, xp.exp(cutoff) * xp.expm1(tail - cutoff), 0.0), size)
        place = (xp.arange(most) - (most - size) + 0.5) / size
        quantiles = xp.minimum(xp.log(xp.exp(cutoff) + _quantile(place, k, sigma)), 0.0)
    is_fitted = size >= _FEWEST
    tail = xp.where(is_tail & is_fitted, quantiles, tail)
    x = xp.concatenate([rest, tail])[xp.argsort(order)]
    khat = xp.where(is_fitted, k, xp.where(xp.all(x == 0), -xp.inf, xp.inf))
    return x - xp.log(xp.sum(xp.exp(x))), xp.where(xp.isnan(x).any(), xp.nan, khat)


def _fit(x, size):
    """Shape and scale of a generalised Pareto distribution, of exceedances in ascending order: the last ``size`` of x.

    What is in front of them is zero. The mean of a profile posterior of ``theta = -k / sigma`` on a grid; the shape is
    then drawn towards one half, as if by ten more exceedances.

    Source: Zhang and Stephens, *A new and efficient estimation method for the generalized Pareto distribution*,
    Technometrics 51 (2009); appendix G of the paper for the prior.
    """
    xp, most = array_module(x), len(x)
    grid = xp.arange(30 + math.isqrt(most)) + 0.5
    points = 30 + xp.floor(xp.sqrt(size))
    quarter = x[most - size + (size + 2) // 4 - 1]
    theta = 1 / x[-1] + (1 - xp.sqrt(points / grid)) / (3 * quarter)
    shape = xp.sum(xp.log1p(-theta[:, None] * x), axis=1) / size
    profile = xp.where(grid < points, size * (xp.log(-theta / shape) - shape - 1), -xp.inf)
    weight = xp.exp(profile - profile.max())
    mean = xp.sum(weight * theta) / xp.sum(weight)
    k = xp.sum(xp.log1p(-mean * x)) / size
    return (size * k + 10 * 0.5) / (size + 10), -k / mean


def _quantile(p, k, sigma):
    """Of the generalised Pareto distribution."""
    xp = array_module(p)
    is_small = xp.abs(k) < 1e-12
    k = xp.where(is_small, 1.0, k)
    return xp.where(is_small, -sigma * xp.log1p(-p), sigma * xp.expm1(-k * xp.log1p(-p)) / k)
