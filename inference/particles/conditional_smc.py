"""Conditional SMC: a run of sequential Monte Carlo in which a given particle survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...ppl.population import Population
from ...semantics.static.check import refuse
from .ancestor_sampling import SampleAncestors
from .importance import check_size
from .resampling import Resampler, systematic
from .retained import populate_retaining
from .smc import ResampleOthers


def conditional_smc(
    program: Callable,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    check: bool = True,
    *,
    ancestor_sampling: bool = False,
) -> Callable:
    """``(choices, *args) -> Population``: SMC whose member 0 is the run of ``program`` with these choices.

    A program that draws the other particles, and their ancestors from the law that they have given that the retained
    particle survives. If the retained run has the normalised measure of ``program``, so has a member that is picked by
    weight: that is ``particle_gibbs``. And for every run x

        p(x) E[1 / Z | x is member 0] = P(x is picked by weight from the population of smc),

    p its density and Z the evidence of the population, which is not unbiased itself.

    Args:
      program: any program. Sites inside a while_loop are refused.
      n: the number of particles, the retained one included.
      resampler: systematic, multinomial, residual or killing; the others are refused.
      ess_threshold: as ``smc`` has it. When to resample depends on the weights of all particles.
      check: as ``smc`` has it.
      ancestor_sampling: whether, after each step of a scan, the retained particle gets the past of a particle that is
        drawn by how well the retained choices go on from it. Member 0 then only ends in the choices given, and the
        identity above does not hold; what holds is that the measure is kept. For scans that are Markov chains: what is
        weighed after a step may depend on what was before it only by way of the step's sites.

    Raises:
      AddressError, ChoiceError: as ``log_density`` does for these choices.
      UnsupportedError: a density is only an estimate; the resampler has no conditional law; ancestors are sampled, and
        a scan is not seen to be a Markov chain.

    Source: Andrieu, Doucet and Holenstein, *Particle Markov chain Monte Carlo methods*, JRSS B 72 (2010); for
    ancestors, Lindsten, Jordan and Schön, *Particle Gibbs with ancestor sampling*, JMLR 15 (2014).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> again = ppl.seed(inference.conditional_smc(walk, 10, ess_threshold=2.0))
    >>> again(jax.random.key(0), {"x": jnp.array([1.0, 2.0, 3.0])}, jnp.zeros(3)).value[0].tolist()
    [1.0, 2.0, 3.0]
    """

    policy = (SampleAncestors if ancestor_sampling else ResampleOthers)(resampler, ess_threshold)

    def conditional(choices: Mapping, *args, **kwargs) -> Population:
        return populate_retaining(program, check_size(n), policy, choices, refuse if check else None)(
            *args, **kwargs
        )

    return conditional
