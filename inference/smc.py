"""Sequential Monte Carlo over any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from ..ppl.effects import sample_at
from ..ppl.population_walk import Cloud, Draw, Reduction, populate
from ..semantics.static.check import refuse
from .importance import check_size
from .resampling import Adaptive, Resampler, Resampling, systematic
from .retained import Retain, populate_retaining


def smc(
    program: Callable,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    retained: Mapping | None = None,
    check: bool = True,
) -> Callable:
    """The program that runs ``n`` particles through ``program``, resampling, and returns a ``Population``.

    The program is suspended after factors and observations: at the end of a scan step, or where straight-line
    code goes on sampling. There, if the effective sample size is below ``ess_threshold * n``, ancestors are drawn
    (a ``sample`` site of this program, under the address "resample") and everything that is still live is
    replaced by its ancestor's. The result is properly weighted: for the measure mu that ``program``
    denotes, ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f, whatever the resampler and the threshold.

    Args:
      program: any program. Sites with a ``proposal`` are drawn from it and weighted.
      n: the number of particles.
      resampler: ``log_weights -> Resampling``; see ``resampling.py``.
      ess_threshold: in units of n. 0 never resamples (importance sampling), 1 whenever weights differ,
        anything larger always.
      retained: choices of a run that is to survive as member 0; see ``conditional_smc``. The population is then
        conditioned on having that member; its evidence is not unbiased.
      check: whether to refuse a program of which it can be seen, when it is traced, that a proposal does not cover its
        distribution or that a factor leaves no mass (``semantics.check`` looks for more).

    Raises, when the program is traced:
      UnsupportedError: the check is on, and proves such a thing.

    Source: Del Moral, Doucet and Jasra, *Sequential Monte Carlo samplers*, JRSS B 68 (2006); for programs,
    Wood, van de Meent and Mansinghka, *A new approach to probabilistic programming inference*, AISTATS 2014.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[0]
    >>> population = ppl.seed(inference.smc(walk, 100))(jax.random.key(0), jnp.zeros(5))
    >>> population.value.shape
    (100,)
    """
    inspect = refuse if check else None
    if retained is None:
        return populate(program, check_size(n), Resample(resampler, ess_threshold), inspect)
    policy = ResampleOthers(resampler, ess_threshold)
    return populate_retaining(program, check_size(n), policy, retained, inspect)


class Resample(Draw):
    """Draw, and resample when the effective sample size is low."""

    moves = True

    def __init__(self, resampler: Resampler, ess_threshold: float):
        if not ess_threshold >= 0:
            raise ValueError(
                f"ess_threshold is a fraction of the particles, at least 0; got {ess_threshold!r}"
            )
        self.resampler = resampler
        self.ess_threshold = ess_threshold

    def law(self, log_weight) -> Resampling:
        return self.resampler(log_weight)

    def reduce(self, address, cloud: Cloud, final) -> Reduction:
        n = cloud.log_weight.shape[0]
        top = jnp.max(cloud.log_weight)
        weight = jnp.exp(cloud.log_weight - jnp.where(jnp.isfinite(top), top, 0.0))
        total, squares = jnp.sum(weight), jnp.sum(weight**2)
        # Nothing to resample when no member has weight, nothing to gain when the loop ends here.
        active = (total**2 < self.ess_threshold * n * squares) & (total > 0) & ~jnp.asarray(final)
        ancestors = sample_at(address, Adaptive(self.law(cloud.log_weight), active))
        cloud = cloud._replace(
            log_weight=jnp.where(active, 0.0, cloud.log_weight),
            log_scale=cloud.log_scale + jnp.where(active, top + jnp.log(total / n), 0.0),
            generations=cloud.generations + active,
        )
        return Reduction(cloud, ancestors, active)


class ResampleOthers(Retain, Resample):
    """The same, given that member 0 survives in its place."""

    def law(self, log_weight) -> Resampling:
        return super().law(log_weight).conditional()

    def reduce(self, address, cloud: Cloud, final) -> Reduction:
        # Nothing can be conditioned on the survival of a member without weight.
        return super().reduce(address, cloud, final | (cloud.log_weight[0] == -jnp.inf))
