"""How many states a scan can carry, found before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...ppl import compat
from ...ppl.dataflow import Dataflow, Position
from ...ppl.effects import Site, sample_p
from ...ppl.members import Members, Pool, flow_scan, kind_of
from ...semantics.branch import has_finite_support, outcomes

MOST_VALUES = 4096  # of one variable
_MOST_ELEMENTS = 2**18  # of all values of one variable
_MOST_STEPS = 256  # of a scan that are followed until its states come round
_FEW_STEPS = 8  # after which a counter is no longer counted


def count_states(eqn: compat.JaxprEqn, inputs: Sequence, size: int) -> int | None:
    """The most states that ``size`` members can be in before a step of a scan, or after; None if that is not found.

    A state is what of the carry differs between members. The values that each variable can have are followed through
    the scan: a draw has those of its support, and an equation gives one for each combination of the values of its
    operands. Arguments of a compiled function are not known, and what is computed of them is not either. So the number
    is not too small; it is too large where the variables of a state do not take all combinations of their values.

    Args:
      inputs: of the scan: arrays, or what has a row per member.
    """
    num_consts, num_carry = compat.scan_counts(eqn)
    kinds, *_ = flow_scan(eqn, list(map(kind_of, inputs)))
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    closed = jax.make_jaxpr(lambda *values: compat.bind(eqn, values))(*avals)
    reachable = _Reachable(len(closed.jaxpr.eqns) - 1)
    known = list(map(_known, inputs))
    reachable.walk(closed, known, Position(NOTHING))
    start, *counts = (
        [x.count for x, kind in zip(carry, kinds) if kind]
        for carry in (known[num_consts:][:num_carry], *reachable.carries)
    )
    if any(None in count for count in counts):
        return None
    return max(size if None in start else min(size, math.prod(start)), *map(math.prod, counts))


def fixed(function, avals: Sequence[jax.ShapeDtypeStruct]) -> np.ndarray | None:
    """The array that a function returns whatever its arguments are; None if it depends on them, as far as can be seen.

    >>> fixed(lambda x: jnp.arange(3) + 1, [jax.ShapeDtypeStruct((), float)]), fixed(lambda x: 2 * x, [jnp.zeros(())])
    (array([1, 2, 3], dtype=int32), None)
    """
    closed = jax.make_jaxpr(function)(*avals)
    (found,) = _Reachable(-1).walk(closed, [ANYTHING for _ in avals], Position(NOTHING))
    return found.rows[0] if found.count == 1 else None


class Values:
    """The values that a variable can have: ``rows`` has one for each, all different; None if any value can be."""

    def __init__(self, rows: np.ndarray | None):
        self.rows = rows
        self._key = None if rows is None else (rows.dtype, rows.shape[1:], frozenset(map(_bytes, rows)))

    @classmethod
    def of(cls, rows) -> Values:
        rows = np.asarray(rows)
        different = {_bytes(row): i for i, row in enumerate(rows)}
        return cls(rows[list(different.values())]) if len(different) <= MOST_VALUES else ANYTHING

    @property
    def count(self) -> int | None:
        return None if self.rows is None else len(self.rows)

    def __eq__(self, other) -> bool:
        return isinstance(other, Values) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _bytes(row: np.ndarray) -> bytes:
    return row.tobytes()


ANYTHING = Values(None)
NOTHING = Values(np.zeros((0,)))


class _Reachable(Dataflow[Values]):
    """Follows the values of variables.

    Attributes:
      number: of the equation whose carry is wanted, in the outermost jaxpr.
      carries: what that carry can be after each of its steps.
    """

    nothing = NOTHING

    def __init__(self, number: int):
        self.number = number
        self.carries: list[list[Values]] = []

    def constant(self, value) -> Values:
        return _known(value)

    def site(self, eqn: compat.JaxprEqn, operands: list[Values], here: Position) -> list[Values]:
        if not eqn.outvars:
            return []
        site: Site = eqn.params["site"]
        drawn = eqn.primitive is sample_p
        if drawn and not has_finite_support(site.effect(eqn.invars).distribution):
            return [ANYTHING for _ in eqn.outvars]

        def values(*leaves):
            if drawn:
                return outcomes(site, leaves)[0]
            return [x[None] for x in jax.tree.leaves(site.map(lambda effect: effect.value, leaves))]

        closed = jax.make_jaxpr(values)(
            *(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars)
        )
        stacks = self.walk(closed, operands, here)
        return [x if x.rows is None else Values.of(np.concatenate(x.rows)) for x in stacks]

    def plain(self, eqn: compat.JaxprEqn, operands: list[Values], here: Position) -> list[Values]:
        combinations = math.prod(1 if x.rows is None else len(x.rows) for x in operands)
        largest = max((math.prod(v.aval.shape) for v in eqn.outvars), default=0)
        keys = any(jnp.issubdtype(v.aval.dtype, jax.dtypes.extended) for v in eqn.outvars)
        if keys or any(x.rows is None for x in operands) or combinations * largest > _MOST_ELEMENTS:
            return [_anything_like(eqn, v.aval, operands) for v in eqn.outvars]
        if any(len(x.rows) == 0 for x in operands):
            return [NOTHING for _ in eqn.outvars]
        rows = [np.asarray(x.rows, v.aval.dtype) for x, v in zip(operands, eqn.invars)]
        with jax.ensure_compile_time_eval():
            outs = _at_each(eqn, rows)
        return [Values.of(out) for out in outs]

    def join(self, *properties: Values) -> Values:
        return reduce(_union, properties, NOTHING)

    def chosen(self, predicate: Values, value: Values, eqn, here: Position) -> Values:
        return value

    def slice(self, value: Values, here: Position) -> Values:
        if value.rows is None or value is NOTHING:
            return value
        return Values.of(np.concatenate(value.rows)) if value.rows.size <= _MOST_ELEMENTS else ANYTHING

    def after(self, value: Values, here: Position) -> Values:
        return value

    def advance(self, before: list[Values], after: list[Values], here: Position, steps: int) -> list[Values]:
        if steps >= _MOST_STEPS:
            after = [ANYTHING for _ in after]
        if steps >= _FEW_STEPS:
            after = [y if y == x or y.count != 1 else ANYTHING for x, y in zip(before, after)]
        if here.place == (self.number,):
            self.carries.append(after)
        return after


def _known(value) -> Values:
    """The values of something that is there already, as far as they are known now."""
    rows = value.value if isinstance(value, Members) else value
    if isinstance(rows, jax.core.Tracer | Pool) or jnp.issubdtype(jnp.result_type(rows), jax.dtypes.extended):
        return ANYTHING
    rows = np.asarray(rows)
    if rows.size > _MOST_ELEMENTS:
        return ANYTHING
    return Values.of(rows if isinstance(value, Members) else rows[None])


def _union(one: Values, other: Values) -> Values:
    if one is NOTHING or other is NOTHING:
        return other if one is NOTHING else one
    if one.rows is None or other.rows is None:
        return ANYTHING
    return Values.of(np.concatenate([one.rows, other.rows]))


def _at_each(eqn: compat.JaxprEqn, operands: list[np.ndarray]) -> list:
    """An equation at every combination of the values of its operands, along a leading axis."""
    varying = [len(rows) > 1 for rows in operands]
    if not any(varying):
        return [out[None] for out in compat.bind(eqn, [jnp.asarray(x[0]) for x in operands])]
    grid = np.indices([len(rows) for rows in operands]).reshape(len(operands), -1)
    values = [jnp.asarray(x[i] if v else x[0]) for x, i, v in zip(operands, grid, varying)]
    in_axes = tuple(0 if v else None for v in varying)
    return jax.vmap(lambda *xs: compat.bind(eqn, xs), in_axes=in_axes)(*values)


def _anything_like(eqn: compat.JaxprEqn, aval, operands: list[Values]) -> Values:
    """What an equation can give when its operands are not all known."""
    if aval.dtype == bool and aval.shape == ():
        return Values(np.array([False, True]))
    table = operands[0].rows
    if eqn.primitive is lax.dynamic_slice_p and math.prod(aval.shape) == 1 and table is not None:
        return Values.of(table.reshape(-1, *aval.shape))
    return ANYTHING
