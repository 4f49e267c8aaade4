"""Particle marginal Metropolis-Hastings: MH for parameters, the rest being integrated out by SMC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ... import ppl
from ...ppl import AddressError, Trace, UnsupportedError
from ...ppl.choices import flatten, nest, spell
from ...ppl.errors import did_you_mean
from ...ppl.staging import stage
from ..particles.importance import check_size
from ..particles.pseudo_marginal import LOG_EVIDENCE, PARTICLES, pseudo_marginal
from ..particles.resampling import Resampler, systematic
from ..particles.smc import smc
from .kernel import Kernel
from .metropolis import draw_proposal, metropolis


def pmmh(
    prior: Callable,
    model: Callable,
    proposal: Callable,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    check: bool = True,
) -> Kernel:
    """The kernel that proposes parameters, runs SMC for the model at these parameters, and accepts or stays.

    Metropolis-Hastings on a program that contains SMC: its target, ``kernel.program``, is
    ``pseudo_marginal(prior, model, partial(smc, n=n))``, which draws parameters, particles and one of these. All
    particles are proposed anew and cancel, so that the probability of going from parameters x to y is

        min(1, p(y) Z(y) q(x | y) / p(x) Z(x) q(y | x)).

    Z(x) is the evidence as it was estimated when x was proposed: it is in the trace, and is not estimated again. The
    parameters, and the value of the particle, have their exact posterior, however few the particles.

    Args:
      prior: a program ``(*args) -> parameters``.
      model: a program ``(parameters, *args) -> value``, with the latent variables and the data.
      proposal: a program ``(choices, *args)`` whose sites are the new values of sites of ``prior``, of the same
        addresses; ``choices`` are those of ``prior``. What it does not propose stays.
      n: the number of particles.
      resampler, ess_threshold, check: as ``smc`` has them.

    Raises, when the program is traced:
      AddressError: the proposal has an address that the prior does not have.
      UnsupportedError: the proposal carries weights; a density is only an estimate; prior or proposal have sites that
        only some branches have.

    Source: Andrieu, Doucet and Holenstein, *Particle Markov chain Monte Carlo methods*, JRSS B 72 (2010).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> prior = lambda ys: ppl.sample("drift", dist.Normal(0.0, 1.0))
    >>> def walk(drift, ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x + drift, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> nearby = lambda choices, ys: ppl.sample("drift", dist.Normal(choices["drift"], 0.5))
    >>> ys = jnp.array([0.5, 1.0, 1.5])
    >>> kernel = inference.pmmh(prior, walk, nearby, n=10)
    >>> state = kernel.init(ppl.simulate(kernel.program)(jax.random.key(0), ys), ys)
    >>> drift, path = ppl.seed(kernel)(jax.random.key(1), state, ys).trace.value
    >>> path.shape
    (3,)
    """
    algorithm = partial(smc, n=check_size(n), resampler=resampler, ess_threshold=ess_threshold, check=check)
    program = pseudo_marginal(prior, model, algorithm)

    def propose(trace: Trace, *args):
        old = (~ppl.select(PARTICLES)).of(trace.choices)
        _check_proposal(prior, proposal, old, *args)
        forward = draw_proposal(proposal, old, *args)
        new = nest(flatten(old) | flatten(forward.choices))
        back = nest({address: flatten(old)[address] for address in flatten(forward.choices)})
        backward = ppl.log_density(proposal)(back, new, *args)
        # Without the particles among its choices, the trace is updated by drawing new ones.
        log_target = ppl.log_density(prior)(old, *args) + trace.deterministic[PARTICLES][LOG_EVIDENCE]
        edit = ppl.update(program, new)(replace(trace, choices={}, log_density=log_target), *args)
        return edit.trace, edit.log_weight + backward - forward.log_density

    return metropolis("pmmh", program, propose)


def _check_proposal(prior: Callable, proposal: Callable, choices: dict, *args) -> None:
    """That what is proposed are choices of the prior, and always the same ones."""
    staged = stage(proposal, choices, *args)
    known = [spell(address) for address in flatten(choices)]
    for info in staged.of_kind("sample"):
        if spell(info.address) not in known:
            raise AddressError(
                f"the proposal draws {spell(info.address)!r}, which is no site of the prior"
                f"{did_you_mean(spell(info.address), known)}; it has {', '.join(map(repr, known)) or 'none'}"
            )
    for info in (*staged.of_kind("sample"), *stage(prior, *args).of_kind("sample")):
        if info.optional:
            raise UnsupportedError(
                f"{info} is in some branches only, so that the way back might have to draw what was not proposed; "
                "draw it in every branch, or use inference.mh for inference.pseudo_marginal"
            )
