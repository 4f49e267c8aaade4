"""A kernel as a sampling algorithm of BlackJAX."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from ... import ppl
from ...ppl.given import check_given
from ...ppl.staging import stage
from ...semantics.target import trace_at
from .kernel import Kernel, State

if TYPE_CHECKING:
    from blackjax.base import SamplingAlgorithm


class BlackjaxState(NamedTuple):
    """The state of a kernel as BlackJAX has states.

    Attributes:
      position: the choices: nested dicts.
      state: the kernel's own state, at a place of its :class:`Loop`.
    """

    position: dict
    state: State


def to_blackjax(kernel: Kernel, *args) -> SamplingAlgorithm:
    """The kernel at some arguments, with ``init(position) -> state`` and ``step(rng_key, state) -> (state, info)``.

    A position is the choices of the program, as they are: not in R^n, and discrete ones as well. It can be run by
    whatever takes a :class:`blackjax.base.SamplingAlgorithm`. It does not adapt: give it kernels that need not, or the
    step size and the mass matrix that :func:`mcmc` has learnt (``draws.state.memory``).

    Raises, when it is called:
      AddressError, ChoiceError: the position is not made of choices of the program, all of them.

    >>> import blackjax, jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Bernoulli(0.25))
    >>> algorithm = inference.to_blackjax(inference.gibbs(model, ["x"]))
    >>> run = blackjax.util.run_inference_algorithm
    >>> _, (states, _) = run(jax.random.key(0), algorithm, 2000, initial_position={"x": 0})
    >>> bool(jnp.abs(states.position["x"].mean() - 0.25) < 0.05)
    True
    """
    from blackjax.base import SamplingAlgorithm

    loop = kernel.in_a_row

    def state_of(key, state: State) -> BlackjaxState:
        return BlackjaxState(ppl.seed(loop.leave)(key, state.trace, *args).choices, state)

    def init(position: dict, rng_key=None) -> BlackjaxState:
        trace_key, init_key, enter_key, key = jax.random.split(
            jax.random.key(0) if rng_key is None else rng_key, 4
        )
        # All choices are there, so that nothing is drawn.
        check_given(stage(kernel.program, *args), position, complete=True)
        trace = ppl.seed(partial(trace_at, kernel.program, position))(trace_key, *args)
        state = ppl.seed(kernel.init)(init_key, trace, *args)
        place = ppl.seed(loop.enter)(enter_key, state.trace, *args)
        return state_of(key, State(place, state.memory, state.info))

    def step(rng_key, state: BlackjaxState) -> tuple[BlackjaxState, Any]:
        step_key, key = jax.random.split(rng_key)
        after = ppl.seed(loop.step)(step_key, state.state, *args)
        return state_of(key, after), after.info

    return SamplingAlgorithm(init, step)
