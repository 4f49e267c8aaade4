"""posterior_draw: an exact draw from the posterior of a finite program."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from ... import ppl
from ...ppl.population_walk import populate
from ...ppl.recorded import recorded
from ..particles.pick import pick
from .merge import Drawn
from .run import Run


def posterior_draw(program: Callable, most: int = 100_000, states: int | None = None) -> Callable:
    """The program that draws a run of a finite ``program`` from its normalised measure, and returns the ``Run``.

    After a step of a scan, one of the runs into each state is drawn by its weight, and stands for all of them; in the
    end one of the runs that are left is. That is forward filtering and backward sampling, with the line of every state
    drawn on the way: T steps with K states cost O(T K^3) for a chain, where enumeration costs O(T K^2).

    Where no run has weight the log density of the one that is returned is minus infinity; it is NaN if there were more
    states than ``states``.

    Args:
      program: any program whose sites have finite support.
      most, states: as ``enumerate`` has them.

    Raises, when the program is traced:
      UnsupportedError: as ``enumerate`` does.

    Source: Carter and Kohn, *On Gibbs sampling for state space models*, Biometrika 81 (1994); Chib, *Calculating
    posterior distributions and modal estimates in Markov mixture models*, Journal of Econometrics 75 (1996).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def rising():
    ...     def step(x, _):
    ...         new = ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))
    ...         ppl.factor(jnp.where(new > x, 0.0, -jnp.inf))
    ...         return new, None
    ...     return jax.lax.scan(step, -1, None, length=3)[0]
    >>> ppl.seed(inference.posterior_draw(rising))(jax.random.key(0)).choices["x"].tolist()
    [0, 1, 2]
    """

    def drawn(*args, **kwargs) -> Run:
        population = populate(recorded(program), 1, Drawn(most=most, states=states))(*args, **kwargs)
        value, choices = pick(population)
        log_density = ppl.log_density(program)(choices, *args, **kwargs)
        overflowed = jnp.any(jnp.isnan(population.log_weight))
        return Run(value, choices, jnp.where(overflowed, jnp.nan, log_density))

    return drawn
