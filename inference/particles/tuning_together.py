"""What kernels learn from a whole population that they move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ..kernels.kernel import Kernel, Stage
from ..kernels.tuning import Tuning

# How many members the inverse mass matrix from before counts as.
_BEFORE = 5


def tuned_together(kernel: Kernel, memory: Any) -> Any:
    """The memory for the next step of all members, from the memories that their last steps have left.

    A :class:`Tuning` is shared by all from now on. If its mass matrix is learnt, its inverse becomes the covariance of
    the members' positions, of which there are many at once; if its step size is, that is moved by one step of dual
    averaging from where it is, towards the kernel's target, by the members' mean acceptance rate. What is given stays.
    Other memories stay with their members; those of kernels that adapt together do so.

    Args:
      memory: with a leading axis of members.

    Returns:
      The memory, each Tuning of it without that axis: :func:`axes` says where it is.

    Source: Buchholz, Chopin and Jacob, *Adaptive tuning of Hamiltonian Monte Carlo within sequential Monte Carlo*,
    Bayesian Analysis 16 (2021), for the mass matrix.
    """
    in_no_window = Stage(*[jnp.array(False)] * 3)
    if kernel.adapt_together is not None:
        memory = kernel.adapt_together(memory, in_no_window)
    shared = jax.tree.map(lambda own: _shared(own) if _is_tuning(own) else own, memory, is_leaf=_is_tuning)
    if kernel.adapt is None:
        return shared
    adapt = lambda memory: kernel.adapt(memory, in_no_window)  # noqa: E731
    where, n = axes(memory), jax.tree.leaves(memory)[0].shape[0]
    return jax.vmap(adapt, (where,), where, axis_size=n)(shared)


def caught_up(memory: Any, newest: Any) -> Any:
    """The memories of all states of some chains, with what the ``newest``, those of the ends, have learnt.

    Where a state is, and how it came there, stays its own.
    """

    def catch_up(own, new):
        if not _is_tuning(own):
            return own
        learnt = jax.tree.map(lambda x: jnp.broadcast_to(x[0], (len(own.position), *x.shape[1:])), new)
        return replace(learnt, position=own.position, acceptance_rate=own.acceptance_rate, is_new=own.is_new)

    return jax.tree.map(catch_up, memory, newest, is_leaf=_is_tuning)


def axes(memory: Any) -> Any:
    """The ``in_axes`` of a memory in which each Tuning is shared."""
    return jax.tree.map(lambda own: None if _is_tuning(own) else 0, memory, is_leaf=_is_tuning)


def _shared(tuning: Tuning) -> Tuning:
    one = jax.tree.map(lambda x: x[0], tuning)
    moved = tuning.is_new & jnp.all(jnp.isfinite(tuning.position), axis=1)
    rate = jnp.sum(jnp.where(moved, tuning.acceptance_rate, 0.0)) / jnp.maximum(jnp.sum(moved), 1)
    one = replace(one, acceptance_rate=rate, is_new=jnp.any(moved))
    if tuning.moments != ():
        learnt = _inverse_mass(tuning.position, moved, one.inverse_mass)
        one = replace(one, inverse_mass=learnt, moments=one.moments._replace(inverse_mass_matrix=learnt))
    if tuning.averaging != ():
        begun = one.averaging._replace(
            step=jnp.ones_like(one.averaging.step),
            avg_error=jnp.zeros_like(one.averaging.avg_error),
            mu=jnp.log(one.step_size),
        )
        one = replace(one, averaging=begun)
    return one


def _inverse_mass(position: jax.Array, moved: jax.Array, before: jax.Array) -> jax.Array:
    """The covariance of the positions ``[n, d]`` of members that have moved, or its diagonal, like ``before``."""
    count = jnp.sum(moved)
    position = jnp.where(moved[:, None], position, 0.0)
    mean = jnp.sum(position, axis=0) / jnp.maximum(count, 1)
    centred = jnp.where(moved[:, None], position - mean, 0.0)
    products = centred.T @ centred if before.ndim == 2 else jnp.sum(centred**2, axis=0)
    return (products + _BEFORE * before) / (count + _BEFORE)


def _is_tuning(x) -> bool:
    return isinstance(x, Tuning)
