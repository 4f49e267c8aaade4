"""Sequential Monte Carlo over any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...ppl.effects import sample_at
from ...ppl.policy import Cloud, Draw, Reduction
from ...ppl.population import log_growth_of
from ...ppl.population_walk import populate
from ...semantics.static.check import refuse
from ..kernels.kernel import Kernel
from .advice import advised
from .genealogy import record
from .importance import check_size, check_threshold
from .rejuvenate import populate_rejuvenating
from .resampling import Adaptive, Resampler, Resampling, systematic
from .retained import Retain, populate_retaining


def smc(
    program: Callable,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    retained: Mapping | None = None,
    check: bool = True,
    *,
    rejuvenate: Callable[[Callable], Kernel] | None = None,
    moves: int = 1,
) -> Callable:
    """The program that runs ``n`` particles through ``program``, resampling, and returns a ``Population``.

    The program is suspended after factors and observations: at the end of a scan step, or where straight-line
    code goes on sampling. There, if the effective sample size is below ``ess_threshold * n``, ancestors are drawn
    (a ``sample`` site of this program, under the address "resample") and everything that is still live is
    replaced by its ancestor's. The result is properly weighted: for the measure mu that ``program``
    denotes, ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f, whatever the resampler and the threshold.

    After a ``ppl.twist`` particles are chosen by weight and twist, and divided by the twist if they are: the result is
    properly weighted whatever the twist. A trace has ancestors and effective sample sizes; ``genealogy`` reads them.

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
      rejuvenate: a function from a program to a kernel of it, such as ``lambda p: inference.mh(p, proposal)``: what
        particles are moved by after they were resampled, and at the end; see below.
      moves: how many steps of the kernel each particle takes, each time.

    Resampling makes copies, of parameters too, which are drawn once and then only become fewer. With ``rejuvenate``
    they part again: a kernel moves what a particle has drawn so far. Its program is :func:`until`, with the number of
    the suspension point as first argument, before ``*args``; so has a proposal. Particles are whole traces, which are
    brought up to date at every point: for a chain of T steps that is O(T^2) work, besides what the kernel takes. The
    result is properly weighted if particles are moved at all points (``ess_threshold`` above 1) by a kernel that learns
    nothing; else it is in the limit of many of them. A ``twist`` is not heard.

    Raises, when the program is traced:
      UnsupportedError: the check is on, and proves such a thing; with ``rejuvenate``, a density is only an estimate, or
        a site is inside a while_loop.
      KernelError: the kernel is not one of the program that its function was given.

    Source: Del Moral, Doucet and Jasra, *Sequential Monte Carlo samplers*, JRSS B 68 (2006); for programs,
    Wood, van de Meent and Mansinghka, *A new approach to probabilistic programming inference*, AISTATS 2014; for
    moves, Gilks and Berzuini, *Following a moving target*, JRSS B 63 (2001).

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
    if rejuvenate is not None:
        if retained is not None:
            raise TypeError("a retained run cannot be moved: leave out rejuvenate, or the retained choices")
        return populate_rejuvenating(program, n, resampler, ess_threshold, rejuvenate, moves, inspect)
    if retained is None:
        return populate(program, check_size(n), Resample(resampler, ess_threshold), inspect)
    policy = ResampleOthers(resampler, ess_threshold)
    return populate_retaining(program, check_size(n), policy, retained, inspect)


class Resample(Draw):
    """Draw, and resample when the effective sample size is low."""

    moves = True

    def __init__(self, resampler: Resampler, ess_threshold: float):
        self.resampler = resampler
        self.ess_threshold = check_threshold(ess_threshold)

    def law(self, log_weight) -> Resampling:
        return self.resampler(log_weight)

    def reduce(self, address, cloud: Cloud, final) -> Reduction:
        by = advised(cloud)
        ancestors, active, log_mean, ess, log_growth = self.choose(address, by.log_weight, final)
        record(address, cloud, ess, active, final)
        cloud = cloud._replace(
            log_weight=jnp.where(active, by.left(ancestors), cloud.log_weight),
            log_scale=cloud.log_scale + jnp.where(active, log_mean, 0.0),
            generations=cloud.generations + active,
        )
        return Reduction(cloud, ancestors, active, log_growth)

    def choose(self, address, log_weight, final) -> Ancestors:
        """Draws ancestors by weight, if the effective sample size is low."""
        n = log_weight.shape[0]
        top = jnp.max(log_weight)
        weight = jnp.exp(log_weight - jnp.where(jnp.isfinite(top), top, 0.0))
        total, squares = jnp.sum(weight), jnp.sum(weight**2)
        # Nothing to resample when no member has weight, nothing to gain when the loop ends here.
        active = (total**2 < self.ess_threshold * n * squares) & (total > 0) & ~jnp.asarray(final)
        ancestors = sample_at(address, Adaptive(self.law(log_weight), active))
        ess = total**2 / jnp.where(squares > 0, squares, 1.0)

        def grown():
            share = jnp.zeros_like(weight).at[ancestors].add(1 / n)
            return log_growth_of(1 / ess, jnp.sum(share**2), n)

        log_growth = lax.cond(active, grown, lambda: jnp.zeros_like(total))
        return Ancestors(ancestors, active, top + jnp.log(total / n), ess, log_growth)


class Ancestors(NamedTuple):
    """Who goes on: int32 ``[n]``, each its own ancestor unless ``active``. And the log mean weight, the ESS, and what
    that does to lines of descent."""

    index: jax.Array
    active: jax.Array
    log_mean: jax.Array
    ess: jax.Array
    log_growth: jax.Array


class ResampleOthers(Retain, Resample):
    """The same, given that member 0 survives in its place."""

    def law(self, log_weight) -> Resampling:
        return super().law(log_weight).conditional()

    def choose(self, address, log_weight, final) -> Ancestors:
        # Nothing can be conditioned on the survival of a member without weight.
        return super().choose(address, log_weight, final | (log_weight[0] == -jnp.inf))
