"""Arguments, apart from their arrays: what a compiled function is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Static:
    """Arguments without their arrays: hashable, so that a compiled function can be kept for them."""

    tree: Any
    leaves: tuple[tuple[type, Any] | None, ...]  # with their types, as 1 == 1.0 == True

    def filled(self, arrays) -> tuple:
        it = iter(arrays)
        return jax.tree.unflatten(self.tree, [next(it) if x is None else x[1] for x in self.leaves])


def split(args: tuple) -> tuple[Static, list]:
    """What is static in the arguments, and their arrays. A program is traced anew only if the former differs.

    >>> static, arrays = split((np.ones(2), {"length": 3}))
    >>> static.filled([x + 1 for x in arrays])
    (array([2., 2.]), {'length': 3})
    """
    leaves, tree = jax.tree.flatten(args)
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    static = Static(tree, tuple(None if a else (type(x), x) for a, x in zip(is_array, leaves)))
    return static, [leaf for a, leaf in zip(is_array, leaves) if a]
