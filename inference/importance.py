"""Importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax

from ..ppl import reweigh
from ..ppl.population import Population
from ..ppl.population_walk import Draw, populate


def importance(program: Callable, n: int, retained: Mapping | None = None) -> Callable:
    """The program that draws ``n`` weighted members of ``program`` and returns them as a ``Population``.

    Each site is drawn from its proposal, or else from its own distribution; members are never resampled.
    For the measure mu that the program denotes, ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f.

    Args:
      program: any program.
      n: the number of members.
      retained: choices of a run that is to be member 0; the others are drawn. The population is then conditioned on
        having that member, which is what ``normalize`` and particle MCMC need; its evidence is not unbiased.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> coin = ppl.condition(lambda: ppl.sample("heads", dist.Bernoulli(0.25)), {"heads": 1})
    >>> population = ppl.seed(inference.importance(coin, 10))(jax.random.key(0))
    >>> round(float(population.log_evidence), 4)
    -1.3863
    """
    drawn = populate(program, check_size(n), Draw())
    if retained is None:
        return drawn

    def with_retained(*args, **kwargs) -> Population:
        value, log_weight = reweigh(program)(retained, *args, **kwargs)
        population = drawn(*args, **kwargs)
        first = lambda x, kept: x.at[0].set(kept)  # noqa: E731
        return replace(
            population,
            value=jax.tree.map(first, population.value, value),
            log_weight=first(population.log_weight, log_weight),
        )

    return with_retained


def check_size(n: int) -> int:
    """``n``, if it can be a number of particles."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the number of particles must be a positive integer, got {n!r}")
    return n
