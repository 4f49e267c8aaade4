"""Chains of a kernel: how they start, and how they go on, as a whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ppl
from ...ppl import Trace
from ..kernels.kernel import Kernel, Stage, State
from .devices import Devices
from .start import start


class Slots(NamedTuple):
    """Places for draws, each int32 ``[n]``: the number of the draw, and the steps ``begin`` to ``end`` that lead to it.

    A slot without steps keeps where the chain is: it fills up a part that has fewer draws than the others.
    """

    number: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Chains:
    """Chains side by side. The key of a step is made of a chain's key and of the number of the step, so that what is
    run in parts is what is run as a whole.

    Attributes:
      kernel, num_samples, num_warmup, thin: see :func:`~borelax.inference.mcmc`.
      devices: which chains run on; what is here is what each of them does.
      report: called with the number of steps that were taken, after each; None if nobody wants to know.
    """

    kernel: Kernel
    num_samples: int
    num_warmup: int
    thin: int
    devices: Devices
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

    def begin(self, keys, init: Trace | None, args: tuple) -> tuple[State, jax.Array]:
        """The states before the first step, at places of the kernel's loop, and whether their densities are finite.

        All have a leading axis of chains, as the keys have.
        """
        return jax.vmap(lambda key, init: self._begin(key, init, args))(keys, init)

    def _begin(self, key, init: Trace | None, args: tuple) -> tuple[State, jax.Array]:
        start_key, init_key, _, _ = jax.random.split(key, 4)
        if init is None:
            trace = start(self.kernel.program)(start_key, *args)
        else:
            trace = ppl.seed(ppl.update(self.kernel.program))(start_key, init, *args).trace
        state = ppl.seed(self.kernel.init)(init_key, trace, *args)
        place = ppl.seed(self.kernel.in_a_row.enter)(init_key, state.trace, *args)
        return replace(state, trace=place), jnp.isfinite(trace.log_density)

    def go_on(self, keys, states: State, slots: Slots, args: tuple) -> tuple[State, tuple[Trace, Any]]:
        """The states after the last of the slots, and the traces and infos of all, ``[chain, n]``.

        Warmup and draws are one loop, so that a step is compiled once.
        """
        loop = self.kernel.in_a_row
        _, _, trace_keys, step_keys = jax.vmap(partial(jax.random.split, num=4), out_axes=1)(keys)
        step = jax.vmap(lambda key, state: ppl.seed(loop.step)(key, state, *args))
        leave = jax.vmap(lambda key, place: ppl.seed(loop.leave)(key, place, *args))
        stages = _schedule(self.num_warmup)
        adapt = self._adapt if self.num_warmup else None

        def advance(number, states: State) -> State:
            states = step(_numbered(step_keys, number), states)
            if self.report is not None:
                self.devices.once(self.report, number + 1)
            if adapt is None:
                return states
            stage = jax.tree.map(lambda x: x[number], stages)
            is_warmup = number < self.num_warmup
            memory = lax.cond(is_warmup, adapt, lambda memory, _: memory, states.memory, stage)
            return replace(states, memory=memory)

        def draw(states: State, slot: Slots):
            states = lax.fori_loop(slot.begin, slot.end, advance, states)
            traces = leave(_numbered(trace_keys, slot.number), states.trace)
            return states, (traces, states.info)

        states, drawn = lax.scan(draw, states, jax.tree.map(jnp.asarray, slots))
        return states, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)

    @property
    def _adapt(self) -> Callable | None:
        """How the memories ``[chain]`` adapt: each on its own, and then all together."""
        alone, together = self.kernel.adapt, self.kernel.adapt_together
        if alone is None and together is None:
            return None

        def adapt(memory, stage: Stage):
            if alone is not None:
                memory = jax.vmap(alone, (0, None))(memory, stage)
            if together is not None:
                memory = self.devices.of_all(together)(memory, stage)
            return memory

        return adapt


_FEWEST_LEFT = 10  # steps of a warmup, for a step size alone
_numbered = jax.vmap(jax.random.fold_in, (0, None))


def _filled_up(slots: Slots, size: int) -> Slots:
    """With slots without steps behind."""
    missing = size - len(slots.number)
    last = [slots.number[-1], slots.end[-1], slots.end[-1]]
    return Slots(*(np.append(x, np.full(missing, y)).astype(np.int32) for x, y in zip(slots, last)))


def _schedule(num_warmup: int) -> Stage:
    """The stages of a warmup, each with an axis of its steps: Stan's.

    Without 150 steps to go through, it is 15% of them, one window, and 10%; but here ten at the least, as a search for
    a step size that starts anew with a few steps left ends anywhere. Below twenty there is no window.
    """
    begin, end, size = 75, num_warmup - 50, 25
    if num_warmup < 150:
        begin = int(0.15 * num_warmup)
        end = size = num_warmup - max(int(0.1 * num_warmup), _FEWEST_LEFT)
    if num_warmup < 2 * _FEWEST_LEFT:
        begin = end
    step = np.arange(num_warmup)
    ends_window = np.zeros(num_warmup, bool)
    last = begin
    while last < end:
        # A window that the next one, of twice the size, has no room behind takes all that is left.
        last = last + size if last + 3 * size <= end else end
        ends_window[last - 1] = True
        size *= 2
    return Stage(*map(jnp.asarray, ((begin <= step) & (step < end), ends_window, step == num_warmup - 1)))
