"""An ascent along estimated gradients: how it begins, and how it goes on, as a whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ppl
from ...ppl import UnsupportedError
from .expectation_grad import expectation_value_and_grad
from .fitted import Fit

if TYPE_CHECKING:
    import optax


class Place(NamedTuple):
    """Where an ascent is; see :class:`Fit` for what is in it."""

    params: Any
    average: Any
    steps: jax.Array
    fault: dict
    state: Any


@dataclass(frozen=True)
class Ascent:
    """An ascent. The key of a step is made of its number, so that what is run in parts is what is run as a whole.

    Attributes:
      objective, optimizer, num_steps: see :func:`~borelax.inference.fit`.
      report: called with the number of steps that were taken, after each; None if nobody wants to know.
    """

    objective: Callable
    optimizer: optax.GradientTransformation
    num_steps: int
    report: Callable | None = None

    def parts(self, every: int) -> list[np.ndarray]:
        """The numbers of the steps of each part, ``[every]``; those beyond the last step fill up the last part."""
        numbers = np.arange(-(-self.num_steps // every) * every, dtype=np.int32)
        return list(numbers.reshape(-1, every))

    def begin(self, params, state) -> Place:
        """The place before the first step; the optimizer knows nothing yet if ``state`` is None.

        Raises:
          TypeError: the state is of another optimizer, or of other params.
        """
        nowhere = jax.tree.map(lambda x: jnp.array(False), params)
        fault = {"objective": jnp.array(False), "gradient": nowhere, "params": nowhere}
        begun = self.optimizer.init(params)
        if state is not None and _shapes(state) != _shapes(begun):
            raise TypeError(
                "state is not what this optimizer remembers of such params: give it that of a fit by the same "
                "optimizer, found.state"
            )
        return Place(params, params, jnp.int32(0), fault, begun if state is None else state)

    def go_on(self, key, place: Place, numbers, args) -> tuple[Place, jax.Array]:
        """The place after the steps of these numbers, and the estimate of the objective before each of them."""
        stay = lambda place, number: (place, jnp.array(jnp.nan))  # noqa: E731

        def climb(place: Place, number):
            is_step = number < self.num_steps
            stopped = jnp.any(jnp.stack(jax.tree.leaves(place.fault)))
            place, value = lax.cond(is_step & ~stopped, self._step(key, args), stay, place, number)
            if self.report is not None:
                lax.cond(is_step, lambda: self.report(number + 1), lambda: None)
            return place, value

        return lax.scan(climb, place, jnp.asarray(numbers))

    def found(self, place: Place, values) -> Fit:
        return Fit(place.params, place.average, values[: self.num_steps], *place[2:])

    def _step(self, key, args) -> Callable:
        """``(place, number) -> (place, value)``; where something is not finite, the place before, but for that."""
        from optax import apply_updates, with_extra_args_support

        estimate = ppl.seed(expectation_value_and_grad(self.objective))
        update = with_extra_args_support(self.optimizer).update

        def step(place: Place, number):
            value, grads = estimate(jax.random.fold_in(key, number), place.params, *args)
            downhill = jax.tree.map(jnp.negative, grads)
            try:
                updates, state = update(downhill, place.state, place.params, value=-value)
            except TypeError as error:
                if "value_fn" not in str(error):
                    raise
                raise UnsupportedError(
                    "this optimizer searches along a line, for which it evaluates the objective; of one that is "
                    "estimated, no two values can be compared. Take one that follows gradients, such as optax.adam"
                ) from error
            params = apply_updates(place.params, updates)
            fault = {"objective": value, "gradient": grads, "params": params}
            fault = jax.tree.map(lambda x: ~jnp.all(jnp.isfinite(x)), fault)
            # Of the second half of the steps, the mean so far.
            share = 1 / jnp.maximum(number - self.num_steps // 2 + 1, 1)
            mean = lambda old, new: ((1 - share) * old + share * new).astype(old.dtype)  # noqa: E731
            average = jax.tree.map(mean, place.average, params)
            after = Place(params, average, place.steps + 1, fault, state)
            is_fine = ~jnp.any(jnp.stack(jax.tree.leaves(fault)))
            kept = jax.tree.map(lambda new, old: jnp.where(is_fine, new, old), after, place)
            return kept._replace(fault=fault), value

        return step


def _shapes(state: Any) -> tuple:
    """How a state is arranged, and the shapes and dtypes of its arrays."""
    leaves, structure = jax.tree.flatten(state)
    return structure, [(jnp.shape(x), getattr(x, "dtype", type(x))) for x in leaves]
