"""Kernels: what an MCMC algorithm is made of, and what they are joined by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax

from ...ppl import Trace


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The state of a chain: a pytree of one structure, so that chains can be scanned and vmapped.

    Attributes:
      trace: where the chain is: a trace of the target, at the arguments.
      memory: what the kernel keeps from one step to the next besides (a step size); ``()`` for most.
      info: what the last step has to say about itself (whether it was accepted): for diagnostics, never read by a
        kernel.
    """

    trace: Trace
    memory: Any = ()
    info: Any = ()


class Stage(NamedTuple):
    """Where in its warmup a chain is, after a step of it.

    Attributes:
      in_window: whether the step was in one of the windows in which the shape of the target is learnt.
      ends_window: whether it was the last one of a window.
      ends: whether it was the last one of the warmup.
    """

    in_window: jax.Array
    ends_window: jax.Array
    ends: jax.Array


@dataclass(frozen=True)
class Loop:
    """How a kernel takes steps in a row while nothing else moves the chain: at places in a form of its own.

    What it needs again at the next step (a gradient) is part of a place, and a trace is made only where one is asked
    for. A place is good for the arguments and the trace it was made of, and for nothing else: whoever changes either
    enters anew.

    Attributes:
      enter: ``(trace, *args) -> place``, a program.
      step: ``(state, *args) -> state``, a program: the kernel's step, from and to a state whose ``trace`` is a place.
      leave: ``(place, *args) -> trace``, a program.
    """

    enter: Callable
    step: Callable
    leave: Callable


@dataclass(frozen=True)
class Kernel:
    """A Markov kernel on traces of a program: itself a program, ``(state, *args) -> state``.

    Attributes:
      program: the target: any program, factors and all.
      init: ``(trace, *args) -> State``, a program (which draws nothing, usually).
      step: ``(state, *args) -> State``, a program that leaves the normalised measure of ``program`` over its choices
        invariant, whatever the memory is.
      adapt: ``(memory, stage) -> memory``, a pure function: the memory with what is to be learnt from the last step, at
        that :class:`Stage` of a warmup. None if there is nothing to learn. :func:`~borelax.inference.mcmc` calls it
        after each step of the warmup and never afterwards, so that the draws are those of a Markov chain.
      loop: the :class:`Loop` of which ``step`` is :func:`once`; None for a kernel whose places are traces.
      adapt_together: like ``adapt``, of the memories of all chains at once, with a leading axis: for what only many
        chains can tell. It is called at the same times.
    """

    program: Callable
    init: Callable
    step: Callable
    adapt: Callable | None = None
    loop: Loop | None = None
    adapt_together: Callable | None = None

    def __call__(self, state: State, *args) -> State:
        return self.step(state, *args)

    @property
    def in_a_row(self) -> Loop:
        """The loop of its steps, whether it has one of its own or not."""
        return self.loop or Loop(_as_it_is, self.step, _as_it_is)


def once(loop: Loop) -> Callable:
    """The step of a kernel, ``(state, *args) -> state``, that enters a loop, takes one step in it and leaves.

    >>> double = Loop(lambda trace: 2 * trace, lambda state: State(state.trace + 1), lambda place: place // 2)
    >>> once(double)(State(3)).trace
    3
    """

    def step(state: State, *args) -> State:
        after = loop.step(replace(state, trace=loop.enter(state.trace, *args)), *args)
        return replace(after, trace=loop.leave(after.trace, *args))

    return step


def _as_it_is(x, *args):
    return x
