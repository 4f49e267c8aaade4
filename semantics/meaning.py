"""meaning: the measure that a finite program denotes, by exact enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, Independent

from ..ppl import UnsupportedError
from ..ppl.effects import Effect, Site
from ..ppl.members import map_members
from ..ppl.population_walk import Cloud, Extension, populate


def meaning(program: Callable) -> Callable:
    """``(*args) -> Measure``: the finite measure that a program denotes, exactly, in float64.

    Every ``sample`` site must have finite support. Inference algorithms are programs too: their resampling is a
    site over finitely many ancestor vectors, so ``meaning(inference.smc(p, 2))`` adds up every path of a run.

    Raises:
      UnsupportedError: a site has infinite support, or lies in a while_loop.

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
            population = populate(program, 1, _Branch())(*args, **kwargs)
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


class _Branch:
    """The extend policy of enumeration: a member for every value of the support; those without weight end."""

    moves = False
    grows = True
    records = False

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        _check_finite(site, operands)
        size = cloud.log_weight.shape[0]
        value, log_mass = map_members(lambda *xs: _outcomes(site, list(map(_widened, xs))), operands, size)
        outcomes = log_mass.shape[1]
        value = value.reshape(size * outcomes, *value.shape[2:])
        possible = (log_mass != -jnp.inf) & (cloud.log_weight != -jnp.inf)[:, None]
        alive = np.flatnonzero(np.asarray(possible))
        kept = np.resize(alive, _rounded_up(len(alive))) if len(alive) else np.zeros(1, int)
        log_mass = jnp.where(np.arange(len(kept)) < len(alive), log_mass.reshape(-1)[kept], -jnp.inf)
        return Extension(value[kept], log_mass, jnp.asarray(kept // outcomes, jnp.int32))

    def reduce(self, address, cloud, final) -> None:
        return None


def _rounded_up(size: int) -> int:
    """The next power of 16. Members of weight zero make up the difference: few shapes, few compilations."""
    return 16 ** -(-max(size - 1, 1).bit_length() // 4)


def _outcomes(site: Site, operands):
    """Every value of a site, ``[C, *shape]``, and its log probability: for independent copies, every combination."""

    def support(effect: Effect):
        d = _scalar(effect.distribution)
        values = d.enumerate_support(expand=True)
        log_mass = d.enumerate_log_probs() if hasattr(d, "enumerate_log_probs") else d.log_prob(values)
        if effect.present is not None:  # one outcome, whatever it is, where the site is not reached
            first = jnp.arange(log_mass.shape[0]) == 0
            first = first.reshape(-1, *(1,) * (log_mass.ndim - 1))
            log_mass = jnp.where(effect.present, log_mass, jnp.where(first, 0.0, -jnp.inf))
        batch = len(d.batch_shape)  # independent copies within the distribution: axes like those of vmap
        return jnp.moveaxis(values, 0, batch), jnp.moveaxis(log_mass, 0, batch)

    values, log_mass = site.map(support, operands)
    *shape, count = log_mass.shape
    copies = int(np.prod(shape))
    choice = np.array(list(itertools.product(range(count), repeat=copies))).reshape(-1, copies)
    values = values.reshape(copies, count, *values.shape[len(shape) + 1 :])
    log_mass = log_mass.reshape(copies, count)
    combined = values[np.arange(copies), choice]
    total = log_mass[np.arange(copies), choice].sum(-1)
    return combined.reshape(len(choice), *shape, *values.shape[2:]), total


def _scalar(d: Distribution) -> Distribution:
    """A distribution without the declaration that some of its batch axes belong to the event."""
    return _scalar(d.base_dist) if isinstance(d, Independent) else d


def _check_finite(site: Site, operands) -> None:
    d = _scalar(site.effect(operands).distribution)
    if not getattr(d, "has_enumerate_support", False):
        raise UnsupportedError(
            f"{site} has a {type(d).__name__}, whose support is not finite: the meaning of the program is not a "
            "finite measure; replace it by a discrete distribution"
        )


def _widened(x):
    if isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x, jnp.float64)
    return x
