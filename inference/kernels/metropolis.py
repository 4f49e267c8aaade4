"""metropolis: the kernel that proposes, and accepts or stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ... import ppl
from ...ppl import Trace, UnsupportedError
from ...ppl.staging import stage
from ..unguided import unguided
from .kernel import Kernel, State


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Acceptance:
    """What a Metropolis-Hastings step says of itself: the ``info`` of its state.

    Attributes:
      probability: with which its proposal was accepted.
      accepted: whether it was.
    """

    probability: jax.Array
    accepted: jax.Array


def metropolis(name: str, program: Callable, propose: Callable) -> Kernel:
    """The kernel of ``propose``, ``(trace, *args) -> (trace, log_ratio)``, under the scope ``name``.

    The log ratio is that of the target's densities, plus that of the densities of proposing back and forth.
    """

    def init(trace: Trace, *args) -> State:
        return State(trace, info=Acceptance(jnp.zeros((), float), jnp.array(False)))

    def step(state: State, *args) -> State:
        with ppl.scope(name):
            new, log_ratio = propose(state.trace, *args)
            probability = acceptance_probability(log_ratio, state.trace.log_density, new.log_density)
            accepted = ppl.sample("accept", dist.Bernoulli(probability)) == 1
        trace = jax.tree.map(lambda x, y: jnp.where(accepted, x, y), new, state.trace)
        return State(trace, state.memory, Acceptance(probability, accepted))

    return Kernel(program, init, step)


def acceptance_probability(log_ratio, old, new):
    """``min(1, exp(log_ratio))`` for a move from log density ``old`` to ``new``.

    Never into a density that is zero or not a number; always out of one.

    >>> float(acceptance_probability(jnp.log(0.5), 0.0, 0.0)), float(acceptance_probability(jnp.nan, -jnp.inf, 0.0))
    (0.5, 1.0)
    """
    log_ratio = jnp.where(old > -jnp.inf, log_ratio, 0.0)
    possible = (new > -jnp.inf) & ~jnp.isnan(log_ratio)
    return jnp.where(possible, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)


def draw_proposal(proposal: Callable, choices: dict, *args) -> Trace:
    """A run of a proposal, if the density of its trace is that of its draws.

    Raises:
      UnsupportedError: the proposal carries a weight, or its density is only an estimate.
    """
    for info in stage(proposal, choices, *args).sites:
        if info.kind in ("factor", "observe") and not info.is_twist:
            raise UnsupportedError(
                f"the proposal carries a weight, {info}: it has to be a program that is only drawn from; leave the "
                "weight out"
            )
        if info.is_estimated:
            raise UnsupportedError(
                f"the density of {info} is only an estimate, and acceptance divides by it; give its program an exact "
                "algorithm, such as inference.enumerate"
            )
    with ppl.scope("proposal"):
        return ppl.trace(unguided(proposal))(choices, *args)
