"""What the kernels that follow gradients have in common: positions in R^n, and the trace at a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ... import ppl
from ...ppl import Selection, Trace
from ...ppl.random_key import RandomKey
from .free_sites import FreeSites, free_sites, selected
from .kernel import Kernel, Loop, State, once


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trajectory:
    """What a step along a trajectory says of itself: the ``info`` of its state.

    Attributes:
      acceptance_rate: of the proposed point; for NUTS, the mean over the points of the trajectory.
      divergent: whether the energy changed so much that the integrator must have lost its way.
      energy: the Hamiltonian where the step ended: minus the log density of the position, plus the kinetic energy.
      num_steps: how many leapfrog steps were taken.
      cut_short: whether it would have gone on if it might take more of them.
      step_size: of the integrator.
    """

    acceptance_rate: jax.Array
    divergent: jax.Array
    energy: jax.Array
    num_steps: jax.Array
    cut_short: jax.Array
    step_size: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Place:
    """Where a kernel is while it takes steps in a row.

    Attributes:
      position: ``[n]``.
      log_density: of the position, given all other sites.
      gradient: of that, ``[n]``.
      origin: the trace that the steps began at: the other sites are as they are there.
      moved: whether the position is another one by now.
    """

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    origin: Trace
    moved: jax.Array


class Learner(Protocol):
    """What a kernel has in its memory, and how that is learnt; see :class:`Tuner`.

    Attributes:
      adapt, adapt_together: those of the kernel.
    """

    adapt: Callable | None
    adapt_together: Callable | None

    def start(self, position: jax.Array) -> Any:
        """The memory of a kernel that moves a position ``[n]``: a program."""

    def noted(self, memory: Any, place: Place, info: Trajectory) -> Any:
        """The memory with what is to be learnt from, after a step that led to a place."""


def gradient_kernel(
    name: str, program: Callable, sites: Sequence[str] | Selection | None, move: Callable, learner: Learner
) -> Kernel:
    """The kernel that moves the positions of some sites, given all others.

    In a loop the gradient where a step ends is the one where the next step begins, and no trace is made until the loop
    is left. Outside of one, where other kernels and other arguments may have changed the target, it is computed anew.

    Args:
      name: the scope of its sites.
      sites: addresses, or a selection; None for all.
      move: ``(key, place, log_density, memory) -> (position, log_density, gradient, memory, Trajectory)``.
    """
    sites = selected(sites)

    def density_at(trace: Trace, args: tuple) -> tuple[FreeSites, Callable, Callable]:
        """The sites, their log density at a position ``[n]``, and that as nested dicts."""
        free = free_sites(name, program, sites, trace, args)
        _, unravel = ravel_pytree(_zeros(free.shapes))
        # Under jit, so that the program is traced once, however many times the integrator calls it.
        return free, jax.jit(lambda x: free.log_density(unravel(x))), unravel

    def init(trace: Trace, *args) -> State:
        free = free_sites(name, program, sites, trace, args)
        shapes = jax.eval_shape(lambda: ravel_pytree(_zeros(free.shapes))[0])
        with ppl.scope(name):
            memory = learner.start(_zeros(shapes))
        zero, no = jnp.zeros((), float), jnp.array(False)
        return State(trace, memory, Trajectory(zero, no, zero, jnp.zeros((), int), no, memory.step_size))

    def enter(trace: Trace, *args) -> Place:
        free, log_density, _ = density_at(trace, args)
        position, _ = ravel_pytree(free.position)
        return Place(position, *jax.value_and_grad(log_density)(position), trace, jnp.array(False))

    def step(state: State, *args) -> State:
        before = state.trace
        _, log_density, _ = density_at(before.origin, args)
        with ppl.scope(name):
            key = ppl.sample("key", RandomKey())
        *end, memory, info = move(key, before, log_density, state.memory)
        after = Place(*end, before.origin, jnp.array(True))
        moved = jnp.any(after.position != before.position) & jnp.all(jnp.isfinite(after.position))
        place = jax.tree.map(lambda x, y: jnp.where(moved, x, y), after, before)
        info = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), info, state.info)
        return State(place, learner.noted(memory, place, info), info)

    def leave(place: Place, *args) -> Trace:
        free, _, unravel = density_at(place.origin, args)
        with ppl.scope(name), ppl.scope("program"):
            return free.moved_if(place.moved, unravel(place.position))

    loop = Loop(enter, step, leave)
    return Kernel(program, init, once(loop), learner.adapt, loop, learner.adapt_together)


def _zeros(shapes):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
