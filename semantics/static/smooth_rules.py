"""Where an equation's outputs fail to be smooth in its operands: a kink, or perhaps a jump.

Every primitive that is not listed is taken for one that may jump.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...ppl import compat
from .bounds import Bounds, either, exactly, hull, through
from .signs import above, below, nonzero, positive


class Break(IntEnum):
    """How an output fails to be smooth, the worst last.

    ``KINK``: continuous, also where it goes to infinity (as log at 0), and smooth but on a set of measure zero.
    ``JUMP``: it may be discontinuous. ``UNKNOWN``: nothing is known of the primitive.
    """

    NONE = 0
    KINK = 1
    JUMP = 2
    UNKNOWN = 3


def breaks(eqn: compat.JaxprEqn, operands: Sequence[Bounds]) -> tuple[Break, tuple[int, ...]]:
    """How an equation fails to be smooth on the interior of its domain, and in which of its operands.

    An operand of integers or booleans is never to blame: it is constant but where another equation makes it jump.
    """
    name = eqn.primitive.name
    kind, blamed = _RULES.get(name, _unknown)(eqn, operands)
    many_valued = name not in _ENTIRE and any(map(_is_complex, eqn.invars))
    discrete = not all(map(_is_inexact, eqn.outvars))
    if kind < Break.JUMP and (many_valued or discrete):
        kind, blamed = Break.JUMP, range(len(operands))
    return kind, tuple(i for i in blamed if _is_inexact(eqn.invars[i])) if kind else ()


def outcome(eqn: compat.JaxprEqn, values: Sequence, outs: Sequence):
    """What tells on which side of a jump an equation is, as an array; None if nothing does."""
    match eqn.primitive.name:
        case "floor" | "ceil" | "round" | "sign":
            return outs[0]
        case "rem":
            return jnp.trunc(values[0] / values[1])
        case "div":
            return jnp.sign(values[1])
        case "integer_pow" | "pow":
            return jnp.sign(values[0])
        case "tan":
            return jnp.floor(values[0] / jnp.pi + 0.5)
    discrete = [jnp.ravel(out) for out, v in zip(outs, eqn.outvars) if not _is_inexact(v)]
    return jnp.concatenate(discrete) if discrete else None


def bounds_of(eqn: compat.JaxprEqn, operands: Sequence[Bounds]) -> list[Bounds]:
    """The bounds of an equation's outputs, if what the program is given are finite numbers."""
    name, same = eqn.primitive.name, len(eqn.invars) == 2 and eqn.invars[0] is eqn.invars[1]
    if same and name in ("eq", "ne") and not operands[0].nan:  # a test for NaN
        return [exactly(name == "eq")]
    if name == "stack":
        return [either(list(map(hull, operands)))]
    avals, params = ([v.aval for v in eqn.invars], [v.aval for v in eqn.outvars]), eqn.params
    if same and name == "mul":
        name, operands = "square", operands[:1]
    if name == "pow" and (power := _whole(operands[1])) is not None:
        name, operands, params = "integer_pow", operands[:1], {"y": power}
        avals = avals[0][:1], avals[1]
    return through(name, params, list(operands), avals)


def most(eqn: compat.JaxprEqn) -> Break:
    """The worst that an equation can be. It may be part of a function of JAX or numpyro that is known as a whole: its
    pieces fit together smoothly, or they meet with a kink."""
    frames = compat.frames(eqn)
    if any(_is_of_library(frame, _SMOOTH_FUNCTIONS) for frame in frames):
        return Break.NONE
    return (
        Break.KINK if any(_is_of_library(frame, _CONTINUOUS_FUNCTIONS) for frame in frames) else Break.UNKNOWN
    )


def is_immaterial(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation makes the shift that a function of JAX adds for precision and takes off again."""
    frames = compat.frames(eqn) if eqn.primitive.name == "stop_gradient" else []
    return any(_is_of_library(frame, _SHIFTED_FUNCTIONS) for frame in frames)


def keeps_infinity(eqn: compat.JaxprEqn) -> bool:
    """Whether an output is infinite, or not a number, where an operand is."""
    return eqn.primitive.name in _KEEPING_INFINITY


def keeps_regular(eqn: compat.JaxprEqn, operands: Sequence[bool]) -> bool:
    """Whether the output is triangular without zeros on the diagonal, given which operands are.

    A Cholesky factor is: where there is none, it is not a number.
    """
    if eqn.primitive.name == "select_n":  # the other triangle is set to zero
        return any(operands) and any(_is_of_library(frame, _TRIANGLES) for frame in compat.frames(eqn))
    return eqn.primitive.name == "cholesky" or (eqn.primitive.name in _RESHAPING and any(operands))


def is_regular_solve(eqn: compat.JaxprEqn, regular: bool) -> bool:
    return eqn.primitive.name == "triangular_solve" and (regular or eqn.params["unit_diagonal"])


def users_line(eqn: compat.JaxprEqn) -> str | None:
    """``model.py:12``: the user's line that an equation is on; None if it is on none."""
    return next(
        (f"{Path(frame.file).name}:{frame.line}" for frame in compat.frames(eqn) if is_the_users(frame)), None
    )


def is_the_users(frame: compat.Frame) -> bool:
    """Whether code is outside JAX, numpyro and borelax."""
    return not frame.file.startswith(_LIBRARIES + _OWN)


def _is_of_library(frame: compat.Frame, functions: frozenset[str]) -> bool:
    return frame.function in functions and frame.file.startswith(_LIBRARIES)


_LIBRARIES = tuple(
    f"{folder}{os.sep}" for folder in (Path(jax.__file__).parent, Path(dist.__file__).parents[1])
)
_OWN = tuple(
    f"{Path(__file__).parents[2] / package}{os.sep}"
    for package in ("ppl", "semantics", "inference", "models")
)


_SMOOTH_FUNCTIONS = frozenset(
    {"logaddexp", "logaddexp2", "softplus", "xlogy", "xlog1py", "logit", "ndtr", "_ndtr", "log_ndtr", "sinc"}
    | {"binary_cross_entropy_with_logits"}
)
_SHIFTED_FUNCTIONS = frozenset({"logsumexp", "softmax", "_softmax", "log_softmax"})
_CONTINUOUS_FUNCTIONS = frozenset({"elu", "selu", "celu", "leaky_relu", "hard_tanh"})

_TRIANGLES = frozenset({"cholesky", "tril", "_tril"})
_RESHAPING = (
    "broadcast_in_dim", "transpose", "convert_element_type", "copy", "squeeze", "expand_dims", "stop_gradient",
)  # fmt: skip
_KEEPING_INFINITY = (
    "add", "add_any", "sub", "neg", "mul", "abs", "reduce_sum", "cumsum", "select_n", "concatenate", "stack", "unstack",
    "reshape", "slice", "rev", "gather", "dynamic_slice", "dynamic_update_slice", *_RESHAPING,
)  # fmt: skip

# ------------------------------------------------------------------------- the rules

Rule = Callable[[compat.JaxprEqn, Sequence[Bounds]], tuple[Break, Sequence[int]]]


def _is_inexact(atom) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def _is_complex(atom) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.complexfloating)


def _is(kind: Break) -> Rule:
    return lambda eqn, operands: (kind, range(len(operands)))


def _smooth_if(condition: Callable[[Bounds], bool], otherwise: Break, *operand: int) -> Rule:
    """Smooth where the (first) operand is in a range, and ``otherwise`` in general."""
    where = operand or (0,)

    def rule(eqn, operands):
        return (Break.NONE if all(condition(operands[i]) for i in where) else otherwise), where

    return rule


def _integer_pow(eqn, operands):
    if eqn.params["y"] >= 0 or nonzero(operands[0]):
        return Break.NONE, ()
    return (Break.KINK if eqn.params["y"] % 2 == 0 else Break.JUMP), (0,)


def _pow(eqn, operands):
    base, exponent = operands
    if positive(base) or _whole(exponent) is not None:
        return Break.NONE, ()
    if positive(exponent):
        return Break.KINK, (0, 1)
    return Break.JUMP, (0, 1)


def _whole(exponent: Bounds) -> int | None:
    """The one number that an exponent is, if it is a whole number from 0 on."""
    number = float(np.max(exponent.upper, initial=-1.0))
    return (
        int(number) if exponent.known and np.all(exponent.lower == number) and number in range(1000) else None
    )


def _larger(eqn, operands):
    x, y = operands
    apart = bool(np.all(x.lower >= y.upper) or np.all(y.lower >= x.upper))
    return (Break.NONE if apart else Break.KINK), (0, 1)


def _sort(eqn, operands):
    """One array by its own values is continuous; what comes along with it jumps where two values pass each other."""
    return _ordered(eqn, operands) if len(operands) == 1 else (Break.JUMP, range(len(operands)))


def _ordered(eqn, operands):
    """What is not a number comes last, wherever it would have been."""
    return (Break.JUMP if operands[0].nan else Break.KINK), (0,)


def _inside_one(x: Bounds) -> bool:
    return above(x, -1.0) and below(x, 1.0)


def _unknown(eqn, operands):
    return Break.UNKNOWN, range(len(operands))


_ENTIRE = (  # on complex numbers too
    "add", "add_any", "sub", "mul", "neg", "square", "exp", "sin", "cos", "sinh", "cosh", "real", "imag", "complex",
    "conj", "fft", "reduce_sum", "reduce_prod", "cumsum", "cumprod", "dot_general", "conv_general_dilated",
    "reduce_window_sum", "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "concatenate", "stack",
    "unstack", "pad", "slice", "split", "rev", "copy", "copy_p", "name", "stop_gradient", "optimization_barrier",
    "convert_element_type", "reduce_precision", "select_n", "gather", "scatter", "scatter-add", "scatter_add",
    "scatter-mul", "scatter_mul", "dynamic_slice", "dynamic_update_slice", "history_append", "history_recall", "iota",
    "device_put", "sharding_constraint",
)  # fmt: skip
_SMOOTH = (
    "exp2", "expm1", "tanh", "atan", "asinh", "logistic", "erf", "erfc", "bessel_i0e", "bessel_i1e", "cumlogsumexp",
    "cholesky",
)  # fmt: skip
_KINKED = (
    "reduce_max", "reduce_min", "clamp", "reduce_window_max", "reduce_window_min", "scatter-max",
    "scatter-min", "scatter_max", "scatter_min",
)  # fmt: skip
_JUMPING = (
    "floor", "ceil", "round", "rem", "nextafter", "tan", "argmax", "argmin", "lu", "qr", "eigh", "eig", "svd",
    "bitcast_convert_type", "lt", "le", "gt", "ge", "eq", "ne", "is_finite",
)  # fmt: skip
_RULES: dict[str, Rule] = {
    **dict.fromkeys((*_ENTIRE, *_SMOOTH), _is(Break.NONE)),
    **dict.fromkeys(_KINKED, _is(Break.KINK)),
    **dict.fromkeys(_JUMPING, _is(Break.JUMP)),
    # at the edge of the domain they have a limit, though it may be infinite (see poles.py)
    "log": _smooth_if(positive, Break.KINK),
    "sqrt": _smooth_if(positive, Break.KINK),
    "rsqrt": _smooth_if(positive, Break.KINK),
    "lgamma": _smooth_if(positive, Break.KINK),
    "log1p": _smooth_if(lambda x: above(x, -1.0), Break.KINK),
    "acosh": _smooth_if(lambda x: above(x, 1.0), Break.KINK),
    "asin": _smooth_if(_inside_one, Break.KINK),
    "acos": _smooth_if(_inside_one, Break.KINK),
    "atanh": _smooth_if(_inside_one, Break.KINK),
    "erf_inv": _smooth_if(_inside_one, Break.KINK),
    "abs": _smooth_if(nonzero, Break.KINK),
    "cbrt": _smooth_if(nonzero, Break.KINK),
    "sign": _smooth_if(nonzero, Break.JUMP),
    # at a pole they go from one infinity to the other
    "div": _smooth_if(nonzero, Break.JUMP, 1),
    "digamma": _smooth_if(positive, Break.JUMP),
    "polygamma": _smooth_if(positive, Break.JUMP, 1),
    "zeta": _smooth_if(positive, Break.JUMP, 0, 1),
    "igamma": _smooth_if(positive, Break.JUMP, 0, 1),
    "igammac": _smooth_if(positive, Break.JUMP, 0, 1),
    "regularized_incomplete_beta": _smooth_if(positive, Break.JUMP, 0, 1, 2),
    "triangular_solve": _smooth_if(lambda x: False, Break.JUMP, 0),
    "atan2": _smooth_if(positive, Break.JUMP, 1),
    "integer_pow": _integer_pow,
    "pow": _pow,
    "max": _larger,
    "min": _larger,
    "sort": _sort,
    **dict.fromkeys(("cummax", "cummin", "top_k"), _ordered),
}  # fmt: skip
