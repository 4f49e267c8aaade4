"""What the kernels that follow gradients have in common: positions in R^n, and the trace at a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .. import ppl
from ..ppl import Selection, Trace, Unconstrained, UnsupportedError
from ..ppl.choices import flatten, nest, spell
from ..ppl.random_key import RandomKey
from ..ppl.staging import SiteInfo, stage
from .kernel import Kernel, State
from .lebesgue import is_discrete
from .tuning import Tuner


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trajectory:
    """What a step along a trajectory says of itself: the ``info`` of its state.

    Attributes:
      acceptance_rate: of the proposed point; for NUTS, the mean over the points of the trajectory.
      divergent: whether the energy changed so much that the integrator must have lost its way.
      energy: the Hamiltonian where the step ended: minus the log density of the position, plus the kinetic energy.
      num_steps: how many leapfrog steps were taken.
      cut_short: whether NUTS stopped because it may not take more of them.
      step_size: of the integrator.
    """

    acceptance_rate: jax.Array
    divergent: jax.Array
    energy: jax.Array
    num_steps: jax.Array
    cut_short: jax.Array
    step_size: jax.Array


def gradient_kernel(
    name: str, program: Callable, sites: Sequence[str] | Selection | None, move: Callable, tuner: Tuner
) -> Kernel:
    """The kernel that moves the positions of some sites, given all others.

    The gradient where a step begins is computed anew: since the last step another kernel may have changed the target.

    Args:
      name: the scope of its sites.
      sites: addresses, or a selection; None for all.
      move: ``(key, log_density, tuning) -> (position, Trajectory)``, from ``tuning.position``.
    """
    selection = _selection(sites)

    def init(trace: Trace, *args) -> State:
        free, _ = _free(name, program, selection, trace, args)
        shapes = jax.eval_shape(lambda: ravel_pytree(_zeros(free.shapes(*args)))[0])
        tuning = tuner.start(_zeros(shapes))
        zero, no = jnp.zeros((), float), jnp.array(False)
        return State(trace, tuning, Trajectory(zero, no, zero, jnp.zeros((), int), no, tuning.step_size))

    def step(state: State, *args) -> State:
        free, moving = _free(name, program, selection, state.trace, args)
        before, unravel = ravel_pytree(free.unconstrain(moving, *args))
        # Under jit, so that the program is traced once, however many times the integrator calls it.
        log_density = jax.jit(lambda x: free.log_density(unravel(x), *args))
        with ppl.scope(name):
            key = ppl.sample("key", RandomKey())
            after, info = move(key, log_density, replace(state.memory, position=before))
            with ppl.scope("program"):
                trace = ppl.update(program, free.constrain(unravel(after), *args))(state.trace, *args).trace
        # Mapped there and back, a position that stays would be rounded.
        moved = jnp.any(after != before) & jnp.all(jnp.isfinite(after))
        trace = jax.tree.map(lambda x, y: jnp.where(moved, x, y), trace, state.trace)
        info = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), info, state.info)
        memory = replace(
            state.memory, position=after, acceptance_rate=info.acceptance_rate, is_new=jnp.array(True)
        )
        return State(trace, memory, info)

    return Kernel(program, init, step, tuner.adapt if tuner.learns else None)


def _selection(sites: Sequence[str] | Selection | None) -> Selection:
    if sites is None:
        return ppl.select(lambda address: True)
    if isinstance(sites, str):
        raise TypeError(f"sites are a list of addresses, or a selection; write [{sites!r}]")
    return sites if isinstance(sites, Selection) else ppl.select(*sites)


def _free(
    name: str, program: Callable, selection: Selection, trace: Trace, args: tuple
) -> tuple[Unconstrained, dict]:
    """The density of the selected sites given the others, over R^n, and their present choices."""
    infos = stage(program, *args).of_kind("sample")
    chosen = selection.among(info.address for info in infos)
    _check(name, infos, chosen)
    choices = flatten(trace.choices)
    moving = {address: x for address, x in choices.items() if address in chosen}
    rest = {address: x for address, x in choices.items() if address not in chosen}
    conditioned = ppl.condition(program, nest(rest)) if rest else program
    return ppl.unconstrain(conditioned), nest(moving)


def _check(name: str, infos: list[SiteInfo], chosen: set) -> None:
    if not chosen:
        raise UnsupportedError(f"there is no site for {name} to move: the program has none that is selected")
    moved = [info for info in infos if info.address in chosen]
    discrete = [info for info in moved if is_discrete(info)]
    if discrete:
        free = _spelled(info for info in moved if info not in discrete)
        remedy = f"inference.gibbs(program, {_spelled(discrete)})"
        if free:
            remedy = f"inference.cycle(inference.{name}(program, {free}), {remedy})"
        raise UnsupportedError(
            f"site {discrete[0]} is discrete, so that there is no gradient to follow: write {remedy}, with "
            "inference.mh in place of gibbs if its support is not finite; or sum it out (ppl.marginal with "
            "inference.enumerate)"
        )


def _spelled(infos) -> list[str]:
    return list(dict.fromkeys(spell(info.address) for info in infos))


def _zeros(shapes):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
