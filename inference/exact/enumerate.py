"""Exact enumeration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from ...ppl import UnsupportedError
from ...ppl.population import DegenerateError, Population
from ...ppl.population_walk import populate
from .merge import Merge


def enumerate(program: Callable, most: int = 100_000, states: int | None = None) -> Callable:
    """The program that goes through every run of a finite ``program`` and returns them all as a ``Population``.

    Nothing is drawn: the population is the measure itself, so that its evidence and its expectations are exact, and
    can be differentiated. Every ``sample`` site must have finite support. The number of runs is the product of the
    sizes of the supports, whatever their weights. But after each step of a scan, runs in which it carries the same
    values are one, with the sum of their weights: of a hidden Markov model that is the forward algorithm, and T steps
    with K states cost O(T K^2), in one compiled loop.

    For that the number of states must be found when the program is traced, from the values that the carry can have. It
    is not found where these are computed from arrays that are not known then, such as arguments of a compiled function.
    A scan that stacks outputs that differ between runs in one state keeps them apart, and is unrolled: do not return
    them, and see ``posterior_marginals``, ``posterior_mode`` and ``posterior_draw``.

    ``semantics.meaning`` gives the measure as a list of values, in float64, through all runs; this one can run inside
    ``jit`` and as part of another program.

    Args:
      program: any program whose sites have finite support.
      most: the most runs that there may be at a time.
      states: the most states that a scan may have, together with what differs between runs around it: where that is
        not found, or what is found is too large (it is a bound). With too little room all weights are NaN.

    Raises:
      UnsupportedError: a site has infinite support, or lies in a while_loop; there are more runs than ``most``; there
        were more states than ``states`` (known outside ``jit`` only); the derivative of a state is asked for.

    Source: Rabiner, *A tutorial on hidden Markov models and selected applications in speech recognition*, Proceedings
    of the IEEE 77 (1989).

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
        population = populate(program, 1, Merge(most=most, states=states))(*args, **kwargs)
        refuse_overflow(population, states)
        size = population.log_weight.shape[0]
        return replace(population, log_weight=population.log_weight + jnp.log(size), exact=True)

    return enumerated


def refuse_overflow(population: Population, states: int | None) -> None:
    """Raises UnsupportedError if more states than there is room for have made all weights NaN, as far as is known."""
    log_weight = population.log_weight
    if states is not None and not isinstance(log_weight, jax.core.Tracer) and jnp.any(jnp.isnan(log_weight)):
        raise UnsupportedError(
            f"the weights are NaN: a scan has had more than states={states} states at a time, or a factor of the "
            "program is NaN; allow more states"
        )


def refuse_nothing(population: Population, states: int | None) -> None:
    """Raises DegenerateError if no run has weight, as far as is known."""
    refuse_overflow(population, states)
    if not isinstance(population.log_weight, jax.core.Tracer):
        if jnp.all(population.log_weight == -jnp.inf):
            raise DegenerateError(
                "no run of the program has weight, so there is no posterior; look for a factor that is minus infinity "
                "wherever the program goes"
            )
