"""Kernels made of kernels: one after the other, one of several, one many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ... import ppl
from ...ppl import BorelaxError, Trace
from .kernel import Kernel, Loop, Stage, State, once


class KernelError(BorelaxError, ValueError):
    """Kernels that cannot be joined."""


def cycle(*kernels: Kernel) -> Kernel:
    """The kernel that takes a step of each of the kernels, in order.

    Its memory and info are tuples, with an entry for each kernel.

    Raises:
      KernelError: there is no kernel, or they have different targets.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model():
    ...     return ppl.sample("x", dist.Normal(0.0, 1.0)) + ppl.sample("y", dist.Normal(0.0, 1.0))
    >>> kernel = inference.cycle(*(inference.mh(model, ppl.select(name)) for name in ("x", "y")))
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> state = ppl.seed(kernel)(jax.random.key(1), state)
    >>> [float(one.probability) for one in state.info]
    [1.0, 1.0]
    """
    program = _common_target(kernels)

    def step(state: State, *args) -> State:
        for i in range(len(kernels)):
            state = _step_of(kernels, i, state, *args)
        return state

    return _joined(program, kernels, step)


def mixture(kernels: Sequence[Kernel], weights: Sequence[float]) -> Kernel:
    """The kernel that takes a step of one of the kernels, drawn anew each time.

    Its memory and info are tuples, with an entry for each kernel; those of the others stay as they are. Under ``vmap``
    all kernels are run, and one of the results is taken.

    Args:
      weights: positive numbers, one for each kernel; the probabilities are proportional to them.

    Raises:
      KernelError: there is no kernel, or they have different targets; the weights do not fit.
    """
    program = _common_target(kernels)
    probabilities = _normalised(weights, len(kernels))

    def step(state: State, *args) -> State:
        which = ppl.sample("kernel", dist.Categorical(probs=jnp.asarray(probabilities, float)))
        steps = [lambda state, i=i: _step_of(kernels, i, state, *args) for i in range(len(kernels))]
        return lax.switch(which, steps, state)

    return _joined(program, kernels, step)


def repeat(kernel: Kernel, n: int) -> Kernel:
    """The kernel that takes ``n`` steps of ``kernel``. Its info is that of the last step, from which it adapts, too.

    Raises:
      KernelError: ``n`` is not a positive integer.
    """
    if not isinstance(n, int) or n < 1:
        raise KernelError(f"a kernel is repeated a positive number of times, not {n!r}")

    inner = kernel.in_a_row

    def step(state: State, *args) -> State:
        return lax.scan(lambda state, _: (inner.step(state, *args), None), state, length=n)[0]

    loop = Loop(inner.enter, step, inner.leave)
    return Kernel(kernel.program, kernel.init, once(loop), kernel.adapt, loop, kernel.adapt_together)


def _joined(program: Callable, kernels: Sequence[Kernel], step: Callable) -> Kernel:
    adapt = _each([kernel.adapt for kernel in kernels])
    together = _each([kernel.adapt_together for kernel in kernels])
    return Kernel(program, _init_all(kernels), step, adapt, adapt_together=together)


def _init_all(kernels: Sequence[Kernel]) -> Callable:
    def init(trace: Trace, *args) -> State:
        memories, infos = [], []
        for i, kernel in enumerate(kernels):
            with ppl.scope(str(i)):
                state = kernel.init(trace, *args)
            trace = state.trace
            memories.append(state.memory)
            infos.append(state.info)
        return State(trace, tuple(memories), tuple(infos))

    return init


def _each(adapts: Sequence[Callable | None]) -> Callable | None:
    """How a tuple of memories adapts, each in its own way or not at all."""
    if all(adapt is None for adapt in adapts):
        return None

    def adapt_each(memory: tuple, stage: Stage) -> tuple:
        return tuple(own if adapt is None else adapt(own, stage) for adapt, own in zip(adapts, memory))

    return adapt_each


def _step_of(kernels: Sequence[Kernel], i: int, state: State, *args) -> State:
    """A step of one of the kernels, under the scope of its number."""
    own = State(state.trace, state.memory[i], state.info[i])
    with ppl.scope(str(i)):
        own = kernels[i](own, *args)
    memory = (*state.memory[:i], own.memory, *state.memory[i + 1 :])
    info = (*state.info[:i], own.info, *state.info[i + 1 :])
    return State(own.trace, memory, info)


def _common_target(kernels: Sequence[Kernel]) -> Callable:
    if not kernels:
        raise KernelError("there is no kernel to join")
    for i, kernel in enumerate(kernels):
        if not isinstance(kernel, Kernel):
            raise KernelError(f"kernel number {i} is none, but {kernel!r}: see inference.mh, inference.gibbs")
        if kernel.program is not kernels[0].program:
            raise KernelError(
                f"kernels number 0 and {i} have different targets, {_name(kernels[0])} and {_name(kernel)}: make both "
                "from one and the same program (ppl.condition returns a new one each time: give it a name)"
            )
    return kernels[0].program


def _name(kernel: Kernel) -> str:
    return getattr(kernel.program, "__qualname__", repr(kernel.program))


def _normalised(weights: Sequence[float], count: int) -> np.ndarray:
    numbers = np.asarray(weights, float)
    if numbers.shape != (count,) or not np.all(np.isfinite(numbers) & (numbers > 0)):
        raise KernelError(f"a mixture of {count} kernels needs {count} positive weights, not {weights!r}")
    return numbers / numbers.sum()
