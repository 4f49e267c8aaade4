"""Values of many runs at once: shared by all members, one per member, or a pool of records.

A population walk carries each value of the program in one of three kinds. A *shared* value is a plain array: it
does not depend on any draw, and is never copied. :class:`Members` has one row per member. A :class:`Pool`
is an append-only history (see ``history.py``): the records are stored once, and each member has a table of
whose record it inherited at each step. Members are only ever reindexed by an integer vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import compat
from .effects import deterministic_p, effect_primitives, observe_p, sample_p
from .history import append_p, recall_p
from .loop import anyone_p, if_anyone
from .staging import called_jaxpr, has_effects

HISTORY = frozenset({append_p, recall_p})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Members:
    """One row per member: ``value`` has a leading member axis."""

    value: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pool:
    """A history of every member.

    Attributes:
      records: ``[S, rows, ...]``, the record appended at each step by each member of that time.
      lineage: int32 ``[n, S]``, the row at which a member finds its record of each step.
    """

    records: jax.Array
    lineage: jax.Array


class Kind(IntEnum):
    SHARED = 0
    POOL = 1
    MEMBERS = 2


def kind_of(x) -> Kind:
    return Kind.MEMBERS if isinstance(x, Members) else Kind.POOL if isinstance(x, Pool) else Kind.SHARED


def as_kind(x, kind: Kind, size: int):
    """``x`` in a more general kind."""
    if kind_of(x) == kind:
        return x
    if kind == Kind.MEMBERS:
        return Members(rows(x, size))
    if kind == Kind.POOL and not isinstance(x, Members):
        return _new_pool(x, size)
    raise AssertionError(f"no way from {kind_of(x).name} to {kind.name}")


def rows(x, size: int):
    """A value with its member axis in front, whatever its kind."""
    if isinstance(x, Members):
        return x.value
    if isinstance(x, Pool):
        return _recall(x, ())
    return jnp.broadcast_to(x, (size, *jnp.shape(x)))


def unpooled(x):
    return Members(_recall(x, ())) if isinstance(x, Pool) else x


def reindex(values: Sequence, index, moved=None) -> list:
    """Members ``index[i]`` in place of member ``i``, for every value; skipped where ``moved`` is false."""

    def take(values):
        return [_take(x, index) for x in values]

    if moved is None:
        return take(values)
    return if_anyone(moved, take, list, list(values))


def _take(x, index):
    if isinstance(x, Members):
        return Members(_rows_at(x.value, index))
    if isinstance(x, Pool):
        return Pool(x.records, _rows_at(x.lineage, index))
    return x


def _rows_at(array, index):
    return jnp.take(array, index, axis=0, mode="clip")


# ------------------------------------------------------------------------- evaluation


def map_members(fun: Callable, values: Sequence, size: int):
    """``fun`` of the values, once per member: a pytree with leading member axes."""
    values = [unpooled(x) for x in values]
    in_axes = tuple(0 if isinstance(x, Members) else None for x in values)
    plain = [x.value if isinstance(x, Members) else x for x in values]
    return jax.vmap(fun, in_axes=in_axes, axis_size=size)(*plain)


def evaluate(eqn: compat.JaxprEqn, values: Sequence, size: int) -> list:
    """An equation without effects, once for all if its inputs are shared and else once per member."""
    if all(kind_of(x) == Kind.SHARED for x in values):
        return compat.bind(eqn, values)
    if eqn.primitive is anyone_p:
        return [jnp.any(rows(values[0], size))]
    if eqn.primitive is append_p and not any(isinstance(x, Members) for x in values[:2]):
        return [_append(*values, size)]
    if eqn.primitive is recall_p and isinstance(values[0], Pool):
        return [Members(_recall(values[0], values[1:]))]
    return [Members(out) for out in map_members(lambda *xs: compat.bind(eqn, xs), values, size)]


def _new_pool(buffer, size: int) -> Pool:
    records = jnp.broadcast_to(buffer[:, None], (buffer.shape[0], size, *buffer.shape[1:]))
    own = jnp.arange(size, dtype=jnp.int32)
    return Pool(records, jnp.broadcast_to(own[:, None], (size, buffer.shape[0])))


def _append(pool, step, record, size: int) -> Pool:
    pool = as_kind(pool, Kind.POOL, size)
    if pool.records.shape[1] != size:  # the population has grown: every member gets a row of its own
        records = jnp.moveaxis(_recall(pool, ()), 0, 1)
        pool = Pool(records, _new_pool(records[:, 0], size).lineage)
    step = jnp.clip(step, 0, pool.records.shape[0] - 1)
    records = lax.dynamic_update_index_in_dim(pool.records, rows(record, size), step, 0)
    own = jnp.arange(size, dtype=jnp.int32)
    return Pool(records, lax.dynamic_update_index_in_dim(pool.lineage, own, step, 1))


def _recall(pool: Pool, index) -> jax.Array:
    """``[n, S, ...]``: each member's records, gathered through its lineage."""
    steps = jnp.arange(pool.records.shape[0], dtype=jnp.int32)[None]
    where = (steps, pool.lineage, *(i.value[:, None] if isinstance(i, Members) else i for i in index))
    return pool.records.at[where].get(mode="promise_in_bounds")


# ------------------------------------------------------------------------- kinds, before evaluation


def concerns_population(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation contains sites or history operations, so that the walk must look inside."""
    if eqn.primitive in HISTORY or eqn.primitive in effect_primitives:
        return True
    return any(concerns_population(e) for jaxpr in compat.inner_jaxprs(eqn) for e in jaxpr.eqns)


def flow(jaxpr: compat.Jaxpr, kinds: Sequence[Kind], drawn: Kind = Kind.MEMBERS) -> list[Kind]:
    """The kinds of a jaxpr's outputs, given those of its inputs; its constants are shared.

    May be more general than what evaluation gives, never less. ``drawn`` is the kind of the values of ``sample`` sites.
    """
    env: dict[Any, Kind] = dict.fromkeys(jaxpr.constvars, Kind.SHARED)
    env.update(zip(jaxpr.invars, kinds))
    read = lambda v: Kind.SHARED if isinstance(v, compat.Literal) else env[v]  # noqa: E731
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _flow_equation(eqn, [read(v) for v in eqn.invars], drawn)))
    return [read(v) for v in jaxpr.outvars]


def _flow_equation(eqn: compat.JaxprEqn, ins: list[Kind], drawn: Kind) -> list[Kind]:
    name = eqn.primitive.name
    if eqn.primitive is sample_p:
        return [drawn]
    if eqn.primitive in effect_primitives:
        kept = eqn.primitive in (observe_p, deterministic_p) and not any(ins)
        return [Kind.SHARED if kept else Kind.MEMBERS for _ in eqn.outvars]
    if eqn.primitive is anyone_p:
        return [Kind.SHARED]
    if eqn.primitive is append_p and Kind.MEMBERS not in ins[:2]:
        return [Kind.POOL if any(ins) else Kind.SHARED]
    if concerns_population(eqn) and called_jaxpr(eqn) is not None:
        return flow(called_jaxpr(eqn).jaxpr, ins, drawn)
    if concerns_population(eqn) and name == "scan":
        _, after, ys = flow_scan(eqn, ins, drawn)
        return [*after, *(Kind.MEMBERS if y else y for y in ys)]
    if concerns_population(eqn) and name == "cond" and ins[0] == Kind.SHARED:
        outs = [flow(branch.jaxpr, ins[1:], drawn) for branch in eqn.params["branches"]]
        return list(map(max, zip(*outs)))
    mixed = any(ins) or has_effects(eqn)
    return [Kind.MEMBERS if mixed else Kind.SHARED for _ in eqn.outvars]


def flow_scan(
    eqn: compat.JaxprEqn, ins: Sequence[Kind], drawn: Kind = Kind.MEMBERS
) -> tuple[list[Kind], list[Kind], list[Kind]]:
    """The kinds of a scan's carry (the least that every iteration keeps), of what is left of it, and of its outputs.

    What each step makes anew of shared values is shared in the end, whatever the first step was given.
    """
    num_consts, num_carry = compat.scan_counts(eqn)
    consts, carry, xs = ins[:num_consts], ins[num_consts:][:num_carry], ins[num_consts + num_carry :]
    xs = [Kind.MEMBERS if kind else kind for kind in xs]
    body = partial(flow, eqn.params["jaxpr"].jaxpr, drawn=drawn)
    while True:
        outs = body([*consts, *carry, *xs])
        widened = list(map(max, zip(carry, outs[:num_carry])))
        if widened == list(carry):
            stays = eqn.params["length"] == 0
            after = [kind if stays or out else Kind.SHARED for kind, out in zip(widened, outs)]
            return widened, after, outs[num_carry:]
        carry = widened
