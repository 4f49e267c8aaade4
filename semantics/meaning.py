"""meaning: the measure that a finite program denotes, by exact enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl.population_walk import populate
from .branch import Branch

MOST_RUNS = 2**24


def meaning(program: Callable) -> Callable:
    """``(*args) -> Measure``: the finite measure that a program denotes, exactly, in float64.

    Every ``sample`` site must have finite support. Inference algorithms are programs too: their resampling is a
    site over finitely many ancestor vectors, so ``meaning(inference.smc(p, 2))`` adds up every path of a run.

    Raises:
      UnsupportedError: a site has infinite support, or lies in a while_loop; there are too many runs to add up.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def two_coins():
    ...     heads = ppl.sample("a", dist.Bernoulli(0.5)) + ppl.sample("b", dist.Bernoulli(0.5))
    ...     ppl.factor(jnp.where(heads > 0, 0.0, -jnp.inf))
    ...     return heads
    >>> for value, weight in semantics.meaning(two_coins)():
    ...     print(value, weight)
    1 0.5
    2 0.25
    """

    def denoted(*args, **kwargs) -> Measure:
        with jax.enable_x64(True):
            args, kwargs = jax.tree.map(_widened, (args, kwargs))
            population = populate(program, 1, Branch(prune=True, most=MOST_RUNS))(*args, **kwargs)
            return Measure.of(population.value, population.log_weight)

    return denoted


class Measure:
    """A finite measure: pairs of a value and its weight, values distinct, not normalised."""

    def __init__(self, values: Sequence, weights: Sequence[float]):
        self.values = list(values)
        self.weights = np.asarray(weights, np.float64)

    @classmethod
    def of(cls, values, log_weights) -> Measure:
        """From values with a leading axis and their log weights; equal values are merged, null ones dropped."""
        leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, values))
        weights = np.exp(np.asarray(log_weights, np.float64))
        merged: dict[tuple, list] = {}
        for i in np.flatnonzero(weights):
            key = tuple((leaf[i].tobytes(), leaf[i].dtype.str) for leaf in leaves)
            merged.setdefault(key, [i, 0.0])[1] += weights[i]
        chosen = [jax.tree.unflatten(tree, [leaf[i] for leaf in leaves]) for i, _ in merged.values()]
        return cls(chosen, [weight for _, weight in merged.values()])

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        return iter(zip(self.values, self.weights.tolist()))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def total(self) -> float:
        """The total mass: the evidence."""
        return float(self.weights.sum())

    def expectation(self, f: Callable = lambda x: x):
        """The integral of ``f`` (unnormalised): ``sum_i w_i f(x_i)``, in float64."""
        terms = [jax.tree.map(lambda x, w=w: w * np.asarray(x, np.float64), f(x)) for x, w in self]
        return jax.tree.map(lambda *xs: np.sum(xs, axis=0), *terms)

    def __repr__(self) -> str:
        rows = [f"  {weight:.6g}  {value}" for value, weight in itertools.islice(self, 20)]
        rest = [f"  ... and {len(self) - 20} more"] if len(self) > 20 else []
        return "\n".join([f"Measure on {len(self)} values, total mass {self.total:.6g}", *rows, *rest])


def _widened(x):
    if isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x, jnp.float64)
    return x
