"""One code for NumPy and for JAX: double precision outside of jit, whatever there is inside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def as_floats(x):
    """``x`` for a function of arrays that runs anywhere: itself in ``jit`` and ``vmap``, else a NumPy array of doubles.

    So what is looked at once is computed in double precision, and nothing is compiled for its shape.

    >>> as_floats(jnp.arange(3)).dtype, jax.eval_shape(as_floats, jnp.arange(3)).dtype
    (dtype('float64'), dtype('float32'))
    """
    if not isinstance(x, jax.core.Tracer):
        return np.asarray(x, np.float64)
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32) if is_float else float)


def array_module(x):
    """The module whose functions are for ``x``: ``numpy`` or ``jax.numpy``, as Python's array API standard has it."""
    return x.__array_namespace__()
