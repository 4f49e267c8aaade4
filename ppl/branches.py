"""Sites in branches under ``vmap``.

``vmap`` of a ``cond`` whose predicate differs between members runs every branch and selects among the results;
a ``while_loop`` keeps running members that have stopped. Values can be thrown away afterwards, but a factor
that was multiplied in, or a draw that was counted, cannot. So before JAX's batching erases the control flow, the sites
inside are rewritten to say under which condition they are reached (their effect's ``present``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import batching

from . import compat
from .effects import Guard, Site, emit, remake
from .errors import UnsupportedError
from .interpreter import Handler, walk
from .staging import identity, jaxpr_has_effects, survey

_batch_cond = batching.fancy_primitive_batchers[lax.cond_p]
_batch_while = batching.fancy_primitive_batchers[lax.while_p]


class Guarded(Handler):
    """The handler that re-emits every site, reached only if ``condition`` holds."""

    def __init__(self, condition, token: object, branch: int, common=None):
        self.condition = condition
        self.token = token
        self.branch = branch
        self.common = common

    def site(self, kind, site: Site, operands, given, state):
        if site.effect(operands).present is None:
            site, operands = remake(
                site, operands, lambda e, here: replace(e, present=here), self.condition, mapped=False
            )
        else:  # ``present`` is the last field of an effect
            operands = [*operands[:-1], jnp.logical_and(operands[-1], self.condition)]
        optional = self.common is not None and (site.name, kind == "factor") not in self.common
        site = replace(site, guards=(*site.guards, Guard(self.token, self.branch, optional)))
        return emit(kind, site, operands), state, None


def select_branches(branches) -> Callable:
    """``(index, *operands) -> outputs``: a switch without control flow, that runs every branch and selects.

    The sites of a branch are reached only where the index is that branch.
    """
    token = object()
    common = set.intersection(*(set(map(identity, survey(branch.jaxpr))) for branch in branches))

    def selected(index, *operands):
        index = index.astype(jnp.int32)
        results = []
        for i, branch in enumerate(branches):
            taken = index == i
            inputs = [_stop_gradient_unless(taken, x) for x in operands]
            guarded = Guarded(taken, token, i, common)
            results.append(walk(branch.jaxpr, branch.consts, inputs, guarded, None, {}, ())[0])
        return [_pick(index, outs) for outs in zip(*results)]

    return selected


def _cond(axis_data, values, dims, *, branches, **params):
    if dims[0] is None or not any(jaxpr_has_effects(branch.jaxpr) for branch in branches):
        return _batch_cond(axis_data, values, dims, branches=branches, **params)
    outs = jax.vmap(select_branches(branches), in_axes=tuple(dims), axis_size=axis_data.size)(*values)
    return outs, [0] * len(outs)


def _while(axis_data, values, dims, *, cond_jaxpr, body_jaxpr, cond_nconsts, body_nconsts, **params):
    batch = partial(_batch_while, axis_data, cond_jaxpr=cond_jaxpr, cond_nconsts=cond_nconsts, **params)
    if jaxpr_has_effects(cond_jaxpr.jaxpr):
        raise UnsupportedError(
            "a while_loop under vmap has sites in its condition; move them to the end of the loop's body"
        )
    already_guarded = cond_jaxpr.out_avals[0].ndim > 0  # by the vmap that gave the condition its axis
    if already_guarded or not jaxpr_has_effects(body_jaxpr.jaxpr):
        return batch(values, dims, body_jaxpr=body_jaxpr, body_nconsts=body_nconsts)

    def body(*values):
        cond_consts, rest = values[:cond_nconsts], values[cond_nconsts:]
        (going_on,) = compat.evaluate(cond_jaxpr, [*cond_consts, *rest[body_nconsts:]])
        guarded = Guarded(going_on, object(), 0)
        return walk(body_jaxpr.jaxpr, body_jaxpr.consts, rest, guarded, None, {}, ())[0]

    avals = [*cond_jaxpr.in_avals[:cond_nconsts], *body_jaxpr.in_avals]
    guarded_body = jax.make_jaxpr(body)(*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))
    return batch(
        [*values[:cond_nconsts], *values],
        [*dims[:cond_nconsts], *dims],
        body_jaxpr=guarded_body,
        body_nconsts=cond_nconsts + body_nconsts,
    )


def _stop_gradient_unless(taken, x):
    """What JAX does for a batched cond: no gradient flows into branches that were not taken."""
    return jnp.where(taken, x, lax.stop_gradient(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _pick(index, outs):
    if len(outs) <= 2:
        return outs[0] if len(outs) == 1 else lax.select_n(index != 0, *outs)
    return lax.select_n(index, *outs)


batching.fancy_primitive_batchers[lax.cond_p] = _cond
batching.fancy_primitive_batchers[lax.while_p] = _while
