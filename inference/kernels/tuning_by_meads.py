"""What chains learn together from the largest eigenvalues of where they are: a step size, a damping, and variances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ... import ppl
from .given_tuning import check_diagonal, check_positive, inverse_mass_for
from .gradient_kernel import Place, Trajectory
from .kernel import Stage
from .tuning import choose, strong


class Learnt(NamedTuple):
    """Numbers, and variances ``[n]``."""

    step_size: jax.Array
    damping: jax.Array
    inverse_mass: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Damping:
    """The memory of :func:`meads`. Position, momentum and level are a chain's state: its law is the target's, with a
    standard normal and a uniform one.

    Attributes:
      step_size: of the leapfrog integrator.
      damping: at which rate the momentum is forgotten: by exp(-damping * step size) in a step.
      inverse_mass: ``[n]``, an estimate of the variances of the positions.
      momentum: ``[n]``, in units of the square root of the mass.
      level: in (-1, 1): its absolute value is what the ratio of densities must exceed for a step to be accepted.
      position, gradient: ``[n]``, where the last step led.
      is_known: whether there was a step.
      number: of adaptations.
      average: of what was learnt.
    """

    step_size: jax.Array
    damping: jax.Array
    inverse_mass: jax.Array
    momentum: jax.Array
    level: jax.Array
    position: jax.Array
    gradient: jax.Array
    is_known: jax.Array
    number: jax.Array
    average: Learnt


@dataclass(frozen=True)
class ByMeads:
    """How :func:`meads` is tuned.

    Chains are in folds, which are made anew after each has had its turn, by permutations that are the same in all runs.
    A fold takes step size and variances from its neighbour, so that it does not follow its own errors, and its damping
    from itself. At the end of the warmup all chains take an average of what the folds had in the last steps. What is
    given stays as it is.
    """

    step_size: float | None
    damping: float | None
    inverse_mass: Any
    num_folds: int

    adapt = None

    def __post_init__(self):
        check_positive("step size", self.step_size)
        check_positive("damping", self.damping)
        check_diagonal(self.inverse_mass, "meads")
        if not isinstance(self.num_folds, int) or self.num_folds < 1:
            raise ValueError(f"num_folds is a positive integer, not {self.num_folds!r}")

    @property
    def adapt_together(self) -> Callable | None:
        is_given = [x is not None for x in (self.step_size, self.damping, self.inverse_mass)]
        return None if all(is_given) else self.learn

    def start(self, position: jax.Array) -> Damping:
        """What chains start with: unit variances, a step that shrinks with the dimension, and a damping of one."""
        n = len(position)
        momentum = ppl.sample("momentum", dist.Normal(0.0, 1.0).expand([n]))
        level = ppl.sample("level", dist.Uniform(-1.0, 1.0))
        begun = Learnt(jnp.asarray(n**-0.25), jnp.ones(()), jnp.ones(n))
        no = jnp.array(False)
        memory = Damping(*self._with_given(begun), momentum, level, position, position, no, 0, begun)
        return jax.tree.map(strong, memory)

    def noted(self, memory: Damping, place: Place, info: Trajectory) -> Damping:
        return replace(
            memory, position=place.position, gradient=place.gradient, is_known=jnp.ones_like(memory.is_known)
        )

    def learn(self, memory: Damping, stage: Stage) -> Damping:
        """What all chains ``[chain]`` have learnt from where they are."""
        chains = len(memory.is_known)
        if chains % self.num_folds or chains < 2 * self.num_folds:
            raise ValueError(
                f"meads learns from folds of chains, of which there are num_folds={self.num_folds}: num_chains is a "
                f"multiple of that, and at least twice as many, not {chains}"
            )
        number = memory.number[0]
        turn = jax.random.fold_in(jax.random.key(0), number // self.num_folds)
        order = jax.random.permutation(turn, chains).reshape(self.num_folds, -1)
        found, is_sound = self._learnt_in(jax.tree.map(lambda x: x[order], memory), number)
        # Where a fold has told nothing, it stays with what there is.
        before = jax.tree.map(lambda x: x[0], memory.average)
        found = Learnt(*(jnp.where(_like(is_sound, x), x, y) for x, y in zip(found, before)))
        weight = (number + 1.0) ** -0.5
        average = jax.tree.map(lambda x, y: (1 - weight) * x + weight * jnp.mean(y, axis=0), before, found)
        of_chain = jax.tree.map(lambda x: _by_chain(x, order), found)
        everybody = lambda x: jnp.broadcast_to(x, (chains, *x.shape))  # noqa: E731
        average = jax.tree.map(everybody, average)
        now = jax.vmap(self._with_given)(choose(stage.ends, average, of_chain))
        learnt = replace(memory, **now._asdict(), number=memory.number + 1, average=average)
        return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), learnt, memory)

    def _learnt_in(self, folds: Damping, number: jax.Array) -> tuple[Learnt, jax.Array]:
        """By each fold ``[fold]``, and whether it is sound, from the states of its chains ``[fold, chain of it]``."""
        states = folds.position, folds.gradient
        usable = folds.is_known & jnp.all(jnp.isfinite(jnp.stack(states)), axis=(0, 3))
        position, gradient = (jnp.where(usable[..., None], x, 0.0) for x in states)
        count = jnp.sum(usable, axis=1)
        mean = jnp.sum(position, axis=1) / jnp.maximum(count, 1)[:, None]
        centred = jnp.where(usable[..., None], position - mean[:, None], 0.0)
        variance = jnp.sum(centred**2, axis=1) / (count[:, None] - 1)
        if self.inverse_mass is not None:
            variance = jnp.broadcast_to(
                inverse_mass_for(variance.shape[1], self.inverse_mass), variance.shape
            )
        width = jnp.sqrt(variance)[:, None]
        largest = jax.vmap(_largest_eigenvalue)
        step_size = jnp.minimum(0.5 / jnp.sqrt(largest(gradient * width, count)), 1.0)
        step_size, variance = jnp.roll(step_size, 1), jnp.roll(variance, 1, axis=0)
        slowest = 1 / jnp.sqrt(largest(centred / width, count))
        damping = jnp.maximum(slowest, 1 / ((number + 1) * step_size))
        found = Learnt(step_size, damping, variance)
        is_sound = [jnp.all(jnp.isfinite(x) & (x > 0), axis=tuple(range(1, x.ndim))) for x in found]
        return found, jnp.all(jnp.stack(is_sound), axis=0)

    def _with_given(self, learnt: Learnt) -> Learnt:
        step_size, damping, inverse_mass = learnt
        if self.step_size is not None:
            step_size = jnp.asarray(self.step_size, float)
        if self.damping is not None:
            damping = jnp.asarray(self.damping, float)
        if self.inverse_mass is not None:
            inverse_mass = inverse_mass_for(len(inverse_mass), self.inverse_mass)
        return Learnt(step_size, damping, inverse_mass)


def _largest_eigenvalue(rows: jax.Array, count: jax.Array) -> jax.Array:
    """About that of the second moments of ``count`` rows ``[chain, n]``; all others are zero."""
    from blackjax.adaptation.meads_adaptation import maximum_eigenvalue

    return maximum_eigenvalue(rows) * (len(rows) - 1) / (count - 1)


def _by_chain(x: jax.Array, order: jax.Array) -> jax.Array:
    """What chains have, from what folds have."""
    each = jnp.repeat(x, order.shape[1], axis=0)
    return jnp.zeros_like(each).at[order.reshape(-1)].set(each)


def _like(flags: jax.Array, x: jax.Array) -> jax.Array:
    return flags.reshape(-1, *[1] * (x.ndim - 1))
