"""What gradient kernels learn while a chain warms up: a step size, and the scales of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from .given_tuning import check_inverse_mass, check_positive, check_target_acceptance, inverse_mass_for
from .gradient_kernel import Place, Trajectory
from .kernel import Stage


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tuning:
    """The memory of a gradient kernel.

    Attributes:
      step_size: of the leapfrog integrator.
      inverse_mass: the inverse of the mass matrix, ``[n]`` if diagonal, else ``[n, n]``: an estimate of the covariance
        of the positions.
      position: ``[n]``, where the last step led.
      acceptance_rate: that of the last step.
      is_new: whether there was a step since the last look at it.
      averaging: the state of dual averaging; ``()`` if the step size is given.
      moments: the state of the estimate of the covariance; ``()`` if the mass matrix is given.
    """

    step_size: jax.Array
    inverse_mass: jax.Array
    position: jax.Array
    acceptance_rate: jax.Array
    is_new: jax.Array
    averaging: Any
    moments: Any


@dataclass(frozen=True)
class Tuner:
    """How a gradient kernel is tuned.

    The step size is moved by dual averaging until trajectories are accepted at the target rate. In windows that double
    in length the covariance of the positions is estimated; at the end of each it becomes the inverse mass matrix,
    shrunk a little towards a small multiple of the identity, and the search for a step size starts anew. What is given
    stays as it is.

    Attributes:
      step_size: a positive number; None to learn it.
      inverse_mass: ``[n]`` or ``[n, n]``; None to learn it.
      dense: whether a matrix is learnt, rather than its diagonal.
      target_acceptance: the acceptance rate that the step size is to lead to.

    Source: Hoffman and Gelman, *The No-U-Turn Sampler*, JMLR 15 (2014), section 3.2; the windows are those of the Stan
    reference manual, "Automatic parameter tuning". Both are BlackJAX's.
    """

    step_size: float | None
    inverse_mass: Any
    dense: bool
    target_acceptance: float

    def __post_init__(self):
        check_positive("step size", self.step_size)
        check_target_acceptance(self.target_acceptance)
        check_inverse_mass(self.inverse_mass)

    adapt_together = None

    @property
    def adapt(self) -> Callable | None:
        return self.learn if self.step_size is None or self.inverse_mass is None else None

    def start(self, position: jax.Array) -> Tuning:
        """What a chain starts with: the unit matrix, and a step that shrinks with the dimension as it will have to."""
        n = len(position)
        step_size = n**-0.25 if self.step_size is None else self.step_size
        averaging, moments = (), ()
        if self.step_size is None:
            averaging = _averaging(self.target_acceptance)[0](jnp.asarray(step_size, float))
        if self.inverse_mass is None:
            moments = _moments(self.dense)[0](n)
            inverse_mass = moments.inverse_mass_matrix
        else:
            inverse_mass = inverse_mass_for(n, self.inverse_mass)
        tuning = Tuning(step_size, inverse_mass, position, 0.0, False, averaging, moments)
        return jax.tree.map(strong, tuning)

    def noted(self, tuning: Tuning, place: Place, info: Trajectory) -> Tuning:
        """With where the last step led."""
        return replace(
            tuning, position=place.position, acceptance_rate=info.acceptance_rate, is_new=jnp.array(True)
        )

    def learn(self, tuning: Tuning, stage: Stage) -> Tuning:
        """What was learnt from the last step."""
        learnt = tuning
        if self.inverse_mass is None:
            learnt = self._learn_mass(learnt, stage)
        if self.step_size is None:
            learnt = self._learn_step_size(learnt, stage)
        learnt = replace(learnt, is_new=jnp.zeros_like(learnt.is_new))
        return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), learnt, tuning)

    def _learn_mass(self, tuning: Tuning, stage: Stage) -> Tuning:
        _, update, final = _moments(self.dense)
        usable = stage.in_window & tuning.is_new & jnp.all(jnp.isfinite(tuning.position))
        moments = choose(usable, update(tuning.moments, tuning.position), tuning.moments)
        # Two positions are what a variance takes; a window that has fewer of them goes on.
        ends = stage.ends_window & (moments.wc_state.sample_size > 1)
        moments = choose(ends, final(moments), moments)
        return replace(tuning, moments=moments, inverse_mass=moments.inverse_mass_matrix)

    def _learn_step_size(self, tuning: Tuning, stage: Stage) -> Tuning:
        start, update, final = _averaging(self.target_acceptance)
        averaging = choose(tuning.is_new, update(tuning.averaging, tuning.acceptance_rate), tuning.averaging)
        if self.inverse_mass is None:
            averaging = choose(stage.ends_window, start(final(averaging)), averaging)
        step_size = jnp.where(stage.ends, final(averaging), jnp.exp(averaging.log_step_size))
        return replace(tuning, averaging=averaging, step_size=step_size)


def _averaging(target_acceptance: float):
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation(target_acceptance)


def _moments(dense: bool):
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation

    return mass_matrix_adaptation(is_diagonal_matrix=not dense)


def choose(condition, new, old):
    """One of two trees of like arrays."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def strong(x):
    """An array whose dtype is its own, so that it does not change from step to step."""
    x = jnp.asarray(x)
    return jnp.asarray(x, x.dtype)
