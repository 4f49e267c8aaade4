"""psis: importance weights with a smoothed tail, and whether they can be relied on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..ppl.summary import count
from .warned import warned

_FEWEST = 5  # weights in a tail to which a law can be fitted


@dataclass(frozen=True, repr=False)
class Psis:
    """Weights of which the largest were smoothed. Its repr has a warning if they are not to be relied on.

    Attributes:
      log_weight: float64 ``[..., n]``, normalised: the weights sum to one.
      khat: ``[...]``, the shape of the tail of the weights. They have finite moments of all orders below ``1 / khat``:
        a finite variance below one half, a finite mean below one.
    """

    log_weight: np.ndarray
    khat: np.ndarray

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust averages under the weights, in words; none if there is none to be seen."""
        n, worst = self.log_weight.shape[-1], float(np.max(self.khat))
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
        *sets, n = self.log_weight.shape
        of = f"{count(math.prod(sets), 'set')} of {count(n, 'weight')}" if sets else count(n, "weight")
        title = f"Psis of {of}: k-hat {np.max(self.khat):.2f} ({largest_khat(n):.2f} is the most to rely on)"
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

    k-hat is infinite if fewer than five weights make a tail, and minus infinity if all weights are the same.

    Raises:
      ValueError: a weight is NaN or infinite, or all are zero.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, *Pareto smoothed importance sampling*, JMLR 25 (2024).

    >>> x = np.random.default_rng(0).normal(size=1000)
    >>> good, bad = psis(-0.05 * x**2), psis(0.45 * x**2)
    >>> bool(good.khat < 0.5), bool(bad.khat > 0.7), len(bad.warnings)
    (True, True, 1)
    """
    log_weight = np.asarray(log_weight, np.float64)
    if log_weight.ndim < 1 or not log_weight.shape[-1]:
        raise ValueError(
            f"log weights have a last axis that counts them; these have the shape {log_weight.shape}"
        )
    if np.isnan(log_weight).any() or np.any(log_weight == np.inf):
        raise ValueError(
            "a log weight is NaN or infinite: there is no distribution that these are weights of"
        )
    if np.any(log_weight.max(-1) == -np.inf):
        raise ValueError("all weights are zero: there is nothing to average over")
    *sets, n = log_weight.shape
    share = np.broadcast_to(np.asarray(relative_ess, np.float64), sets).reshape(-1)
    smoothed = [_smoothed(row, size) for row, size in zip(log_weight.reshape(-1, n), share)]
    return Psis(
        np.reshape([row for row, _ in smoothed], log_weight.shape), np.reshape([k for _, k in smoothed], sets)
    )


def largest_khat(n: int) -> float:
    """Up to which k-hat ``n`` weights are enough, ``min(1 - 1 / log10(n), 0.7)``; section 3.2.4 of the paper.

    >>> round(largest_khat(200), 2), largest_khat(10_000)
    (0.57, 0.7)
    """
    return min(1 - 1 / math.log10(n), 0.7) if n > 10 else 0.0


# ------------------------------------------------------------------------- one set of weights


def _smoothed(log_weight: np.ndarray, relative_ess: float) -> tuple[np.ndarray, float]:
    """The weights with their tail smoothed, normalised, and k-hat."""
    x = log_weight - log_weight.max()
    n, khat = len(x), math.inf
    if np.all(x == 0):
        return x - np.log(n), -math.inf
    size = math.ceil(min(n / 5, 3 * math.sqrt(n / relative_ess)))
    cutoff = max(np.sort(x)[max(n - size - 1, 0)], math.log(np.finfo(float).tiny))
    tail = np.flatnonzero(x > cutoff)
    if len(tail) >= _FEWEST:
        tail = tail[np.argsort(x[tail], kind="stable")]
        khat, sigma = _fit(np.exp(x[tail]) - np.exp(cutoff))
        quantiles = _quantile((np.arange(len(tail)) + 0.5) / len(tail), khat, sigma)
        x[tail] = np.minimum(np.log(np.exp(cutoff) + quantiles), 0.0)
    return x - np.log(np.sum(np.exp(x))), khat


def _fit(x: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution, of exceedances in ascending order.

    The mean of a profile posterior of ``theta = -k / sigma`` on a grid; the shape is then drawn towards one half, as if
    by ten more exceedances.

    Source: Zhang and Stephens, *A new and efficient estimation method for the generalized Pareto distribution*,
    Technometrics 51 (2009); appendix G of the paper for the prior.
    """
    n = len(x)
    grid = np.arange(1, 31 + int(math.sqrt(n))) - 0.5
    theta = 1 / x[-1] + (1 - np.sqrt((30 + int(math.sqrt(n))) / grid)) / (3 * x[int(n / 4 + 0.5) - 1])
    shape = np.mean(np.log1p(-theta[:, None] * x), axis=1)
    profile = n * (np.log(-theta / shape) - shape - 1)
    weight = np.exp(profile - profile.max())
    mean = float(np.sum(weight * theta) / np.sum(weight))
    k = float(np.mean(np.log1p(-mean * x)))
    return (n * k + 10 * 0.5) / (n + 10), -k / mean


def _quantile(p: np.ndarray, k: float, sigma: float) -> np.ndarray:
    """Of the generalised Pareto distribution."""
    return -sigma * np.log1p(-p) if abs(k) < 1e-12 else sigma * np.expm1(-k * np.log1p(-p)) / k
