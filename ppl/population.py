"""Population: weighted members that stand for a measure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .errors import BorelaxError
from .summary import one_line
from .table import Bar, Table


class DegenerateWarning(UserWarning):
    """Every member of a population has weight zero (or no weight at all)."""


class DegenerateError(BorelaxError, ArithmeticError):
    """A question that a population without weight cannot answer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Population:
    """Members ``x_i`` with log weights ``log w_i``, standing for the measure ``(1/n) sum_i w_i delta(x_i)``.

    Attributes:
      value: what the program returned, every leaf with a leading member axis n.
      log_weight: float ``[n]``; ``logmeanexp`` of it estimates the log evidence, without bias on the natural scale.
      origin: int32 ``[n]``, the initial member that each descends from.
      generations: int32, how often the population was resampled.
      died: int32, the factor (of ``factors``) after which no member had weight left, or -1.
      factors: the names of the program's factors, with their source lines.
      initial_size: the number of members that ``origin`` counts.
      exact: whether the population is the measure itself, by enumeration, so that its evidence has no error.
      log_growth: what resampling has done to lines of descent, for ``log_evidence_se``: see :func:`log_growth`. None
        if it is not known; then resampling counts as multinomial.

    Under ``vmap`` a program returns a batch of populations; what is asked of it is answered for each.
    """

    value: Any
    log_weight: jax.Array
    origin: jax.Array
    generations: jax.Array
    died: jax.Array
    factors: tuple[str, ...] = field(default=(), metadata={"static": True})
    initial_size: int = field(default=0, metadata={"static": True})
    exact: bool = field(default=False, metadata={"static": True})
    log_growth: jax.Array | None = None

    @property
    def size(self) -> int:
        """The number of members, n."""
        return self.log_weight.shape[-1]

    @property
    def log_evidence(self) -> jax.Array:
        """The log of the total mass: ``logmeanexp(log_weight)``."""
        self._warn_if_dead()
        return jax.nn.logsumexp(self.log_weight, axis=-1) - jnp.log(self.size)

    @property
    def log_evidence_se(self) -> jax.Array:
        """The standard error of ``log_evidence``, estimated from this one run.

        With members grouped by the initial member ``e`` that they descend from, of total normalised weight
        ``W_e``, the relative variance of the evidence is estimated by
        ``1 - n / (n - 1) r (1 - sum_e W_e^2)``. r is the product over resampling steps of how much less likely two
        members, drawn by weight, have become to be of different lines; for multinomial resampling it is
        ``(n / (n - 1))^g`` in the mean, g being their number. Reaches its cap of 1 when all members descend from one:
        then it only says that n is small for so many steps.

        It is computed as ``v - (r - 1) (1 - v)`` with ``v = n / (n - 1) sum_e (W_e - 1 / n)^2``, which is the same,
        and keeps its digits where weights are nearly equal.

        Source: Lee and Whiteley, *Variance estimation in the particle filter*, Biometrika 105 (2018), for multinomial
        resampling. For schemes that spread less their power of g would make the error too small.
        """
        self._warn_if_dead()
        if self.log_weight.ndim > 1:
            return jax.vmap(lambda population: population.log_evidence_se)(self)
        n = self.initial_size
        if self.exact:
            return jnp.zeros((), self.log_weight.dtype)
        if n == 1:
            return jnp.full((), jnp.inf, self.log_weight.dtype)
        family = jnp.zeros(n, self.log_weight.dtype).at[self.origin].add(self.weight)
        spread = n * jnp.var(family, ddof=1)
        of_a_step = math.log1p(1 / (n - 1))
        log_growth = self.generations * of_a_step if self.log_growth is None else self.log_growth
        variance = jnp.clip(spread - jnp.expm1(log_growth) * (1.0 - spread), 0.0, 1.0)
        return jnp.sqrt(jnp.where(jnp.sum(family > 0) == 1, 1.0, variance))

    @property
    def weight(self) -> jax.Array:
        """The normalised weights, ``[n]``, summing to one (NaN if no member has weight)."""
        return jax.nn.softmax(self.log_weight, axis=-1)

    @property
    def ess(self) -> jax.Array:
        """The effective sample size ``1 / sum_i W_i^2`` of the normalised weights; 0 if none has weight."""
        return jnp.nan_to_num(1.0 / jnp.sum(self.weight**2, axis=-1), nan=0.0)

    def expectation(self, f: Callable = lambda x: x):
        """The self-normalised estimate ``sum_i W_i f(x_i)``; ``f`` takes one member's value.

        Raises:
          DegenerateError: no member has weight (known outside ``jit`` only; inside, the result is NaN).
        """
        if self._dead():
            raise DegenerateError(f"no expectation under a population without weight: {self._obituary()}")
        if self.log_weight.ndim > 1:
            return jax.vmap(lambda population: population.expectation(f))(self)
        values = jax.vmap(f)(self.value)
        weight = jnp.where(self.weight > 0, self.weight, jnp.where(jnp.isnan(self.weight), jnp.nan, 0.0))

        def mean(x):
            # a member of weight zero does not count, whatever its value
            w = weight.reshape(-1, *(1,) * (x.ndim - 1))
            return jnp.sum(jnp.where(w == 0, 0, w * x), axis=0)

        return jax.tree.map(mean, values)

    def resample(self, key, n: int | None = None) -> Population:
        """``n`` equally weighted members drawn by systematic resampling, of the same total mass.

        Raises:
          DegenerateError: no member has weight (outside ``jit``).
        """
        if self._dead():
            raise DegenerateError(f"cannot resample a population without weight: {self._obituary()}")
        if self.log_weight.ndim > 1:
            raise TypeError(
                "this is a batch of populations: resample each, by jax.vmap over keys and populations"
            )
        n = self.size if n is None else n
        points = (jnp.arange(n) + jax.random.uniform(key)) / n
        index = jnp.clip(jnp.searchsorted(jnp.cumsum(self.weight), points), 0, self.size - 1)
        last = self.size - 1 - jnp.argmax(self.weight[::-1] > 0)
        index = jnp.minimum(index, last)
        log_weight = jnp.full(n, self.log_evidence)
        value = jax.tree.map(lambda x: x[index], self.value)
        return replace(
            self,
            value=value,
            log_weight=log_weight,
            origin=self.origin[index],
            generations=self.generations + 1,
            log_growth=None
            if self.log_growth is None
            else self.log_growth + log_growth(self.log_weight, log_weight, index),
        )

    def _dead(self) -> bool:
        """Whether no member has weight (of some population of a batch), as far as that is known now."""
        if isinstance(self.log_weight, jax.core.Tracer):
            return False
        return not np.all(np.any(np.asarray(self.log_weight) > -np.inf, axis=-1))

    def _obituary(self) -> str:
        if np.any(np.isnan(np.asarray(self.log_weight))):
            return "some log weights are NaN"
        died = int(np.max(self.died))
        where = f"after factor {self.factors[died]}" if 0 <= died < len(self.factors) else "at some factor"
        return (
            f"all {self.size} members have weight zero {where}; use more particles, a proposal that "
            "looks ahead to that factor, or a factor that is not zero everywhere the program goes"
        )

    def _warn_if_dead(self) -> None:
        if self._dead():
            warnings.warn(self._obituary(), DegenerateWarning, stacklevel=3)

    def __repr__(self) -> str:
        lines = [f"  {weight:6.1%}  {member}" for weight, member in self._heaviest()]
        if 0 < len(lines) < self.size:
            lines.append(f"  ... and {self.size - len(lines)} more")
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        heaviest = self._heaviest()
        longest = heaviest[0][0] if heaviest else 1.0
        rows = [
            (Bar(float(np.nan_to_num(weight / longest))), f"{weight:.1%}", member)
            for weight, member in heaviest
        ]
        if 0 < len(rows) < self.size:
            rows.append(("", "", f"… and {self.size - len(rows)} more"))
        return Table(("weight", "", "value"), tuple(rows), self._title())._repr_html_()

    def _title(self) -> str:
        if not self._is_one_known():
            return f"Population(value={self.value!r}, log_weight={self.log_weight!r})"
        if self._dead():
            return f"Population of {self.size}: {self._obituary()}"
        return (
            f"Population of {self.size}: log evidence {float(self.log_evidence):.4g} ± "
            f"{float(self.log_evidence_se):.2g}, ESS {float(self.ess):.1f}"
        )

    def _heaviest(self) -> list[tuple[float, str]]:
        """Normalised weights and values of the five heaviest members, if this is one population that has weight."""
        if not self._is_one_known() or self._dead():
            return []
        weight = np.asarray(self.weight)
        order = np.argsort(-np.asarray(self.log_weight), kind="stable")[:5]
        return [
            (float(weight[i]), one_line(jax.tree.map(lambda x: np.asarray(x[i]), self.value))) for i in order
        ]

    def _is_one_known(self) -> bool:
        return not isinstance(self.log_weight, jax.core.Tracer) and np.ndim(self.log_weight) == 1


def log_growth(before, after, index) -> jax.Array:
    """How much less likely two members, drawn by weight, are to be of different lines than they were (a log ratio).

    Args:
      before: the log weights ``[N]`` before members were replaced.
      after: those ``[n]`` of the members that go on.
      index: int ``[n]``, which members these are.

    Of two members that go on with one weight, and are copies of two of three:

    >>> ratio = jnp.exp(log_growth(jnp.zeros(3), jnp.zeros(2), jnp.array([0, 2])))
    >>> round(float(ratio), 4)  # (1 - 3 / 9) / (1 - 2 / 4)
    1.3333
    """
    share = jnp.zeros_like(before).at[index].add(jax.nn.softmax(after).astype(before.dtype))
    return log_growth_of(jnp.sum(jax.nn.softmax(before) ** 2), jnp.sum(share**2), len(after))


def log_growth_of(same_before, same_after, n: int) -> jax.Array:
    """The same, from the probabilities that two of n draws by weight are of one line, before and after."""
    before, after = lax.stop_gradient((same_before, same_after))
    # Where all are copies of one, no two are of different lines any more, whatever the ratio.
    apart = (before < 1) & (1 - after > 0.5 / n)
    return jnp.log1p(-jnp.where(apart, before, 0.0)) - jnp.log1p(-jnp.where(apart, after, 0.0))
