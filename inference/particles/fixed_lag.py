"""Fixed-lag smoothing: what slots held, by the weights of those who descend from them a while later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ...ppl import ChoiceError, Masked, UnsupportedError
from ...ppl.population import Population, log_growth_of

if TYPE_CHECKING:
    from .genealogy import Genealogy


def fixed_lag(genealogy: Genealogy, values: Any, lag: int) -> Population:
    """See :meth:`Genealogy.fixed_lag`."""
    if not isinstance(lag, int) or lag < 0:
        raise ValueError(f"lag is a number of suspensions, 0 or more, and not an array; got {lag!r}")
    _check(genealogy, values)
    steps, n = genealogy.ancestors.shape
    ancestors, time = jnp.asarray(genealogy.ancestors), jnp.asarray(genealogy.time)
    # The last suspension leads out of the times that there are.
    slots = _ago(ancestors.at[-1].set(jnp.arange(n, dtype=ancestors.dtype)), min(lag, steps))[time]
    later = jnp.minimum(time + lag, steps - 1)
    resampled = jnp.asarray(genealogy.resampled, jnp.int32)
    return Population(
        jax.tree.map(lambda x: jax.vmap(lambda x, slots: x[slots])(jnp.asarray(x), slots), values),
        jnp.asarray(genealogy.log_weight)[later],
        origin=_origin(ancestors)[later],
        generations=_before(resampled)[later],
        died=jnp.full(steps, -1, jnp.int32),
        initial_size=n,
        log_growth=_before(_log_growth(genealogy, ancestors))[later],
    )


def _check(genealogy: Genealogy, values: Any) -> None:
    """That there is one value for each slot at each time."""
    if genealogy.midway:
        raise UnsupportedError(
            "a loop of this program suspends before its step is over: what it draws after that is of the next time, "
            "and which values these are is not known. Let a step draw all it draws, and then observe: the first state "
            "before the loop, for one that observes first; what is predicted before the observation"
        )
    shape = genealogy.ancestors.shape
    for leaf in jax.tree.leaves(values, is_leaf=lambda x: isinstance(x, Masked)):
        if isinstance(leaf, Masked):
            raise ChoiceError(
                "some slots have no value, as that of a run that is retained, which does not draw: fill these in, with "
                "jnp.where(x.present, x.value, others)"
            )
        if jnp.shape(leaf)[:2] == shape:
            continue
        if jnp.shape(leaf)[1:2] == shape[1:]:
            raise ChoiceError(
                f"there are {len(leaf)} steps of values, and {shape[0]} suspensions: each suspension needs a row of "
                "values, also one before the loop, after a factor, or after it, where the program goes on sampling"
            )
        raise ChoiceError(
            f"values have the shape [{shape[0]}, {shape[1]}, ...], for so many suspensions of so many members; "
            f"got {list(jnp.shape(leaf))}"
        )


def _ago(ancestors, lag: int):
    """The slot ``[T, n]`` at each time of which each slot is a copy ``lag`` times later, or at the end."""
    if lag == 0:
        return jnp.broadcast_to(jnp.arange(ancestors.shape[1], dtype=ancestors.dtype), ancestors.shape)
    half = _ago(ancestors, lag // 2)
    even = _then(half, half, lag // 2)
    return _then(ancestors, even, 1) if lag % 2 else even


def _then(earlier, later, lag: int):
    """The slots of which the slots of ``later`` are copies, where ``earlier`` goes back by ``lag`` times."""
    own = _ago(earlier[:lag], 0)
    return jnp.take_along_axis(earlier, jnp.concatenate([later[lag:], own]), axis=1)


def _origin(ancestors):
    """The initial member ``[T, n]`` that each slot descends from at each time."""
    own = jnp.arange(ancestors.shape[1], dtype=jnp.int32)
    return lax.scan(lambda origin, ancestors: (origin[ancestors], origin), own, ancestors)[1]


def _log_growth(genealogy: Genealogy, ancestors):
    """What each suspension did to lines of descent ``[T]``; see ``Population``."""
    n = ancestors.shape[1]
    share = jax.vmap(lambda ancestors: jnp.zeros(n).at[ancestors].add(1 / n))(ancestors)
    grown = log_growth_of(1 / jnp.asarray(genealogy.ess), jnp.sum(share**2, axis=1), n)
    return jnp.where(genealogy.resampled, grown, 0.0)


def _before(x):
    """The sum of all earlier entries, for each."""
    return jnp.cumsum(x) - x
