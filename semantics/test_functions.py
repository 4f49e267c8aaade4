"""Bounded test functions of any value: what two laws are compared by."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import numpy as np

from .measure import present_only

_FEW = 8  # distinct values of a coordinate, up to which each is looked at; coordinates, up to which all pairs are
_LEVELS = (0.1, 0.35, 0.65, 0.9)


def coordinates(values, leading: int) -> tuple[np.ndarray, list[str]]:
    """Values with ``leading`` axes in front as real vectors, ``float64[..., d]``, and the names of the coordinates.

    >>> x, names = coordinates({"a": np.zeros((5, 2)), "b": np.ones(5, bool)}, leading=1)
    >>> x.shape, names
    ((5, 3), ["['a'][0]", "['a'][1]", "['b']"])
    """
    values = present_only(jax.tree.map(np.asarray, values))
    columns, names = [], []
    for path, leaf in jax.tree_util.tree_flatten_with_path(values)[0]:
        leaf, inner = np.asarray(leaf, np.float64), np.shape(leaf)[leading:]
        columns.append(leaf.reshape(*leaf.shape[:leading], int(np.prod(inner))))
        name = jax.tree_util.keystr(path) or "x"
        names += [f"{name}[{','.join(map(str, index))}]" if index else name for index in np.ndindex(*inner)]
    if not columns:
        return np.zeros((1,) * leading + (0,)), names
    return np.concatenate(columns, axis=-1), names


@dataclass(frozen=True)
class TestFunctions:
    """Functions of d real coordinates with values in [-1, 1], fitted to the scale of a first sample.

    For each coordinate: its place and its spread, squashed; whether it equals each of its values, if they are few, or
    lies below each of some quantiles; and the products of the places of pairs.

    Attributes:
      names: what they are called.
    """

    __test__ = False  # for pytest: not a test of its own

    centre: np.ndarray
    scale: np.ndarray
    points: tuple[tuple[int, bool, float], ...]
    pairs: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, sample: np.ndarray, names: list[str]) -> TestFunctions:
        """From a sample ``[m, d]``; elements that are not finite are passed over."""
        finite = np.where(np.isfinite(sample), sample, np.nan)
        columns = [column[~np.isnan(column)] for column in finite.T]
        quartiles = np.array([np.quantile(c, [0.25, 0.5, 0.75]) if c.size else [0.0] * 3 for c in columns])
        quartiles = quartiles.reshape(-1, 3)
        spread = (quartiles[:, 2] - quartiles[:, 0]) / 1.35
        spread = np.where(spread > 0, spread, [c.std() if c.size else 0.0 for c in columns])
        points = []
        for j, column in enumerate(columns):
            distinct = np.unique(column)
            if 1 < distinct.size <= _FEW:
                points += [(j, True, float(v)) for v in distinct]
            elif distinct.size > _FEW:
                points += [(j, False, float(q)) for q in np.quantile(column, _LEVELS)]
        d = len(names)
        pairs = itertools.combinations(range(d), 2) if d <= _FEW else zip(range(d - 1), range(1, d))
        pairs = tuple(pairs)
        labels = [
            *names,
            *(f"spread of {name}" for name in names),
            *(f"{names[j]} {'=' if equal else '≤'} {at:.4g}" for j, equal, at in points),
            *(f"{names[i]} · {names[j]}" for i, j in pairs),
        ]
        return cls(quartiles[:, 1], np.where(spread > 0, spread, 1.0), tuple(points), pairs, tuple(labels))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """``[..., d]`` to ``[..., F]``. What is not a number is at the end of every scale."""
        with np.errstate(invalid="ignore", over="ignore"):
            z = (np.nan_to_num(x, nan=np.inf, posinf=np.inf, neginf=-np.inf) - self.centre) / self.scale
            place, spread = np.tanh(z / 2), 2 * np.tanh(z**2 / 4) - 1
        points = [
            np.where(x[..., j] == at if eq else x[..., j] <= at, 1.0, -1.0) for j, eq, at in self.points
        ]
        pairs = [place[..., i] * place[..., j] for i, j in self.pairs]
        rest = np.stack([*points, *pairs], -1) if points or pairs else np.zeros((*x.shape[:-1], 0))
        return np.concatenate([place, spread, rest], axis=-1)
