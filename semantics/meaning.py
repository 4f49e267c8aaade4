"""meaning: the measure that a finite program denotes, by exact enumeration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl.population import Population
from ..ppl.population_walk import populate
from ..ppl.staging import stage
from .branch import Branch, TooManyRuns
from .measure import Measure
from .quadrature import by_quadrature

MOST_RUNS = 2**24
_FEW_RUNS = 2**18


def meaning(
    program: Callable, most: int = MOST_RUNS, quadrature: Mapping[str, int] | None = None
) -> Callable:
    """``(*args) -> Measure``: the finite measure that a program denotes, exactly, in float64.

    Every ``sample`` site must have finite support. Inference algorithms are programs too: their resampling is a
    site over finitely many ancestor vectors, so ``meaning(inference.smc(p, 2))`` adds up every path of a run.

    Args:
      program: any program.
      most: the most runs of positive weight that there may be at any point.
      quadrature: the number of nodes at continuous sites of one or two dimensions, by their addresses. The measure is
        then a :class:`~borelax.semantics.Quadrature`, which states an error.

    Raises:
      UnsupportedError: a site has infinite support, or lies in a while_loop; there are too many runs to add up; nodes
        are declared at a site that has no quadrature.
      AddressError, QuadratureError: nodes are declared at no site; there are too few, or the site is finite.

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
    >>> def noisy():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(x, 1.0), 0.0)
    ...     return x
    >>> round(semantics.meaning(noisy, quadrature={"x": 65})().total, 10)
    0.2820947918
    """

    def denoted(*args, **kwargs) -> Measure:
        with jax.enable_x64(True):
            args, kwargs = jax.tree.map(widened, (args, kwargs))
            if quadrature is not None:
                staged = stage(program, *args, **kwargs)
                by_policy = lambda policy: _every_run(program, args, kwargs, most, policy)  # noqa: E731
                return by_quadrature(by_policy, staged, quadrature)
            population = _every_run(program, args, kwargs, most)
            return Measure.of(population.value, population.log_weight)

    return denoted


def _every_run(
    program: Callable, args, kwargs, most: int, policy: Callable[..., Branch] = Branch
) -> Population:
    """All runs: compiled as one if they are few whatever their weights, else one operation after the other, without the
    runs that have come to weight zero."""
    few = populate(program, 1, policy(prune=False, most=min(16 * most, _FEW_RUNS)))
    try:
        population = jax.jit(lambda: few(*args, **kwargs))()
        # A run of weight zero may go where nothing is defined.
        if not np.any(np.isnan(population.log_weight)):
            return population
    except TooManyRuns:
        pass
    return populate(program, 1, policy(prune=True, most=most))(*args, **kwargs)


def widened(x):
    """An argument in double precision, if it is an array of floats."""
    if isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x, jnp.float64)
    return x
