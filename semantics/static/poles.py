"""Poles: which values may go to infinity inside the domain, and what may be made of them.

At a pole log(x^2) has a limit, minus infinity. Sums and exponentials keep limits, but x exp(-log(x^2) / 2) is the sign
of x: infinity times zero has no limit, nor has infinity minus infinity or the sine of infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag

from ...ppl import compat
from .bounds import Bounds
from .signs import above, below, nonzero, positive


class Pole(IntFlag):
    """Where the elements of an array may go: down to minus infinity, up to infinity."""

    NONE = 0
    DOWN = 1
    UP = 2
    EITHER = 3

    @property
    def negated(self) -> Pole:
        return Pole((self & 1) << 1 | (self >> 1))


def pole_of(
    eqn: compat.JaxprEqn, bounds: Sequence[Bounds], poles: Sequence[Pole], fixed: Sequence[bool]
) -> tuple[Pole, bool]:
    """Where an equation's outputs may go, and whether they have a limit at the poles of its operands.

    Args:
      fixed: which operands do not depend on any site: a number of unknown sign, but one and the same.
    """
    name = eqn.primitive.name
    if not any(poles):
        return _new_pole(eqn, bounds), True
    among = Pole(0)
    for pole in poles:
        among |= pole
    match name:
        case "neg":
            return among.negated, True
        case "add" | "add_any":
            return pole_of_sum(*poles)
        case "sub":
            return pole_of_sum(poles[0], poles[1].negated)
        case "reduce_sum" | "cumsum":
            return among, among != Pole.EITHER
        case "mul":
            return _product(bounds, poles, fixed)
        case "div" if not poles[1]:
            return _product(bounds, poles, fixed)
        case "exp" | "exp2":
            return among & Pole.UP, True
        case "tanh" | "logistic" | "atan" | "erf" | "erfc":
            return Pole.NONE, True
    return among, name in _KEEPING


def pole_of_sum(x: Pole, y: Pole) -> tuple[Pole, bool]:
    """The same of a sum: infinities of one sign have one, those of opposite signs have none."""
    return x | y, not (x and y) or (x == y and x != Pole.EITHER)


def _new_pole(eqn: compat.JaxprEqn, bounds: Sequence[Bounds]) -> Pole:
    match eqn.primitive.name:
        case "log" if not positive(bounds[0]):
            return Pole.DOWN
        case "log1p" if not above(bounds[0], -1.0):
            return Pole.DOWN
        case "rsqrt" | "lgamma" if not positive(bounds[0]):
            return Pole.UP
        case "integer_pow" if eqn.params["y"] < 0 and not nonzero(bounds[0]):
            return Pole.UP
        case "atanh" | "erf_inv" if not (above(bounds[0], -1.0) and below(bounds[0], 1.0)):
            return Pole.EITHER
    return Pole.NONE


def _product(bounds: Sequence[Bounds], poles: Sequence[Pole], fixed: Sequence[bool]) -> tuple[Pole, bool]:
    if all(poles):
        return Pole.EITHER, Pole.EITHER not in poles
    (infinite, finite) = (0, 1) if poles[0] else (1, 0)
    if positive(bounds[finite]):
        return poles[infinite], True
    if nonzero(bounds[finite]):
        return poles[infinite].negated, True
    return Pole.EITHER, fixed[finite]


_KEEPING = (
    "max", "min", "clamp", "reduce_max", "reduce_min", "select_n", "concatenate", "stack", "unstack", "pad",
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "dynamic_slice",
    "dynamic_update_slice", "gather", "rev", "copy", "copy_p", "stop_gradient", "optimization_barrier",
    "convert_element_type", "reduce_precision", "split",
)  # fmt: skip
