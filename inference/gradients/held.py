"""held: a value whose derivative is refused where it would be wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ...ppl import UnsupportedError


def held(value, fixed, refusal: str):
    """``value``, for a program in which ``fixed`` (a pytree) does not vary with what is differentiated.

    Raises:
      UnsupportedError: ``refusal``, when a derivative is taken along which something in ``fixed`` may vary.

    >>> jax.grad(lambda x: held(3 * x, jax.lax.stop_gradient(x), "x must stay where it is"))(1.0).item()
    3.0
    """

    @jax.custom_jvp
    def hold(value, fixed):
        return value

    def rule(primals, tangents):
        tangent, moved = tangents
        if not all(isinstance(t, SymbolicZero) for t in jax.tree.leaves(moved)):
            raise UnsupportedError(refusal)
        value = primals[0]
        return value, jnp.zeros_like(value) if isinstance(tangent, SymbolicZero) else tangent

    hold.defjvp(rule, symbolic_zeros=True)
    return hold(value, fixed)
