"""Resample and move: the stage that samplers over a sequence of targets are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ... import ppl
from ...ppl import Trace
from ...ppl.policy import Cloud
from ...ppl.population import Population, log_growth
from ...ppl.program_law import log_mean
from ...ppl.staging import stage
from ..kernels.compose import KernelError
from ..kernels.kernel import Kernel, State
from .importance import check_size
from .resampling import Adaptive, Resampler
from .tuning_together import axes, caught_up, tuned_together


class Particles(NamedTuple):
    """Weighted states of a kernel, each leaf of which has a leading axis n."""

    cloud: Cloud
    states: State


@dataclass(frozen=True)
class ResampleMove:
    """Particles that follow a sequence of targets: reweighted to each, resampled, and moved by a kernel that keeps it.

    Attributes:
      kernel: of a program ``(parameter, *args)``, whose targets are those of a sequence of parameters.
      n: the number of particles.
      resampler: see ``resampling.py``.
      moves: how many steps of the kernel a particle takes, each time.
      waste_free: whether all states on the way are particles, so that ``n / (moves + 1)`` of them are moved; else only
        the last ones are.

    Sources: Del Moral, Doucet and Jasra, *Sequential Monte Carlo samplers*, JRSS B 68 (2006); Gilks and Berzuini,
    *Following a moving target*, JRSS B 63 (2001); for the waste-free kind, Dau and Chopin, *Waste-free sequential Monte
    Carlo*, JRSS B 84 (2022).
    """

    kernel: Kernel
    n: int
    resampler: Resampler
    moves: int
    waste_free: bool

    def __post_init__(self):
        check_size(self.n)
        if not isinstance(self.moves, int) or self.moves < 1:
            raise ValueError(f"moves is a positive number of steps of the kernel, not {self.moves!r}")
        if self.waste_free and self.n % (self.moves + 1):
            raise ValueError(
                f"waste-free, each particle that is moved becomes {self.moves + 1} of them, by moves={self.moves}: "
                f"n is a multiple of that, not {self.n}"
            )

    def start(self, parameter, *args) -> Particles:
        """Particles that are drawn and weighted as the program is at this parameter."""
        stage(self.kernel.program, parameter, *args).refuse_estimates(
            "It would be another one each time a particle is weighed"
        )

        def begin(_):
            trace = ppl.trace(self.kernel.program)(parameter, *args)
            with ppl.scope("kernel"):
                return self.kernel.init(trace, parameter, *args)

        with ppl.scope("start"):
            states = jax.vmap(begin)(jnp.arange(self.n))
        cloud = Cloud.begin(self.n)._replace(log_weight=states.trace.log_weight)
        return Particles(cloud, states)

    def stage(
        self, particles: Particles, increment: jax.Array, threshold: float, final, parameter, *args
    ) -> Particles:
        """The particles for the target at the next parameter, of runs that are the same as before.

        Args:
          increment: ``[n]``, the log density of the target at the new parameter relative to that at the old one.
          threshold, final: as ``move`` has them.
        """
        traces = particles.states.trace
        traces = replace(
            traces, log_density=traces.log_density + increment, log_weight=traces.log_weight + increment
        )
        return self.move(_weighted(particles, traces, increment), threshold, final, parameter, *args)

    def go_on(self, particles: Particles, parameter, *args) -> Particles:
        """The particles for the target at the next parameter, whose runs go on from where theirs end.

        What comes next is drawn, and weighs.
        """
        before = particles.states.trace
        with ppl.scope("next"):
            after = jax.vmap(lambda trace: ppl.update(self.kernel.program)(trace, parameter, *args).trace)(
                before
            )
        # The difference of the densities is the same, but for the rounding errors of all that they share.
        possible = after.log_weight > -jnp.inf
        increment = jnp.where(possible, after.log_weight - before.log_weight, -jnp.inf)
        return _weighted(particles, after, increment)

    def move(self, particles: Particles, threshold: float, final, parameter, *args) -> Particles:
        """The particles after they were resampled and moved, or as they are.

        They are resampled if their effective sample size is below ``threshold * n``, but not after the ``final`` stage:
        what their weights say of it would be lost. They are moved if they are resampled, and after the final stage.
        Waste-free ones are not: members of unequal weight cannot stand for whole chains.
        """
        share = effective_share(particles.cloud.log_weight)
        resampled = (share > 0) & (share < threshold) & ~final
        moved = resampled if self.waste_free else resampled | final
        move = lambda particles: self._move(particles, resampled, parameter, *args)  # noqa: E731
        return lax.cond(moved, move, lambda particles: particles, particles)

    def population(self, particles: Particles, read: Callable[[Trace], object]) -> Population:
        """The particles as a population whose values are what ``read`` takes from a trace."""
        cloud, states = particles
        return Population(
            jax.vmap(read)(states.trace),
            cloud.log_weight + cloud.log_scale,
            # Of a chain that is kept as a whole, one run does not show how its members vary together.
            jnp.zeros_like(cloud.origin) if self.waste_free else cloud.origin,
            cloud.generations,
            cloud.died,
            initial_size=1 if self.waste_free else self.n,
            log_growth=cloud.log_growth,
        )

    def _move(self, particles: Particles, resampled, parameter, *args) -> Particles:
        cloud, states = particles
        ancestors = ppl.sample("ancestors", Adaptive(self.resampler(cloud.log_weight), resampled))
        if self.waste_free:
            ancestors = _thinned(ancestors, self.moves + 1)
        start = jax.tree.map(lambda x: x[ancestors], states)
        end, path = self._chains(start, parameter, *args)
        if self.waste_free:
            join = lambda first, rest: jnp.concatenate([first[None], rest]).reshape(self.n, *first.shape[1:])  # noqa: E731
            states = jax.tree.map(join, start, path)
            states = replace(states, memory=caught_up(states.memory, end.memory))
            return Particles(_resampled(cloud, resampled), states)
        growth = jnp.where(resampled, log_growth(cloud.log_weight, jnp.zeros(self.n), ancestors), 0.0)
        cloud = cloud._replace(origin=cloud.origin[ancestors], log_growth=cloud.log_growth + growth)
        return Particles(_resampled(cloud, resampled), end)

    def _chains(self, states: State, parameter, *args) -> tuple[State, State | None]:
        """Where the kernel leads in some steps; and, waste-free, where it was after each of them."""
        loop = self.kernel.in_a_row
        on_all = lambda fun: jax.vmap(lambda x: fun(x, parameter, *args))  # noqa: E731

        def leave(states: State) -> State:
            return replace(states, trace=on_all(loop.leave)(states.trace))

        def move(states: State, _):
            memory = tuned_together(self.kernel, states.memory)
            step = jax.vmap(lambda state: loop.step(state, parameter, *args), (State(0, axes(memory), 0),))
            states = step(replace(states, memory=memory))
            return states, leave(states) if self.waste_free else None

        with ppl.scope("kernel"):
            states = replace(states, trace=on_all(loop.enter)(states.trace))
            states, path = lax.scan(move, states, length=self.moves)
            return leave(states), path


def build_kernel(build: Callable[[Callable], Kernel], target: Callable, given_as: str = "kernel") -> Kernel:
    """The kernel that the user's function makes for the targets of a sampler.

    Args:
      given_as: the name of the argument that the function is.

    Raises:
      KernelError: it is none such, or makes a kernel of another program.
    """
    remedy = f"write {given_as}=lambda program: inference.mh(program, proposal): it is to have the sampler's targets"
    if isinstance(build, Kernel):
        raise KernelError(
            f"{given_as} is a function that makes a kernel of a program, not one that is made: {remedy}"
        )
    kernel = build(target)
    if not isinstance(kernel, Kernel):
        raise KernelError(f"the function for the kernel makes none, but {kernel!r}: {remedy}")
    if kernel.program is not target:
        raise KernelError(
            f"the function for the kernel makes one of another program than it is given: {remedy}"
        )
    return kernel


def effective_share(log_weight: jax.Array) -> jax.Array:
    """The effective sample size of log weights ``[n]``, in units of n: ``(sum w)^2 / (n sum w^2)``; 0 without weight.

    >>> float(effective_share(jnp.array([0.0, 0.0, -jnp.inf, -jnp.inf])))
    0.5
    """
    top = jnp.max(log_weight)
    weight = jnp.exp(log_weight - jnp.where(top == -jnp.inf, 0.0, top))
    square = jnp.sum(weight**2)
    return jnp.where(square == 0, 0.0, jnp.sum(weight) ** 2 / (log_weight.size * square))


def _weighted(particles: Particles, traces: Trace, increment: jax.Array) -> Particles:
    """The particles at other traces, with the log weights of the change."""
    cloud, states = particles
    return Particles(cloud._replace(log_weight=cloud.log_weight + increment), replace(states, trace=traces))


def _resampled(cloud: Cloud, resampled) -> Cloud:
    """What is known of a population after it was resampled, if it was."""
    return cloud._replace(
        log_weight=jnp.where(resampled, 0.0, cloud.log_weight),
        log_scale=cloud.log_scale + jnp.where(resampled, log_mean(cloud), 0.0),
        generations=cloud.generations + resampled,
    )


def _thinned(ancestors: jax.Array, step: int) -> jax.Array:
    """Every so-manieth of the ancestors, from a place that is drawn: each place counts equally, whatever the scheme."""
    offset = ppl.sample("offset", dist.Categorical(logits=jnp.zeros(step)))
    return ancestors.reshape(-1, step)[:, offset]
