"""SMC^2: particles of parameters, each with particles of its own."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from ...ppl import factor, scope, select
from ...ppl.policy import Cloud, Reduction
from ...ppl.population_walk import populate
from ...ppl.program_law import log_mean
from ..kernels.kernel import Kernel
from ..kernels.mh import mh
from .importance import check_size
from .pick import pick
from .pseudo_marginal import PARTICLES
from .resampling import Resampler, systematic
from .smc import Resample, smc


def smc2(
    prior: Callable,
    model: Callable,
    n: int,
    n_inner: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    check: bool = True,
    *,
    proposal: Callable | None = None,
    moves: int = 1,
) -> Callable:
    """SMC for parameters whose likelihood is estimated by SMC, as the data come: a ``Population`` of both.

    It is :func:`smc` for a program that runs ``smc``: a particle is a draw of the parameters with ``n_inner`` particles
    of the model, and wherever these are weighted the particle is weighted by their mean. So parameters that explain the
    data badly are dropped on the way, with all their particles. The value of a member is ``(parameters, value)``, the
    value being that of a particle that is picked by weight. The result is properly weighted for the program
    ``model(prior(*args), *args)``, whatever ``n_inner`` is.

    Parameters are drawn once, so few different ones are left after much data, unless there is a ``proposal``: then they
    are moved after they were resampled, and at the end, as :func:`pmmh` does for the data so far. They are proposed,
    all their particles are drawn anew, and both are accepted or stay. For the cost, and for when the result is still
    properly weighted, see ``rejuvenate`` of :func:`smc`.

    Args:
      prior: a program ``(*args) -> parameters``.
      model: a program ``(parameters, *args) -> value``, with the latent variables and the data.
      n: the number of draws of the parameters.
      n_inner: the number of particles of each.
      resampler, ess_threshold, check: as ``smc`` has them, for both.
      proposal: a program ``(choices, *args)`` as ``pmmh`` has it, of new values of sites of ``prior``.
      moves: how many steps each draw of the parameters takes, each time.

    Source: Chopin, Jacob and Papaspiliopoulos, *SMC^2: an efficient algorithm for sequential analysis of state space
    models*, JRSS B 75 (2013).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> prior = lambda ys: ppl.sample("drift", dist.Normal(0.0, 1.0))
    >>> def walk(drift, ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x + drift, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> particles = inference.smc2(prior, walk, 100, 20)
    >>> drift, path = ppl.seed(particles)(jax.random.key(0), jnp.array([0.5, 1.0, 1.5])).value
    >>> drift.shape, path.shape
    ((100,), (100, 3))
    """
    inner = populate(model, check_size(n_inner), Reweigh(resampler, ess_threshold))

    def program(*args):
        parameters = prior(*args)
        with scope(PARTICLES):
            population = inner(parameters, *args)
            value = pick(population)
            factor(log_mean(population), "rest of the evidence")
        return parameters, value

    kernel = None if proposal is None else lambda target: _with_new_particles(target, proposal)
    return smc(program, n, resampler, ess_threshold, check=check, rejuvenate=kernel, moves=moves)


def _with_new_particles(target: Callable, proposal: Callable) -> Kernel:
    """The kernel that proposes parameters, with all their particles as far as the target goes."""

    def propose(choices, point, *args):
        return proposal((~select(PARTICLES)).of(choices), *args)

    return mh(target, propose, redrawn=select(PARTICLES))


class Reweigh(Resample):
    """The same as for SMC, but that the mean of the weights becomes a factor of the program, wherever it is known."""

    suspends_for_all = True

    def reduce(self, address, cloud: Cloud, final) -> Reduction:
        mean = log_mean(cloud)
        factor(cloud.log_scale + mean, "evidence")
        # Of members without weight no mean can be taken out.
        alive = mean > -jnp.inf
        cloud = cloud._replace(
            log_weight=cloud.log_weight - jnp.where(alive, mean, 0.0),
            log_scale=jnp.where(alive, 0.0, cloud.log_scale),
        )
        return super().reduce(address, cloud, final)
