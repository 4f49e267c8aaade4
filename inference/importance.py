"""Importance sampling."""

from __future__ import annotations

from collections.abc import Callable

from ..ppl.population_walk import Draw, populate


def importance(program: Callable, n: int) -> Callable:
    """The program that draws ``n`` weighted members of ``program`` and returns them as a ``Population``.

    Each site is drawn from its proposal, or else from its own distribution; members are never resampled.
    For the measure mu that the program denotes, ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f.

    Args:
      program: any program.
      n: the number of members.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> coin = ppl.condition(lambda: ppl.sample("heads", dist.Bernoulli(0.25)), {"heads": 1})
    >>> population = ppl.seed(inference.importance(coin, 10))(jax.random.key(0))
    >>> round(float(population.log_evidence), 4)
    -1.3863
    """
    return populate(program, check_size(n), Draw())


def check_size(n: int) -> int:
    """``n``, if it can be a number of particles."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the number of particles must be a positive integer, got {n!r}")
    return n
