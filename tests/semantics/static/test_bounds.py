"""Bounds hold for every value that JAX computes, and are as tight as they can be where that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from borelax.semantics.static.bounds import REAL, Bounds, anything, either, exactly, same, through

X = jax.ShapeDtypeStruct((3,), jnp.float32)
ENDS = [-np.inf, -2.5, -1.0, 0.0, 0.5, 1.0, 3.0, np.inf]
INTERVALS = [(low, high) for i, low in enumerate(ENDS) for high in ENDS[i:] if np.isfinite(low) or low < high]

ONE = {
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "logistic": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "arctan": jnp.arctan,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "sign": jnp.sign,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "inverse": lambda x: x**-1,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "softmax": jax.nn.softmax,
    "logsumexp": jax.nn.logsumexp,
    "sum": jnp.sum,
    "mean": jnp.mean,
    "max": jnp.max,
    "min": jnp.min,
    "argmax": jnp.argmax,
    "cumsum": jnp.cumsum,
    "cummax": lax.cummax,
    "sort": jnp.sort,
    "reverse": lambda x: x[::-1],
    "index": lambda x: x[1],
    "take": lambda x: jnp.take(x, jnp.argmax(x)),
    "clip": lambda x: jnp.clip(x, 0.25, 0.75),
    "int": lambda x: jnp.clip(x, -5, 5).astype(int),
    "wrapped": lambda x: jnp.clip(x, 0, 1).astype(jnp.int8) * jnp.int8(127) * jnp.int8(2),
    "unsigned": lambda x: jnp.clip(x, 0, 2).astype(jnp.uint8) - jnp.uint8(1),
    "bool": lambda x: x.astype(bool),
    "compare": lambda x: jnp.stack([x < 0.5, x <= 0.5, x > 0.5, x >= 0.5, x == 0.5, x != 0.5]),
    "isnan": jnp.isnan,
    "isfinite": jnp.isfinite,
    "where": lambda x: jnp.where(x > 0, x, -jnp.inf),
    "never": lambda x: jnp.where(x * x < -1.0, jnp.inf, 1.0),
    "concatenate": lambda x: jnp.concatenate([x, 2.0 * x]),
    "stack": lambda x: jnp.stack([x, 1.0 - x]),
    "broadcast": lambda x: jnp.broadcast_to(x[:, None], (3, 2)).T,
    "normalised": lambda x: x / jnp.sum(x),
    "norm": jnp.linalg.norm,
    "dot": lambda x: jnp.dot(x, jnp.arange(3.0)),
    "logic": lambda x: ((x > 0) & (x < 1)) | ~(x > -1),
    "power": lambda x: jnp.abs(x) ** 1.5,
    "rounded away": lambda x: 1.0 / jnp.maximum(x, 0.0),
}
TWO = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "divide": jnp.divide,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "less": jnp.less,
    "greater_equal": jnp.greater_equal,
    "equal": jnp.equal,
    "dot": jnp.dot,
    "logaddexp": jnp.logaddexp,
    "power": lambda x, y: jnp.abs(x) ** jnp.abs(y),
    "select": lambda x, y: jnp.where(x > y, x, y),
    "clamp": lambda x, y: lax.clamp(x, y, 1.0 + x),
    "update": lambda x, y: lax.dynamic_update_slice(x, y[:1], (1,)),
}


def bounds_of(closed, operands):
    """A jaxpr without control flow, bounded equation by equation."""
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.constvars, map(exactly, closed.consts))) | dict(zip(jaxpr.invars, operands))

    def read(v):
        return env[v] if not hasattr(v, "val") else exactly(np.asarray(v.val, v.aval.dtype))

    for eqn in jaxpr.eqns:
        ins = [read(v) for v in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is not None:
            outs = bounds_of(inner, ins)
        else:
            avals = [v.aval for v in eqn.invars], [v.aval for v in eqn.outvars]
            outs = through(eqn.primitive.name, eqn.params, ins, avals)
        env.update(zip(eqn.outvars, outs))
    return [read(v) for v in jaxpr.outvars]


def interval(low, high) -> Bounds:
    """All numbers between these, without the infinite ones."""
    return Bounds(np.full(3, low), np.full(3, high), bool(np.isinf(low)), bool(np.isinf(high)))


def points(low, high, count: int) -> np.ndarray:
    """``[count, 3]``, the ends among them if they are finite."""
    rng = np.random.default_rng(0)
    inside = np.clip(rng.uniform(max(low, -20.0), min(high, 20.0), (count, 3)), low, high)
    ends = [np.full((1, 3), end) for end in (low, high) if np.isfinite(end)]
    return np.concatenate([*ends, inside])[:count].astype(np.float32)


def assert_within(values, b: Bounds) -> None:
    values = np.asarray(values, np.float64)
    nan = np.isnan(values)
    assert b.nan or not nan.any()
    slack = 1e-5 * (1.0 + np.abs(np.where(np.isfinite(values), values, 0.0)))
    within = (values >= b.lower - slack) & (values <= b.upper + slack)
    assert np.all(nan | within), (values[~(nan | within)][:3], b)


@pytest.mark.parametrize("name", ONE)
def test_one_argument(name):
    closed, fun = jax.make_jaxpr(ONE[name])(X), jax.jit(jax.vmap(ONE[name]))
    for low, high in INTERVALS:
        (b,) = bounds_of(closed, [interval(low, high)])
        assert_within(fun(points(low, high, 40)), b)


@pytest.mark.parametrize("name", TWO)
def test_two_arguments(name):
    closed, fun = jax.make_jaxpr(TWO[name])(X, X), jax.jit(jax.vmap(TWO[name]))
    some = INTERVALS[::2]
    for i, one in enumerate(some):
        for other in some[i % 3 :: 3]:
            (b,) = bounds_of(closed, [interval(*one), interval(*other)])
            assert_within(fun(points(*one, 40), points(*other, 40)[::-1]), b)


def of(fun, *operands):
    shapes = [jax.ShapeDtypeStruct(np.shape(b.lower), jnp.float32) for b in operands]
    return bounds_of(jax.make_jaxpr(fun)(*shapes), list(operands))[0]


POSITIVE = Bounds(np.float64(0), np.float64(np.inf), True, True)
CLOSED = Bounds(np.float64(0), np.float64(1))


def test_what_is_approached_is_not_reached():
    assert of(jnp.exp, REAL).positive and of(jnp.exp, REAL).finite
    assert not of(jnp.exp, Bounds(np.float64(-np.inf), np.float64(0))).positive
    assert of(jax.nn.sigmoid, REAL).positive
    assert of(lambda x: 1.0 - jax.nn.sigmoid(x), REAL).positive
    assert of(jnp.log, POSITIVE).finite and not of(jnp.log, CLOSED).finite
    assert of(jnp.multiply, POSITIVE, POSITIVE).positive and not of(jnp.multiply, POSITIVE, CLOSED).positive
    assert of(jnp.divide, POSITIVE, POSITIVE).positive
    assert of(jax.nn.softplus, REAL).finite
    assert of(lambda x: jnp.where(x > 0, jnp.exp(x), 2.0), REAL).positive


def test_minus_infinity_is_seen():
    assert of(lambda x: jnp.log(-x), POSITIVE).upper == -np.inf
    assert of(lambda x: jnp.where(x > 2.0, 0.0, -jnp.inf), CLOSED).upper == -np.inf
    assert of(lambda x: jnp.where(x > 0.5, 0.0, -jnp.inf), CLOSED).upper == 0.0


def test_either_keeps_what_none_reaches():
    assert either([POSITIVE, Bounds(np.float64(1), np.float64(2))]).open_below
    assert not either([POSITIVE, CLOSED]).open_below
    assert either([exactly(1.0), exactly([0.0, 3.0])]).upper.tolist() == [1.0, 3.0]


def test_nan_is_remembered():
    assert exactly([1.0, np.nan]).nan
    assert of(lambda x, y: x - y, anything(jnp.float32), REAL).nan
    assert of(lambda x: x < jnp.inf, REAL).lower == 1.0
    assert of(lambda x: x < jnp.inf, anything(jnp.float32)).lower == 0.0  # it may be NaN


def test_same_tells_open_from_closed():
    assert same(POSITIVE, POSITIVE)
    assert not same(POSITIVE, Bounds(np.float64(0), np.float64(np.inf), False, True))
