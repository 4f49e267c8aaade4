"""Exact enumeration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from ..ppl.population_walk import populate
from ..semantics.branch import Branch


def enumerate(program: Callable, most: int = 100_000) -> Callable:
    """The program that goes through every run of a finite ``program`` and returns them all as a ``Population``.

    Nothing is drawn: the population is the measure itself, so that its evidence and its expectations are exact, and
    can be differentiated. Every ``sample`` site must have finite support. The number of runs is the product of the
    sizes of the supports, whatever their weights; it is known when the program is traced, and ``most`` bounds it.

    ``semantics.meaning`` gives the same measure as a list of values, in float64; this one can run inside ``jit`` and as
    part of another program.

    Raises:
      UnsupportedError: a site has infinite support, or lies in a while_loop; there are more runs than ``most``.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coins():
    ...     heads = ppl.sample("a", dist.Bernoulli(0.5)) + ppl.sample("b", dist.Bernoulli(0.5))
    ...     ppl.factor(jnp.log(1.0 + heads))
    ...     return heads
    >>> population = inference.enumerate(coins)()
    >>> round(float(jnp.exp(population.log_evidence)), 6), round(float(population.expectation()), 6)
    (2.0, 1.25)
    """

    def enumerated(*args, **kwargs):
        population = populate(program, 1, Branch(prune=False, most=most))(*args, **kwargs)
        size = population.log_weight.shape[0]
        return replace(population, log_weight=population.log_weight + jnp.log(size), exact=True)

    return enumerated
