"""Importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...ppl.policy import Draw
from ...ppl.population_walk import populate
from ...semantics.static.check import refuse
from .retained import Retain, populate_retaining


def importance(program: Callable, n: int, retained: Mapping | None = None, check: bool = True) -> Callable:
    """The program that draws ``n`` weighted members of ``program`` and returns them as a ``Population``.

    Each site is drawn from its proposal, or else from its own distribution; members are never resampled.
    For the measure mu that the program denotes, ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f.

    Args:
      program: any program.
      n: the number of members.
      retained: choices of a run that is to be member 0; the others are drawn. The population is then conditioned on
        having that member, which is what ``normalize`` and particle MCMC need; its evidence is not unbiased.
      check: whether to refuse a program of which it can be seen, when it is traced, that a proposal does not cover its
        distribution or that a factor leaves no mass (``semantics.check`` looks for more).

    Raises, when the program is traced:
      UnsupportedError: the check is on, and proves such a thing.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> coin = ppl.condition(lambda: ppl.sample("heads", dist.Bernoulli(0.25)), {"heads": 1})
    >>> population = ppl.seed(inference.importance(coin, 10))(jax.random.key(0))
    >>> round(float(population.log_evidence), 4)
    -1.3863
    """
    if retained is None:
        return populate(program, check_size(n), Draw(), refuse if check else None)
    return populate_retaining(program, check_size(n), Retain(), retained, refuse if check else None)


def check_size(n: int) -> int:
    """``n``, if it can be a number of particles."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the number of particles must be a positive integer, got {n!r}")
    return n


def check_threshold(ess_threshold: float) -> float:
    """The threshold, if it is one.

    Raises:
      ValueError: it is negative, or not a number.
    """
    if not ess_threshold >= 0:
        raise ValueError(f"ess_threshold is a fraction of the particles, at least 0; got {ess_threshold!r}")
    return ess_threshold
