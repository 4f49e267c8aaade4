"""Append-only histories: values that only grow, of which a population keeps one copy.

A language model's cache and a stored path have the same life: each step appends one record, and later
steps read all of them. Resampling such a value by copying it costs its whole size at every step. A history
is resampled by *reference*: a population keeps one pool of records, written once, and every member keeps
a table saying whose record it inherited at each step. Reindexing the population permutes only that table.

For a single run a history is simply an array with a leading step axis.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def history(length: int, record):
    """An empty history with room for ``length`` records.

    Args:
      length: number of slots S (static).
      record: a pytree of arrays (or ``jax.ShapeDtypeStruct``) shaped like one record.

    Returns:
      A pytree like ``record`` whose leaves have shape ``[S, *leaf.shape]`` and are zero.

    >>> path = history(3, jnp.zeros(2))
    >>> path = append(path, 1, jnp.array([1.0, 2.0]))
    >>> recall(path).tolist()
    [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    """
    if length < 1:
        raise ValueError(f"a history needs at least one slot, got length={length}")
    shapes = jax.eval_shape(lambda record: record, record)
    return jax.tree.map(
        lambda leaf: history_p.bind(shape=(length, *leaf.shape), dtype=jnp.dtype(leaf.dtype)), shapes
    )


def append(history, step, record):
    """Writes ``record`` into slot ``step`` (an int32 scalar, clamped to ``[0, S)``).

    Raises:
      ValueError: the record is not shaped like the history's records.
    """
    step = jnp.asarray(step, jnp.int32)
    return jax.tree.map(lambda h, x: append_p.bind(h, step, _checked(x, h)), history, record)


def recall(history, *index):
    """All records, ``[S, *leaf.shape]``; ``index`` (int scalars) selects along a record's leading axes."""
    index = [jnp.asarray(i, jnp.int32) for i in index]
    return jax.tree.map(lambda h: recall_p.bind(h, *index), history)


def _checked(record, buffer):
    record = jnp.asarray(record)
    if record.shape != buffer.shape[1:] or not np.can_cast(record.dtype, buffer.dtype, "same_kind"):
        raise ValueError(
            f"this history has records {buffer.dtype}{list(buffer.shape[1:])}, but {record.dtype}"
            f"{list(record.shape)} was appended"
        )
    return record.astype(buffer.dtype)


def _history(*, shape, dtype):
    return jnp.zeros(shape, dtype)


def _append(buffer, step, record):
    return lax.dynamic_update_index_in_dim(buffer, record, jnp.clip(step, 0, buffer.shape[0] - 1), 0)


def _recall(buffer, *index):
    return buffer[(slice(None), *index)]


def _named_function(name: str, fun) -> Primitive:
    """A primitive that means ``fun`` everywhere, and that a walk over a jaxpr can recognise."""
    primitive = Primitive(name)

    def batch(axis_data, operands, dims, **params):
        if all(dim is None for dim in dims):
            return primitive.bind(*operands, **params), None
        return jax.vmap(partial(fun, **params), in_axes=tuple(dims))(*operands), 0

    def differentiate(primals, tangents, **params):
        return jax.jvp(partial(fun, **params), tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))

    primitive.def_impl(lambda *operands, **params: fun(*operands, **params))
    primitive.def_abstract_eval(
        lambda *avals, **params: jax.typeof(jax.eval_shape(partial(fun, **params), *avals))
    )
    mlir.register_lowering(primitive, mlir.lower_fun(fun, multiple_results=False))
    batching.fancy_primitive_batchers[primitive] = batch
    ad.primitive_jvps[primitive] = differentiate
    return primitive


history_p = _named_function("history", _history)
append_p = _named_function("history_append", _append)
recall_p = _named_function("history_recall", _recall)
