"""How the values of a program depend on one of its sites: not at all, by moving its elements, linearly, or otherwise.

A pass over the jaxpr. Of each equation it is known from its primitive alone; what is not listed depends in some other
way. So what is said to be affine is, for all values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import jax
import jax.numpy as jnp

from ...ppl import compat
from ...ppl.choices import Address
from ...ppl.dataflow import Dataflow, Position
from ...ppl.effects import Site
from ...ppl.staging import Staged
from ...semantics.static.smooth_rules import users_line


class Dependence(IntEnum):
    """How an array depends on a site's value, from the simplest on. Some of its elements may not depend on it at all.

    ``ROWS``: its last axis is that of the site, with all elements in their order. ``MOVED``: each element is one of the
    site's. ``SCALED``: is a multiple of one. ``SHIFTED``: and a constant may be added. ``LINEAR``: a sum of multiples
    of any, and a constant.
    """

    NONE = 0
    ROWS = 1
    MOVED = 2
    SCALED = 3
    SHIFTED = 4
    LINEAR = 5
    OTHER = 6


@dataclass(frozen=True)
class Use:
    """How a value depends on the site, and the equation that made it so: its primitive and the user's line."""

    how: Dependence = Dependence.NONE
    cause: str = ""


NOTHING = Use()
Visitor = Callable[[str, Site, list[Use], Position], None]


def affine_flow(staged: Staged, address: Address, visit: Visitor) -> list[Use]:
    """Follows the value of a ``sample`` site through a staged program, to what it returns.

    Args:
      visit: ``(kind, site, uses, position)``, called wherever a site is reached, with how its operands depend.
    """
    return _Flow(address, visit).walk(staged.jaxpr, [NOTHING for _ in staged.leaves], Position(NOTHING))


class _Flow(Dataflow[Use]):
    nothing = NOTHING

    def __init__(self, address: Address, visit: Visitor):
        self.address = address
        self.visit = visit

    def join(self, *uses: Use) -> Use:
        return max(uses, key=lambda use: use.how, default=NOTHING)

    def chosen(self, predicate: Use, value: Use, eqn: compat.JaxprEqn, here: Position) -> Use:
        return Use(Dependence.OTHER, _spelled(eqn)) if predicate.how else value

    def slice(self, value: Use, here: Position) -> Use:
        """Of rows, a step may see one, or an element of one: indexed by the step instead, it is clear which."""
        return Use(Dependence.MOVED, "a scan over it") if value.how == Dependence.ROWS else value

    def site(self, eqn: compat.JaxprEqn, operands: list[Use], here: Position) -> list[Use]:
        site, kind = eqn.params["site"].under(here.scope), eqn.primitive.name
        self.visit(kind, site, operands, here)
        if kind == "deterministic":
            return [operands[i] for i in jax.tree.leaves(site.effect(range(len(operands))).value)]
        is_it = kind == "sample" and site.name == self.address
        return [Use(Dependence.ROWS) if is_it else NOTHING for _ in eqn.outvars]

    def plain(self, eqn: compat.JaxprEqn, operands: list[Use], here: Position) -> list[Use]:
        how = _how(eqn, [use.how for use in operands])
        before = self.join(*operands)
        use = before if how == before.how else Use(how, _spelled(eqn))
        return [use for _ in eqn.outvars]

    def _equation(self, eqn: compat.JaxprEqn, operands: list[Use], here: Position) -> list[Use]:
        """A function with a derivative of its own may have another one than what it computes."""
        if eqn.primitive.name.startswith(("custom_jvp", "custom_vjp")):
            operands = [Use(Dependence.OTHER, _spelled(eqn)) if use.how else use for use in operands]
        return super()._equation(eqn, operands, here)


# ------------------------------------------------------------------------- what equations do

# Equations that move elements, and which of their operands those are of (None: all). The others say where to.
_MOVES = {
    "broadcast_in_dim": (0,),
    "concatenate": None,
    "copy": None,
    "copy_p": None,
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "gather": (0,),
    "pad": (0, 1),
    "reshape": (0,),
    "rev": None,
    "select_n": (1, 2),
    "slice": None,
    "split": None,
    "squeeze": None,
    "stack": None,
    "transpose": None,
}
_SUMS = ("reduce_sum", "cumsum")
_PRODUCTS = ("dot_general", "conv_general_dilated")


def _how(eqn: compat.JaxprEqn, operands: list[Dependence]) -> Dependence:
    """How the outputs of an equation depend on the site, given how its operands do."""
    name, most = eqn.primitive.name, max(operands, default=Dependence.NONE)
    alone = sum(map(bool, operands)) == 1
    if not most:
        return Dependence.NONE
    if name in _MOVES:
        moved = _MOVES[name]
        if moved is not None and any(how for i, how in enumerate(operands) if i not in moved):
            return Dependence.OTHER
        return most if _keeps_rows(eqn) else max(most, Dependence.MOVED)
    if name == "convert_element_type":
        return most if _is_exact(eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype) else Dependence.OTHER
    if name == "neg" or (name == "mul" and alone) or (name == "div" and not operands[1]):
        return max(most, Dependence.SCALED)
    if name in ("add", "sub", "add_any"):
        return max(most, Dependence.SHIFTED if alone else Dependence.LINEAR)
    if name in _SUMS or (name in _PRODUCTS and alone):
        return max(most, Dependence.LINEAR)
    return Dependence.OTHER


def _keeps_rows(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation that moves elements moves the last axis as a whole."""
    old, new, params = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, eqn.params
    if not old or not new or old[-1] != new[-1]:
        return False
    match eqn.primitive.name:
        case "copy" | "copy_p" | "dynamic_slice" | "slice" | "squeeze":
            return True
        case "reshape":
            return params["dimensions"] is None
        case "broadcast_in_dim":
            return params["broadcast_dimensions"][-1] == len(new) - 1
        case "concatenate":
            return params["dimension"] != len(new) - 1
        case "transpose":
            return params["permutation"][-1] == len(new) - 1
        case "rev":
            return len(new) - 1 not in params["dimensions"]
        case "gather":
            numbers, last = params["dimension_numbers"], len(old) - 1
            whole = params["slice_sizes"][-1] == old[-1] and last not in numbers.start_index_map
            return whole and numbers.offset_dims[-1:] == (len(new) - 1,)
    return False


def _is_exact(old, new) -> bool:
    """Whether all numbers of one dtype are numbers of the other, and both are floats."""
    return all(jnp.issubdtype(x, jnp.floating) for x in (old, new)) and jnp.promote_types(old, new) == new


def _spelled(eqn: compat.JaxprEqn) -> str:
    """``exp (model.py:12)``: an equation, and the user's line that it is on."""
    line = users_line(eqn)
    return eqn.primitive.name + (f" ({line})" if line else "")
