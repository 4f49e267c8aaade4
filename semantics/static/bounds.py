"""Bounds: between which numbers the elements of an array lie, and how they pass through the equations of a jaxpr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

MOST = 2**12  # elements that are bounded one by one; those of larger arrays share their bounds


@dataclass(frozen=True)
class Bounds:
    """The elements of an array lie in ``[lower, upper]``, in exact arithmetic, or are NaN.

    Attributes:
      lower, upper: float64, of the array's shape, or of shape () for all elements.
      open_below, open_above: whether no element attains its bound, as no real number attains an infinite one.
      nan: whether an element may be NaN.
    """

    lower: np.ndarray
    upper: np.ndarray
    open_below: bool = False
    open_above: bool = False
    nan: bool = False

    @property
    def known(self) -> bool:
        """Whether this is a single value."""
        return bool(np.all(self.lower == self.upper)) and not self.nan

    @property
    def finite(self) -> bool:
        """Whether no element is infinite or NaN."""
        below, above = bool(np.all(self.lower > -np.inf)), bool(np.all(self.upper < np.inf))
        return (self.open_below or below) and (self.open_above or above) and not self.nan

    @property
    def positive(self) -> np.ndarray:
        """Which elements are surely above 0."""
        return ((self.lower > 0) | ((self.lower == 0) & self.open_below)) & (not self.nan)


def exactly(x) -> Bounds:
    """The bounds of an array whose values are at hand."""
    x = np.asarray(x)
    nan = bool(np.issubdtype(x.dtype, np.inexact) and np.isnan(x).any())
    x = x.astype(np.float64)
    lower, upper = (np.where(np.isnan(x), -np.inf, x), np.where(np.isnan(x), np.inf, x)) if nan else (x, x)
    return _compact(Bounds(lower, upper, nan=nan))


def anything(dtype) -> Bounds:
    """The bounds of which nothing is known but the dtype."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return Bounds(np.float64(0), np.float64(1))
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return Bounds(np.float64(info.min), np.float64(info.max))
    return Bounds(np.float64(-np.inf), np.float64(np.inf), nan=True)


REAL = Bounds(np.float64(-np.inf), np.float64(np.inf), True, True)


def either(cases: list[Bounds]) -> Bounds:
    """The bounds of what is one of these arrays, element by element."""
    result = cases[0]
    for case in cases[1:]:
        below = _open(result.lower, result.open_below, case.lower, case.open_below)
        above = _open(-result.upper, result.open_above, -case.upper, case.open_above)
        lower, upper = np.minimum(result.lower, case.lower), np.maximum(result.upper, case.upper)
        result = Bounds(lower, upper, below, above, result.nan or case.nan)
    return result


def same(one: Bounds, other: Bounds) -> bool:
    flags = [(b.open_below, b.open_above, b.nan) for b in (one, other)]
    return flags[0] == flags[1] and bool(
        np.all(one.lower == other.lower) and np.all(one.upper == other.upper)
    )


def hull(b: Bounds) -> Bounds:
    """Bounds that all elements share."""
    if not np.ndim(b.lower) and not np.ndim(b.upper):
        return b
    lower = b.lower.min() if b.lower.size else np.float64(-np.inf)
    upper = b.upper.max() if b.upper.size else np.float64(np.inf)
    return replace(b, lower=lower, upper=upper)


def through(name: str, params: dict, operands: list[Bounds], avals) -> list[Bounds]:
    """The bounds of an equation's outputs, given those of its operands.

    Args:
      avals: the abstract values of its inputs and of its outputs, a pair.
    """
    inputs, outputs = avals
    rule = _RULES.get(name)
    if rule is None or len(outputs) != 1 or not all(map(_is_number, (*inputs, *outputs))):
        return [anything(aval.dtype) for aval in outputs]
    with np.errstate(all="ignore"):
        found = rule(params, avals, *(_fitting(b, aval) for b, aval in zip(operands, inputs)))
    return [_representable(_compact(found), outputs[0])]


def _fitting(b: Bounds, aval) -> Bounds:
    """Bounds of the array's own shape, or those that all elements share: for a slice of what they were made for."""
    return b if np.shape(b.lower) in ((), aval.shape) and np.shape(b.upper) in ((), aval.shape) else hull(b)


def _is_number(aval) -> bool:
    dtype = getattr(aval, "dtype", None)
    real = dtype is not None and not jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return real and not jnp.issubdtype(dtype, jnp.complexfloating)


def _compact(b: Bounds) -> Bounds:
    return hull(b) if max(np.size(b.lower), np.size(b.upper)) > MOST else b


def _representable(b: Bounds, aval) -> Bounds:
    """Integers that overflow wrap around: then nothing is known."""
    if jnp.issubdtype(aval.dtype, jnp.floating):
        return b
    if b.nan:
        return anything(aval.dtype)
    limits = anything(aval.dtype)
    fits = np.all(b.lower >= limits.lower) and np.all(b.upper <= limits.upper)
    return b if fits else limits


def _open(low, open_low, other, open_other) -> bool:
    """Whether the lesser of two bounds is not attained."""
    if np.all(low < other):
        return open_low
    if np.all(other < low):
        return open_other
    return open_low and open_other


# ------------------------------------------------------------------------- the rules


def _increasing(fun: Callable, domain: float = -np.inf, *, strict: bool = True):
    """A function that grows, on the numbers from ``domain`` on, and is NaN below."""

    def rule(params, avals, x: Bounds) -> Bounds:
        if np.any(x.upper < domain):  # NaN
            return anything(avals[1][0].dtype)
        outside = bool(np.any(x.lower < domain))
        lower, upper = fun(np.maximum(x.lower, domain)), fun(x.upper)
        below, above = strict and x.open_below and not outside, strict and x.open_above
        return Bounds(lower, upper, below, above, x.nan or outside)

    return rule


def _negated(x: Bounds) -> Bounds:
    return Bounds(-x.upper, -x.lower, x.open_above, x.open_below, x.nan)


def _add(x: Bounds, y: Bounds) -> Bounds:
    below, above = x.open_below or y.open_below, x.open_above or y.open_above
    lower, upper = x.lower + y.lower, x.upper + y.upper
    clash = (_attains(x, -np.inf) and _attains(y, np.inf)) or (_attains(x, np.inf) and _attains(y, -np.inf))
    lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
    return Bounds(lower, upper, below, above, x.nan or y.nan or clash)


def _attains(x: Bounds, infinity: float) -> bool:
    if infinity > 0:
        return not x.open_above and bool(np.any(x.upper == np.inf))
    return not x.open_below and bool(np.any(x.lower == -np.inf))


def _multiply(x: Bounds, y: Bounds) -> Bounds:
    corners = []
    for a, a_open in ((x.lower, x.open_below), (x.upper, x.open_above)):
        for b, b_open in ((y.lower, y.open_below), (y.upper, y.open_above)):
            product = a * b
            product = np.where(np.isnan(product), 0.0, product)  # 0 times an infinity that is approached
            zero = (not a_open and np.any(a == 0)) or (not b_open and np.any(b == 0))
            corners.append(Bounds(product, product, *(((a_open or b_open) and not zero),) * 2))
    infinite = [_attains(z, np.inf) or _attains(z, -np.inf) for z in (x, y)]
    zero = [bool(np.any(_reaches(z, 0.0))) for z in (x, y)]
    undefined = (infinite[0] and zero[1]) or (infinite[1] and zero[0])
    return replace(either(corners), nan=x.nan or y.nan or undefined)


def _reaches(x: Bounds, number: float) -> np.ndarray:
    """Which elements may have this value."""
    above = (x.lower < number) | ((x.lower == number) & (not x.open_below))
    return above & ((x.upper > number) | ((x.upper == number) & (not x.open_above)))


def _divide(params, avals, x: Bounds, y: Bounds) -> Bounds:
    if not jnp.issubdtype(avals[1][0].dtype, jnp.floating):
        return anything(avals[1][0].dtype)
    if np.any((y.lower < 0) & (y.upper > 0)) or np.any(_reaches(y, 0.0)):
        return anything(avals[1][0].dtype)
    lower, upper = 1.0 / y.upper, 1.0 / y.lower  # 1 / 0 is approached from the side that y lies on
    lower, upper = np.where(y.upper == 0, -np.inf, lower), np.where(y.lower == 0, np.inf, upper)
    quotient = _multiply(x, Bounds(lower, upper, y.open_above, y.open_below, y.nan))
    both = any(_attains(x, s) for s in (-np.inf, np.inf)) and any(_attains(y, s) for s in (-np.inf, np.inf))
    return replace(quotient, nan=quotient.nan or both)


def _maximum(x: Bounds, y: Bounds) -> Bounds:
    return _negated(_minimum(_negated(x), _negated(y)))


def _minimum(x: Bounds, y: Bounds) -> Bounds:
    below = _open(x.lower, x.open_below, y.lower, y.open_below)
    if np.all(x.upper < y.upper):
        above = x.open_above
    elif np.all(y.upper < x.upper):
        above = y.open_above
    else:
        above = x.open_above and y.open_above
    return Bounds(np.minimum(x.lower, y.lower), np.minimum(x.upper, y.upper), below, above, x.nan or y.nan)


def _absolute(x: Bounds) -> Bounds:
    outer = _maximum(x, _negated(x))
    crosses = (x.lower < 0) & (x.upper > 0)
    lower = np.where(crosses, 0.0, np.maximum(np.maximum(x.lower, -x.upper), 0.0))
    return replace(outer, lower=lower, open_below=not np.any(crosses | _reaches(x, 0.0)) and outer.open_below)


def _power(x: Bounds, exponent: int) -> Bounds:
    if exponent < 0 or exponent == 0:
        return replace(REAL, open_below=False, open_above=False, nan=True)
    base = _absolute(x) if exponent % 2 == 0 else x
    return replace(base, lower=base.lower**exponent, upper=base.upper**exponent)


def _pow(params, avals, x: Bounds, y: Bounds) -> Bounds:
    if np.any(x.lower < 0) or np.any(y.lower < 0):
        return anything(avals[1][0].dtype)
    corners = [Bounds(a**b, a**b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    return replace(either(corners), nan=x.nan or y.nan)


def _select(params, avals, which: Bounds, *cases: Bounds) -> Bounds:
    if not which.known or len(cases) > 16:
        return either([case for i, case in enumerate(cases) if np.any(_reaches(which, i))])
    shape = avals[1][0].shape
    index = np.broadcast_to(which.lower, shape).astype(int)
    chosen = [case for i, case in enumerate(cases) if np.any(index == i)] or list(cases)
    lower, upper = (
        np.choose(index, [np.broadcast_to(getattr(case, side), shape) for case in cases])
        for side in ("lower", "upper")
    )
    flags = (all(c.open_below for c in chosen), all(c.open_above for c in chosen), any(c.nan for c in chosen))
    return Bounds(lower, upper, *flags)


def _truth(surely, possibly) -> Bounds:
    return Bounds(np.asarray(surely, np.float64), np.asarray(possibly, np.float64))


def _less(x: Bounds, y: Bounds) -> Bounds:
    touching = x.open_above or y.open_below
    surely = (x.upper < y.lower) | ((x.upper == y.lower) & touching)
    never = x.lower >= y.upper
    return _truth(surely & (not (x.nan or y.nan)), ~never)


def _less_equal(x: Bounds, y: Bounds) -> Bounds:
    touching = x.open_below or y.open_above
    never = (x.lower > y.upper) | ((x.lower == y.upper) & touching)
    return _truth((x.upper <= y.lower) & (not (x.nan or y.nan)), ~never)


def _equal(x: Bounds, y: Bounds) -> Bounds:
    below = (x.upper < y.lower) | ((x.upper == y.lower) & (x.open_above or y.open_below))
    above = (y.upper < x.lower) | ((y.upper == x.lower) & (y.open_above or x.open_below))
    surely = (x.lower == x.upper) & (y.lower == y.upper) & (x.lower == y.lower)
    return _truth(surely & (not (x.nan or y.nan)), ~(below | above))


def _not(x: Bounds) -> Bounds:
    return Bounds(1.0 - x.upper, 1.0 - x.lower)


def _logical(fun: Callable):
    def rule(params, avals, x: Bounds, y: Bounds) -> Bounds:
        if not jnp.issubdtype(avals[1][0].dtype, jnp.bool_):
            return anything(avals[1][0].dtype)
        return Bounds(fun(x.lower, y.lower), fun(x.upper, y.upper))

    return rule


def _reduction(fun: Callable):
    """A reduction that grows with every element. Elements that share their bounds all attain them or none does."""

    def rule(params, avals, x: Bounds) -> Bounds:
        shape = avals[0][0].shape
        if 0 in shape:
            return anything(avals[1][0].dtype)
        lower, upper = (
            fun(np.broadcast_to(b, shape), axis=tuple(params["axes"])) for b in (x.lower, x.upper)
        )
        clash = fun is np.sum and _attains(x, np.inf) and _attains(x, -np.inf)
        lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
        return Bounds(lower, upper, x.open_below, x.open_above, x.nan or clash)

    return rule


def _convert(params, avals, x: Bounds) -> Bounds:
    dtype = avals[1][0].dtype
    if jnp.issubdtype(dtype, jnp.bool_):
        return _not(_equal(x, exactly(0.0)))
    if jnp.issubdtype(dtype, jnp.integer):
        return Bounds(np.trunc(x.lower), np.trunc(x.upper), nan=x.nan)
    return x


def _shaped(fun: Callable):
    """Elements that change places, by what happens to their bounds."""

    def rule(params, avals, x: Bounds) -> Bounds:
        move = lambda b: fun(b, params, avals[1][0].shape) if np.ndim(b) else b  # noqa: E731
        return replace(x, lower=move(x.lower), upper=move(x.upper))

    return rule


def _broadcast(b, params, shape):
    placed = [1] * len(shape)
    for size, axis in zip(b.shape, params["broadcast_dimensions"]):
        placed[axis] = size
    return np.broadcast_to(b.reshape(placed), shape)


def _slice(b, params, shape):
    strides = params["strides"] or [1] * b.ndim
    return b[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _joined(fun: Callable, axis: str):
    """Arrays put side by side."""

    def rule(params, avals, *xs: Bounds) -> Bounds:
        lower, upper = (
            fun([np.broadcast_to(getattr(x, side), a.shape) for x, a in zip(xs, avals[0])], params[axis])
            for side in ("lower", "upper")
        )
        flags = (all(x.open_below for x in xs), all(x.open_above for x in xs), any(x.nan for x in xs))
        return Bounds(lower, upper, *flags)

    return rule


def _cumulated(params, avals, x: Bounds) -> Bounds:
    count, x = float(avals[0][0].shape[params["axis"]]), hull(x)
    return either([x, _multiply(x, exactly(count))])


def _dot(params, avals, x: Bounds, y: Bounds) -> Bounds:
    (axes, _), _ = params["dimension_numbers"]
    count = float(np.prod([avals[0][0].shape[axis] for axis in axes], dtype=int))
    return _multiply(_multiply(hull(x), hull(y)), exactly(count))


def _gather(params, avals, x: Bounds, indices: Bounds) -> Bounds:
    filled = "FILL" in str(params["mode"])
    if filled and not jnp.issubdtype(avals[1][0].dtype, jnp.floating):
        return anything(avals[1][0].dtype)
    return replace(hull(x), nan=x.nan or filled)


def _iota(params, avals) -> Bounds:
    shape, axis = avals[1][0].shape, params["dimension"]
    if np.prod(shape, dtype=int) > MOST:
        return Bounds(np.float64(0), np.float64(shape[axis] - 1))
    counted = np.arange(shape[axis], dtype=np.float64).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )
    return exactly(np.broadcast_to(counted, shape))


def _of_one(fun: Callable):
    return lambda params, avals, x: fun(x)


def _of_two(fun: Callable):
    return lambda params, avals, x, y: fun(x, y)


def _unit(lower: float):
    return lambda params, avals, x: Bounds(np.float64(lower), np.float64(1.0), nan=not x.finite)


def _logistic(x):
    return np.where(x >= 0, 1.0 / (1.0 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x))))


_RULES: dict[str, Callable] = {
    "neg": _of_one(_negated),
    "abs": _of_one(_absolute),
    "square": _of_one(lambda x: _power(x, 2)),
    "integer_pow": lambda params, avals, x: _power(x, params["y"]),
    "pow": _pow,
    "add": _of_two(_add),
    "add_any": _of_two(_add),
    "sub": _of_two(lambda x, y: _add(x, _negated(y))),
    "mul": _of_two(_multiply),
    "div": _divide,
    "max": _of_two(_maximum),
    "min": _of_two(_minimum),
    "clamp": lambda params, avals, low, x, high: _minimum(_maximum(x, low), high),
    "exp": _increasing(np.exp),
    "exp2": _increasing(np.exp2),
    "expm1": _increasing(np.expm1),
    "log": _increasing(np.log, 0.0),
    "log1p": _increasing(np.log1p, -1.0),
    "sqrt": _increasing(np.sqrt, 0.0),
    "cbrt": _increasing(np.cbrt),
    "logistic": _increasing(_logistic),
    "tanh": _increasing(np.tanh),
    "atan": _increasing(np.arctan),
    "sinh": _increasing(np.sinh),
    "asinh": _increasing(np.arcsinh),
    "floor": _increasing(np.floor, strict=False),
    "ceil": _increasing(np.ceil, strict=False),
    "round": _increasing(np.round, strict=False),
    "sign": _increasing(np.sign, strict=False),
    "sin": _unit(-1.0),
    "cos": _unit(-1.0),
    "erf": lambda params, avals, x: Bounds(np.float64(-1), np.float64(1), nan=x.nan),
    "erfc": lambda params, avals, x: Bounds(np.float64(0), np.float64(2), nan=x.nan),
    "lt": _of_two(_less),
    "gt": _of_two(lambda x, y: _less(y, x)),
    "le": _of_two(_less_equal),
    "ge": _of_two(lambda x, y: _less_equal(y, x)),
    "eq": _of_two(_equal),
    "ne": _of_two(lambda x, y: _not(_equal(x, y))),
    "is_finite": _of_one(lambda x: _truth(x.finite, True)),
    "and": _logical(np.minimum),
    "or": _logical(np.maximum),
    "not": lambda params, avals, x: (
        _not(x) if jnp.issubdtype(avals[1][0].dtype, jnp.bool_) else anything(avals[1][0].dtype)
    ),
    "select_n": _select,
    "reduce_sum": _reduction(np.sum),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reduce_and": _reduction(np.min),
    "reduce_or": _reduction(np.max),
    "argmax": lambda params, avals, x: Bounds(
        np.float64(0), np.float64(max(avals[0][0].shape, default=1) - 1)
    ),
    "argmin": lambda params, avals, x: Bounds(
        np.float64(0), np.float64(max(avals[0][0].shape, default=1) - 1)
    ),
    "convert_element_type": _convert,
    "copy": _of_one(lambda x: x),
    "stop_gradient": _of_one(lambda x: x),
    "optimization_barrier": _of_one(lambda x: x),
    "broadcast_in_dim": _shaped(_broadcast),
    "reshape": _shaped(lambda b, params, shape: b.reshape(shape)),
    "squeeze": _shaped(lambda b, params, shape: b.reshape(shape)),
    "expand_dims": _shaped(lambda b, params, shape: b.reshape(shape)),
    "transpose": _shaped(lambda b, params, shape: b.transpose(params["permutation"])),
    "rev": _shaped(lambda b, params, shape: np.flip(b, params["dimensions"])),
    "slice": _shaped(_slice),
    "concatenate": _joined(np.concatenate, "dimension"),
    "stack": _joined(np.stack, "axis"),
    "cumsum": _cumulated,
    "cummax": _of_one(hull),
    "cummin": _of_one(hull),
    "dot_general": _dot,
    "sort": _of_one(hull),
    "gather": _gather,
    "dynamic_slice": lambda params, avals, x, *start: hull(x),
    "dynamic_update_slice": lambda params, avals, x, new, *start: either([hull(x), hull(new)]),
    "iota": _iota,
}
