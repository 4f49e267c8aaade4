"""Short words for numbers and arrays: how many, of what type, and how their values begin."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_MOST = 2**16  # elements of an array that is still looked at: more are left on their device
ABSENT = "–"


def count(number: int, thing: str) -> str:
    """
    >>> count(1, "site"), count(2, "site")
    ('1 site', '2 sites')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def type_of(x) -> str:
    """``float32[3,2]``; the Python type of what is not an array.

    >>> type_of(np.zeros((3, 2), np.float32)), type_of(1.0)
    ('float32[3,2]', 'float')
    """
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return type(x).__name__
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def values_of(x, present=None, most: int = 6) -> str:
    """The first elements in row-major order; the empty string if they are not known (in ``jit``) or are not numbers.

    Args:
      present: bool, with the leading axes of ``x``: elements that are not present are shown as a dash.

    >>> values_of(np.array([1.0, 2.5, 4.0]), np.array([True, False, True]))
    '1, –, 4'
    """
    if present is None and isinstance(x, bool | int | float | complex):
        return _number(x)
    if not is_known(x) or (present is not None and not is_known(present)):
        return ""
    elements = np.asarray(x)
    here = np.ones((), bool) if present is None else np.asarray(present)
    if here.shape != elements.shape[: here.ndim]:
        return ""
    here = np.broadcast_to(here.reshape(here.shape + (1,) * (elements.ndim - here.ndim)), elements.shape)
    shown = [_number(e) if p else ABSENT for e, p in zip(elements.flat[:most], here.flat[:most])]
    return ", ".join([*shown, "…"] if elements.size > most else shown)


def one_line(value) -> str:
    """A pytree of arrays in at most a hundred characters.

    >>> one_line({"x": np.array([1.0, 2.5]), "y": np.int32(3)})
    '{x: [1.  2.5], y: 3}'
    """
    text = jax.tree.map(
        lambda x: np.array2string(np.asarray(x), precision=4, threshold=8, edgeitems=3), value
    )
    line = " ".join(str(text).replace("'", "").split())
    return line if len(line) <= 100 else line[:97] + "..."


def is_known(x) -> bool:
    """Whether ``x`` is an array of numbers whose values can be looked at now, and cheaply."""
    if isinstance(x, jax.core.Tracer) or not isinstance(x, (jax.Array, np.ndarray, np.generic)):
        return False
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        return False
    return x.size <= _MOST and any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.number, jnp.bool_))


def _number(x) -> str:
    kind = jnp.result_type(x)
    if not jnp.issubdtype(kind, jnp.inexact):
        return str(x)
    return f"{complex(x) if jnp.issubdtype(kind, jnp.complexfloating) else float(x):.4g}"
