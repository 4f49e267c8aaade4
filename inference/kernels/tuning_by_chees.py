"""What chains learn together by the ChEES criterion: a step size, the length of trajectories, and variances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .given_tuning import check_diagonal, check_positive, check_target_acceptance, inverse_mass_for
from .gradient_kernel import Place, Trajectory
from .kernel import Stage
from .tuning import choose, strong

# Of the ascent, in which the logarithm of the length changes by this, divided by the root of the number of steps.
_RATE = 0.1
# A quarter of the period of a standard normal law.
_QUARTER = math.pi / 2


class Proposal(NamedTuple):
    """A trajectory: where it began, ``[n]``, where it led, the momentum there, and its share of the longest one."""

    start: jax.Array
    end: jax.Array
    momentum: jax.Array
    acceptance_rate: jax.Array
    divergent: jax.Array
    share: jax.Array


class Moments(NamedTuple):
    """How many positions there were in a window, their means and their sums of squares about these, ``[n]``."""

    count: jax.Array
    mean: jax.Array
    squares: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Length:
    """The memory of :func:`chees`. What is learnt is the same for all chains.

    Attributes:
      step_size: of the leapfrog integrator.
      trajectory_length: of the longest trajectories: the step size times the number of steps.
      inverse_mass: ``[n]``, an estimate of the variances of the positions.
      number: of steps that the kernel has taken: the place in the Halton sequence.
      proposal: the last trajectory.
      is_new: whether there was a step since the last look at it.
      ascent: the state of BlackJAX's adaptation.
      moments: those of the present window; ``()`` if the mass matrix is given.
    """

    step_size: jax.Array
    trajectory_length: jax.Array
    inverse_mass: jax.Array
    number: jax.Array
    proposal: Proposal
    is_new: jax.Array
    ascent: Any
    moments: Any


@dataclass(frozen=True)
class ByChees:
    """How :func:`chees` is tuned.

    At each step the step size is moved by dual averaging, and the length along the gradient of the criterion. Variances
    are those of all chains in windows that double in length. When they become the inverse mass, at the end of a window,
    the length stays what it was in units of the widest coordinate, and the step size in those of the narrowest; both
    searches start anew from there. (What the length was before any variance was known is forgotten: it starts at a
    quarter of the period of a standard normal law.) What is given stays as it is.
    """

    step_size: float | None
    trajectory_length: float | None
    inverse_mass: Any
    target_acceptance: float
    max_steps: int

    adapt = None

    def __post_init__(self):
        check_positive("step size", self.step_size)
        check_positive("trajectory length", self.trajectory_length)
        check_target_acceptance(self.target_acceptance)
        check_diagonal(self.inverse_mass, "chees")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"a trajectory has at most a positive number of steps, not {self.max_steps!r}")

    @property
    def adapt_together(self) -> Callable | None:
        is_given = [x is not None for x in (self.step_size, self.trajectory_length, self.inverse_mass)]
        return None if all(is_given) else self.learn

    def start(self, position: jax.Array) -> Length:
        """What chains start with: unit variances, a step that shrinks with the dimension, and trajectories of one."""
        n, zero, no = len(position), jnp.zeros((), float), jnp.array(False)
        step_size = n**-0.25 if self.step_size is None else self.step_size
        length = step_size if self.trajectory_length is None else self.trajectory_length
        inverse_mass, moments = jnp.ones(n), _no_moments(n)
        if self.inverse_mass is not None:
            inverse_mass, moments = inverse_mass_for(n, self.inverse_mass), ()
        ascent = self._begun(jnp.asarray(step_size, float), jnp.asarray(length, float))
        proposal = Proposal(position, position, position, zero, no, zero)
        memory = Length(step_size, length, inverse_mass, 0, proposal, no, ascent, moments)
        return jax.tree.map(strong, memory)

    def noted(self, memory: Length, place: Place, info: Trajectory) -> Length:
        return replace(memory, is_new=jnp.array(True))

    def learn(self, memory: Length, stage: Stage) -> Length:
        """What all chains ``[chain]`` have learnt from their last steps."""
        chains = len(memory.is_new)
        if chains < 2:
            raise ValueError(
                "chees learns from all chains at once: num_chains is 2 or more, better tens of them. Or give it a "
                "step_size, a trajectory_length and an inverse_mass; or write inference.nuts"
            )
        one = jax.tree.map(lambda x: x[0], memory)
        moved = memory.is_new & jnp.all(jnp.isfinite(memory.proposal.start), axis=1)
        learnt = self._climb(one, memory.proposal, moved)
        if self.inverse_mass is None:
            learnt = self._widen(learnt, memory.proposal.start, moved, stage)
        learnt = self._settled(learnt, stage)
        learnt = jax.tree.map(lambda x, y: jnp.broadcast_to(jnp.asarray(x, y.dtype), y.shape), learnt, memory)
        return replace(
            learnt, number=memory.number, proposal=memory.proposal, is_new=jnp.zeros_like(memory.is_new)
        )

    def _climb(self, one: Length, proposals: Proposal, moved: jax.Array) -> Length:
        """One step of both searches."""
        ends = jnp.stack([proposals.end, proposals.momentum])
        usable = moved & jnp.all(jnp.isfinite(ends), axis=(0, 2))
        share = jnp.sum(jnp.where(usable, proposals.share, 0.0)) / jnp.maximum(jnp.sum(usable), 1)
        only = lambda x: jnp.where(usable[:, None], x, jnp.nan)  # noqa: E731
        _, update = self._searches
        ascent = update(
            one.ascent._replace(random_generator_arg=share),
            only(proposals.end),
            -proposals.momentum,  # it descends, along momenta that were turned at the end of their trajectory
            only(proposals.start),
            proposals.acceptance_rate,
            proposals.divergent | ~usable,
            one.inverse_mass,
        )
        # Where it would not be shorter than the step size: that jumps while it is searched for.
        ascent = ascent._replace(trajectory_length=self._averages(ascent)[1])
        return replace(one, ascent=choose(jnp.any(moved), ascent, one.ascent))

    def _widen(self, one: Length, positions: jax.Array, moved: jax.Array, stage: Stage) -> Length:
        """One more step of a window, and its end."""
        moments = choose(stage.in_window, _with(one.moments, positions, moved), one.moments)
        ends = stage.ends_window & (moments.count > 1)
        variance = moments.squares / jnp.maximum(moments.count - 1, 1)
        shrunk = (moments.count * variance + 5e-3) / (moments.count + 5)
        wider = jnp.sqrt(shrunk / one.inverse_mass)
        step_size, length = self._averages(one.ascent)
        is_first = jnp.all(one.inverse_mass == 1)
        length = jnp.where(is_first, _QUARTER, length / jnp.max(wider))
        begun = self._begun(step_size / jnp.min(wider), length)
        after = replace(one, inverse_mass=shrunk, ascent=begun, moments=_no_moments(len(shrunk)))
        return choose(ends, after, replace(one, moments=moments))

    def _settled(self, one: Length, stage: Stage) -> Length:
        """With the lengths to take next: at the end of the warmup, averages."""
        now = one.ascent.step_size, one.ascent.trajectory_length
        step_size, length = choose(stage.ends, self._averages(one.ascent), now)
        step_size = step_size if self.step_size is None else jnp.asarray(self.step_size)
        if self.trajectory_length is None:
            length = jnp.clip(length, step_size, self.max_steps * step_size)
        else:
            length = jnp.asarray(self.trajectory_length)
        return replace(one, step_size=step_size, trajectory_length=length)

    @staticmethod
    def _averages(ascent) -> tuple[jax.Array, jax.Array]:
        """Of the step sizes and of the lengths since the searches began."""
        logs = ascent.log_step_size_moving_average, ascent.log_trajectory_length_moving_average
        return jnp.exp(logs[0]), jnp.exp(logs[1])

    def _begun(self, step_size: jax.Array, length: jax.Array):
        """Searches that begin at a step size and a length."""
        init, _ = self._searches
        return init(jnp.zeros((), float), step_size)._replace(
            trajectory_length=length,
            log_step_size_moving_average=jnp.log(step_size),
            log_trajectory_length_moving_average=jnp.log(length),
        )

    @property
    def _searches(self) -> tuple[Callable, Callable]:
        """BlackJAX's ``init(share, step_size)`` and ``update``."""
        import optax
        from blackjax.adaptation.chees_adaptation import base

        as_it_is = lambda share: share  # noqa: E731
        ascent = optax.adam(_RATE, b1=0.0, b2=0.95)
        return base(as_it_is, as_it_is, ascent, self.target_acceptance, 0.5, self.max_steps)


def _no_moments(n: int) -> Moments:
    return Moments(jnp.zeros((), float), jnp.zeros(n), jnp.zeros(n))


def _with(moments: Moments, positions: jax.Array, usable: jax.Array) -> Moments:
    """Those of a window with further positions ``[chain, n]``, by the formula of Chan, Golub and LeVeque."""
    count = jnp.sum(usable)
    positions = jnp.where(usable[:, None], positions, 0.0)
    mean = jnp.sum(positions, axis=0) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.where(usable[:, None], positions - mean, 0.0) ** 2, axis=0)
    total = jnp.maximum(moments.count + count, 1)
    apart = mean - moments.mean
    return Moments(
        moments.count + count,
        moments.mean + apart * count / total,
        moments.squares + squares + apart**2 * moments.count * count / total,
    )
