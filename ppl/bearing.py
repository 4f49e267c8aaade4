"""Bearing: which values of a program its later weights depend on, read off its jaxpr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import compat
from .effects import deterministic_p, effect_primitives
from .staging import called_jaxpr, has_effects


@dataclass(frozen=True)
class Later:
    """What is weighed after an equation.

    Attributes:
      outs: which of its outputs weights depend on, or the distributions of sites.
      beside: a value that lives on around it, differs between members, and bears on weights too; None if none does.
    """

    outs: tuple[bool, ...]
    beside: str | None = None


def bearing(jaxpr: compat.Jaxpr, outvars: Sequence, outs: Sequence[bool]) -> dict[Any, int]:
    """The last equation at which each variable bears on a weight, or on the distribution of a site.

    A variable does if there is a path of equations from it to an operand of a site, or to a predicate on which it
    depends whether a site is reached. A path ends at a ``sample`` site. Variables that do not are left out.

    Args:
      outvars, outs: the values that are wanted of the jaxpr, and which of them bear on what comes after it.
    """
    wanted = [v for v, bears in zip(outvars, outs, strict=True) if bears and _is_variable(v)]
    last = dict.fromkeys(wanted, len(jaxpr.eqns))
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        inputs = _inputs(eqn, [v in last for v in eqn.outvars])
        for v, bears in zip(eqn.invars, inputs, strict=True):
            if bears and _is_variable(v):
                last.setdefault(v, i)
    return last


def scan_bearing(eqn: compat.JaxprEqn, outs: Sequence[bool]) -> list[bool]:
    """Which inputs of a scan bear on weights inside it, in any of its steps, or on what comes after it."""
    body = eqn.params["jaxpr"].jaxpr
    num_consts, num_carry = compat.scan_counts(eqn)
    carry, ys = list(outs[:num_carry]), outs[num_carry:]
    while True:
        inputs = _ends(body, [*carry, *ys])
        widened = [one or other for one, other in zip(carry, inputs[num_consts:][:num_carry])]
        if widened == carry:
            return [*inputs[:num_consts], *carry, *inputs[num_consts + num_carry :]]
        carry = widened


def _inputs(eqn: compat.JaxprEqn, outs: Sequence[bool]) -> list[bool]:
    """Which inputs of an equation bear on weights inside it, or by its outputs."""
    if eqn.primitive in effect_primitives:
        return [any(outs) if _weighs_nothing(eqn) else True for _ in eqn.invars]
    if not has_effects(eqn):
        return [any(outs) for _ in eqn.invars]
    if (called := called_jaxpr(eqn)) is not None:
        return _ends(called.jaxpr, outs)
    if eqn.primitive.name == "scan":
        return scan_bearing(eqn, outs)
    if eqn.primitive.name == "cond":
        return [True, *map(any, zip(*(_ends(branch.jaxpr, outs) for branch in eqn.params["branches"])))]
    return [True for _ in eqn.invars]


def _ends(jaxpr: compat.Jaxpr, outs: Sequence[bool]) -> list[bool]:
    last = bearing(jaxpr, jaxpr.outvars, outs)
    return [v in last for v in jaxpr.invars]


def _weighs_nothing(eqn: compat.JaxprEqn) -> bool:
    """Whether a site is one that only records, or only advises those who resample."""
    return eqn.primitive is deterministic_p or eqn.params["site"].effect(eqn.invars).log_potential is not None


def _is_variable(v) -> bool:
    return v is not None and not isinstance(v, compat.Literal)
