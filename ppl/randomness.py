"""Independent draws from one key.

``jax.vmap`` of a sampler needs a key per element, and then runs the generator once per element. ``independent``
runs it once for all: wherever the sampler asks for random bits it asks for a block of them, one row per
element. Samplers that do more with a key than split it and ask for bits (rejection loops) get a key per element.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import primitives

from . import compat


def independent(fun: Callable, size: int, mapped: tuple[bool, ...]) -> Callable:
    """Like ``vmap(fun, (0, *axes))(split(key, size), *args)``, from one key.

    Args:
      fun: ``(key, *arrays) -> array``.
      size: the number of independent draws.
      mapped: which of the arrays have a leading axis of that size.

    Returns:
      ``(key, *arrays) -> array`` with a leading axis ``size``: rows are independent draws of ``fun``.

    >>> noise = independent(lambda key, mean: mean + jax.random.normal(key), 3, (True,))
    >>> noise(jax.random.key(0), jnp.array([0.0, 100.0, 200.0])).shape
    (3,)
    """

    def batched(key, *args):
        slices = [jax.ShapeDtypeStruct(x.shape[1:] if m else x.shape, x.dtype) for x, m in zip(args, mapped)]
        closed = jax.make_jaxpr(fun)(key, *slices)
        values = [_Shared(key), *(_Rows(x) if m else x for x, m in zip(args, mapped))]
        (out,) = _run(closed.jaxpr, closed.consts, values, size)
        return _rows(out, size)

    return batched


class _Rows:
    """A value with one row per draw."""

    def __init__(self, value):
        self.value = value


class _Shared:
    """A key (or array of keys) standing for one independent key per draw."""

    def __init__(self, key):
        self.key = key


def _run(jaxpr: compat.Jaxpr, consts, args, size: int) -> list:
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _step(eqn, [compat.read(env, v) for v in eqn.invars], size)))
    return [compat.read(env, v) for v in jaxpr.outvars]


def _step(eqn: compat.JaxprEqn, ins: list, size: int) -> list:
    shared = any(isinstance(x, _Shared) for x in ins)
    rows = any(isinstance(x, _Rows) for x in ins)
    if not shared and not rows:
        return compat.bind(eqn, ins)
    if shared and eqn.primitive is primitives.random_bits_p:
        shape = (size, *eqn.params["shape"])
        bits = eqn.primitive.bind(ins[0].key, **{**eqn.params, "shape": shape})
        return [_Rows(jnp.moveaxis(bits, ins[0].key.ndim, 0))]
    if shared and eqn.primitive is primitives.jit_p:
        closed = eqn.params["jaxpr"]
        return _run(closed.jaxpr, closed.consts, ins, size)
    if shared and not rows and all(_is_key(v.aval) for v in eqn.outvars):
        plain = [x.key if isinstance(x, _Shared) else x for x in ins]
        return [_Shared(key) for key in compat.bind(eqn, plain)]
    ins = [_Rows(_split(x.key, size)) if isinstance(x, _Shared) else x for x in ins]
    in_axes = tuple(0 if isinstance(x, _Rows) else None for x in ins)
    plain = [x.value if isinstance(x, _Rows) else x for x in ins]
    outs = jax.vmap(lambda *xs: compat.bind(eqn, xs), in_axes=in_axes)(*plain)
    return [_Rows(out) for out in outs]


def _rows(x, size: int):
    if isinstance(x, _Rows):
        return x.value
    if isinstance(x, _Shared):
        return _split(x.key, size)
    return jnp.broadcast_to(x, (size, *jnp.shape(x)))


def _split(keys, size: int):
    """``[size, *keys.shape]`` independent keys."""
    split = lambda key: jax.random.split(key, size)  # noqa: E731
    for _ in range(keys.ndim):
        split = jax.vmap(split, out_axes=1)
    return split(keys)


def _is_key(aval) -> bool:
    return jnp.issubdtype(aval.dtype, jax.dtypes.prng_key)
