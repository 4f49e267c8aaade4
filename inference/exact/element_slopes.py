"""element_slopes: which element of an array each output of a function is a multiple of, and what multiple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def element_slopes(function: Callable, origin: jax.Array) -> tuple[Any, Any, Any]:
    """Takes apart ``function(z) = slope * z[element] + constant``, where the element may be another for each output.

    By forward derivatives. In reverse what is not a number spreads to outputs that do not use it, and an index out of
    bounds, which forwards is the last one, is left out. The element's number is found bit by bit: what a slope makes of
    a bit is zero or not, however it is rounded.

    Args:
      function: ``array -> (pytree of arrays, anything)``, like that in each of the arrays.
      origin: where the function can be evaluated.

    Returns:
      The slopes, pytrees like what the function returns; the elements' numbers in the order of ``origin.ravel()``, zero
      where the slope is, so that a derivative of a slope there counts as one of the first element; and the anything.

    >>> double = lambda z: (jnp.stack([2.0 * z[2], 1.0 - z[1], 5.0]), None)
    >>> slopes, elements, _ = element_slopes(double, jnp.zeros(3))
    >>> slopes.tolist(), elements.tolist()
    ([2.0, -1.0, 0.0], [2, 1, 0])
    """
    _, push, aside = jax.linearize(function, origin, has_aux=True)
    slopes = push(jnp.ones_like(origin))
    number = jnp.arange(origin.size).reshape(origin.shape)
    bits = jnp.arange(max(1, (origin.size - 1).bit_length()))
    pushed = jax.vmap(lambda bit: push((number >> bit & 1).astype(origin.dtype)))(bits)
    elements = jax.tree.map(lambda x: jnp.tensordot(1 << bits, (x != 0).astype(bits.dtype), 1), pushed)
    return slopes, elements, aside
