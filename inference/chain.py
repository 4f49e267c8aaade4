"""A chain of a kernel: how it starts, and how it goes on, as a whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import ppl
from ..ppl import Trace
from .kernel import Kernel, Stage, State
from .start import start


class Slots(NamedTuple):
    """Places for draws, each int32 ``[n]``: the number of the draw, and the steps ``begin`` to ``end`` that lead to it.

    A slot without steps keeps where the chain is: it fills up a part that has fewer draws than the others.
    """

    number: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Chain:
    """A chain. The key of a step is made of its number, so that what is run in parts is what is run as a whole.

    Attributes:
      kernel, num_samples, num_warmup, thin: see :func:`~borelax.inference.mcmc`.
      report: called with the number of steps that were taken, after each; None if nobody wants to know.
    """

    kernel: Kernel
    num_samples: int
    num_warmup: int
    thin: int
    report: Callable | None = None

    @property
    def num_steps(self) -> int:
        return self.num_warmup + self.num_samples * self.thin

    @property
    def slots(self) -> Slots:
        """The places of all draws. The warmup leads to the first of them."""
        number = np.arange(self.num_samples, dtype=np.int32)
        begin = self.num_warmup + number * self.thin
        return Slots(number, np.where(number == 0, 0, begin).astype(np.int32), begin + np.int32(self.thin))

    def parts(self, every: int) -> list[tuple[Slots, int]]:
        """Slots ``[every]`` for each part, and how many draws it has: none while it warms up."""
        steps = np.arange(0, self.num_warmup, every * self.thin, dtype=np.int32)
        found = []
        for begin, end in zip(steps, np.append(steps[1:], np.int32(self.num_warmup))):
            found.append((_filled_up(Slots(np.zeros(1, np.int32), begin[None], end[None]), every), 0))
        slots = self.slots
        slots.begin[0] = self.num_warmup
        for first in range(0, self.num_samples, every):
            part = Slots(*(x[first : first + every] for x in slots))
            found.append((_filled_up(part, every), len(part.number)))
        return found

    def begin(self, key, init: Trace | None, args: tuple) -> tuple[State, jax.Array]:
        """The state before the first step, at a place of the kernel's loop, and whether its density is finite."""
        start_key, init_key, _, _ = jax.random.split(key, 4)
        if init is None:
            trace = start(self.kernel.program)(start_key, *args)
        else:
            trace = ppl.seed(ppl.update(self.kernel.program))(start_key, init, *args).trace
        state = ppl.seed(self.kernel.init)(init_key, trace, *args)
        place = ppl.seed(self.kernel.in_a_row.enter)(init_key, state.trace, *args)
        return replace(state, trace=place), jnp.isfinite(trace.log_density)

    def go_on(self, key, state: State, slots: Slots, args: tuple) -> tuple[State, tuple[Trace, Any]]:
        """The state after the last of the slots, and the traces and infos of all, ``[n]``.

        Warmup and draws are one loop, so that a step is compiled once.
        """
        kernel = self.kernel
        _, _, trace_key, step_key = jax.random.split(key, 4)
        step, leave = ppl.seed(kernel.in_a_row.step), ppl.seed(kernel.in_a_row.leave)
        stages = _schedule(self.num_warmup)

        def advance(number, state: State) -> State:
            state = step(jax.random.fold_in(step_key, number), state, *args)
            if self.report is not None:
                self.report(number + 1)
            if kernel.adapt is None or not self.num_warmup:
                return state
            stage = jax.tree.map(lambda x: x[number], stages)
            is_warmup = number < self.num_warmup
            memory = lax.cond(is_warmup, kernel.adapt, lambda memory, _: memory, state.memory, stage)
            return replace(state, memory=memory)

        def draw(state: State, slot: Slots):
            state = lax.fori_loop(slot.begin, slot.end, advance, state)
            trace = leave(jax.random.fold_in(trace_key, slot.number), state.trace, *args)
            return state, (trace, state.info)

        return lax.scan(draw, state, jax.tree.map(jnp.asarray, slots))


def _filled_up(slots: Slots, size: int) -> Slots:
    """With slots without steps behind."""
    missing = size - len(slots.number)
    last = [slots.number[-1], slots.end[-1], slots.end[-1]]
    return Slots(*(np.append(x, np.full(missing, y)).astype(np.int32) for x, y in zip(slots, last)))


def _schedule(num_warmup: int) -> Stage:
    """The stages of a warmup, each with an axis of its steps."""
    from blackjax.adaptation.window_adaptation import build_schedule

    in_window, ends_window = jnp.asarray(build_schedule(num_warmup)).reshape(num_warmup, 2).T
    return Stage(in_window == 1, ends_window == 1, jnp.arange(num_warmup) == num_warmup - 1)
