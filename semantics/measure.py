"""Measure: finitely many values with weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..ppl import Masked
from ..ppl.choices import align
from ..ppl.summary import one_line
from ..ppl.table import Bar, Table

TOLERANCE = 1e-10
_GOLDEN = (np.sqrt(5.0) - 1) / 2


@dataclass(frozen=True)
class Difference:
    """A value to which two measures give different weights."""

    value: Any
    one: float
    other: float

    def __str__(self) -> str:
        return f"{one_line(self.value)}: {self.one:.6g} and {self.other:.6g}"


class Measure:
    """A finite measure: distinct values, pytrees of one structure, with weights in float64, not normalised.

    Where a :class:`~borelax.ppl.Masked` leaf is not present its value does not count.

    >>> coin = Measure([0, 1], [0.5, 0.5])
    >>> heads = (coin * coin).map(lambda pair: pair[0] + pair[1])
    >>> heads
    Measure on 3 values, total mass 1
      0.25  0
      0.5  1
      0.25  2
    >>> heads.distance(Measure([0, 1, 2], [0.25, 0.25, 0.25]))
    0.25
    """

    def __init__(self, values: Sequence, weights: Sequence[float]):
        values = list(values)
        if len(values) != len(weights):
            raise ValueError(f"{len(values)} values and {len(weights)} weights: each value has one weight")
        self._merge(_stack(values), np.asarray(weights, np.float64))

    @classmethod
    def of(cls, values, log_weights) -> Measure:
        """From values with a leading axis and their log weights; equal values are merged, null ones dropped."""
        return cls.stacked(values, np.exp(np.asarray(log_weights, np.float64)))

    @classmethod
    def stacked(cls, values, weights) -> Measure:
        """From values with a leading axis and their weights."""
        self = cls.__new__(cls)
        self._merge(values, np.asarray(weights, np.float64))
        return self

    def _merge(self, values, weights: np.ndarray) -> None:
        """From values with a leading axis: equal ones become one, in order of their first appearance."""
        leaves, self._tree = jax.tree.flatten(present_only(jax.tree.map(np.asarray, values)))
        here = np.flatnonzero(weights)
        leaves = [leaf[here] for leaf in leaves]
        _, first, group = np.unique(_rows(leaves, len(here)), return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        self._leaves = [leaf[first[order]] for leaf in leaves]
        self.weights = np.bincount(group, weights[here], len(first))[order]

    @property
    def values(self) -> list:
        """The values, each with positive weight."""
        return [self._value(i) for i in range(len(self))]

    @property
    def stack(self):
        """The values as one pytree with a leading axis."""
        return jax.tree.unflatten(self._tree, self._leaves)

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        return iter(zip(self.values, self.weights.tolist()))

    def __len__(self) -> int:
        return len(self.weights)

    # ------------------------------------------------------------------ what it says

    @property
    def total(self) -> float:
        """The total mass: the evidence."""
        return float(self.weights.sum())

    def expectation(self, f: Callable = lambda x: x):
        """The integral of ``f`` (unnormalised): ``sum_i w_i f(x_i)``, in float64."""
        terms = [jax.tree.map(lambda x, w=w: w * np.asarray(x, np.float64), f(x)) for x, w in self]
        return jax.tree.map(lambda *xs: np.sum(xs, axis=0), *terms)

    # ------------------------------------------------------------------ measures from measures

    def normalise(self) -> Measure:
        """The probability measure in proportion.

        Raises:
          ZeroDivisionError: the total mass is zero.
        """
        if self.total == 0:
            raise ZeroDivisionError("a measure of total mass zero cannot be normalised")
        return self._reweighted(self.weights / self.total)

    def map(self, f: Callable) -> Measure:
        """The pushforward: the measure of ``f(x)`` where x has this one."""
        return Measure([f(x) for x in self.values], self.weights)

    def bind(self, kernel: Callable[[Any], Measure]) -> Measure:
        """The measure of y where x has this one and y has ``kernel(x)``."""
        pairs = [(y, w * v) for x, w in self for y, v in kernel(x)]
        return Measure([y for y, _ in pairs], [w for _, w in pairs])

    def __mul__(self, other: Measure) -> Measure:
        """The product measure, on pairs."""
        return self.bind(lambda x: other.map(lambda y: (x, y)))

    def __rmul__(self, factor: float) -> Measure:
        return self._reweighted(factor * self.weights)

    def __add__(self, other: Measure) -> Measure:
        return Measure([*self.values, *other.values], [*self.weights, *other.weights])

    # ------------------------------------------------------------------ comparison

    def distance(self, other: Measure) -> float:
        """The total variation distance: the largest ``|mu(A) - nu(A)|`` over all sets A of values.

        Floats in values count as equal if they agree to ten digits or to ten decimals (five, if they are not double),
        for they may have been computed in another order. NaN if a weight is: that equals nothing.
        """
        gap = np.array([d.one - d.other for d in self.differences(other)])
        if np.isnan(gap).any():
            return float("nan")
        return float(max(gap[gap > 0].sum(), -gap[gap < 0].sum(), 0.0))

    def differences(self, other: Measure, tolerance: float = 0.0) -> list[Difference]:
        """The values whose weights differ by more than ``tolerance``, the largest difference first; before these, those
        whose weights are not numbers."""
        if self and other and self._tree != other._tree:
            raise TypeError(
                f"the values of two measures have different structures: {self._tree} and {other._tree}"
            )
        keys = [_rounded_keys(m._leaves, len(m)) for m in (self, other)]
        joint: dict[bytes, list] = {}
        for side, (measure, rows) in enumerate(zip((self, other), keys)):
            for i, key in enumerate(rows):
                joint.setdefault(key, [(measure, i), 0.0, 0.0])[1 + side] += float(measure.weights[i])
        size = lambda entry: np.nan_to_num(abs(entry[1] - entry[2]), nan=np.inf)  # noqa: E731
        apart = sorted((entry for entry in joint.values() if size(entry) > tolerance), key=size, reverse=True)
        return [Difference(measure._value(i), one, two) for (measure, i), one, two in apart]

    def equals(self, other: Measure, tolerance: float = TOLERANCE) -> bool:
        """Whether the total variation distance is at most ``tolerance`` times the larger total mass (or times 1)."""
        return self.distance(other) <= tolerance * max(1.0, self.total, other.total)

    def __eq__(self, other) -> bool:
        return self.equals(other) if isinstance(other, Measure) else NotImplemented

    __hash__ = None  # equality is up to rounding

    # ------------------------------------------------------------------ how it looks

    def __repr__(self) -> str:
        rows = [f"  {weight:.6g}  {value}" for value, weight in self._first(20)]
        rest = [f"  ... and {len(self) - 20} more"] if len(self) > 20 else []
        return "\n".join([self._title(), *rows, *rest])

    def _repr_html_(self) -> str:
        top = max(self.weights.max(initial=0.0), np.finfo(float).tiny)
        rows = [(Bar(weight / top), f"{weight:.6g}", str(value)) for value, weight in self._first(20)]
        rest = [("", "", f"… and {len(self) - 20} more")] if len(self) > 20 else []
        return Table(("", "weight", "value"), (*rows, *rest), self._title())._repr_html_()

    def _title(self) -> str:
        return f"Measure on {len(self)} values, total mass {self.total:.6g}"

    def _first(self, count: int) -> Iterator[tuple[Any, float]]:
        return ((self._value(i), float(w)) for i, w in itertools.islice(enumerate(self.weights), count))

    def _value(self, i: int):
        return jax.tree.unflatten(self._tree, [leaf[i] for leaf in self._leaves])

    def _reweighted(self, weights: np.ndarray) -> Measure:
        return self.stacked(self.stack, weights)


# ------------------------------------------------------------------------- helpers


def _stack(values: list):
    if not values:
        return []
    structures = {jax.tree.structure(value) for value in values}
    if len(structures) > 1:
        raise TypeError(
            f"the values of a measure have one structure, got {' and '.join(map(str, structures))}"
        )
    return jax.tree.map(lambda *xs: np.stack([np.asarray(x) for x in xs]), *values)


def present_only(values):
    """Values in which all that is :class:`~borelax.ppl.Masked` and not present is zero, and so tells none apart."""

    def one(x):
        if not isinstance(x, Masked):
            return x
        here = lambda leaf: np.where(align(x.present, leaf), leaf, np.zeros((), leaf.dtype))  # noqa: E731
        return Masked(jax.tree.map(here, x.value), x.present)

    return jax.tree.map(one, values, is_leaf=lambda x: isinstance(x, Masked))


def _rows(leaves: list[np.ndarray], count: int) -> np.ndarray:
    """The bits of each value as one item, ``[count]``; those of 0.0 and -0.0 are the same, and those of all NaN."""
    parts = [np.zeros((count, 1), np.uint8)]
    for leaf in leaves:
        if np.issubdtype(leaf.dtype, np.floating):
            leaf = np.where(np.isnan(leaf), np.array(np.nan, leaf.dtype), leaf + 0.0)
        flat = np.ascontiguousarray(leaf.reshape(count, math.prod(leaf.shape[1:])))
        parts.append(flat.view(np.uint8) if flat.size else parts[0][:, :0])
    rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return rows.view(np.dtype((np.void, rows.shape[1]))).reshape(count)


def _rounded_keys(leaves: list[np.ndarray], count: int) -> list[bytes]:
    rounded = []
    for leaf in leaves:
        if np.issubdtype(leaf.dtype, np.floating):
            x = leaf.astype(np.float64)
            finite = np.isfinite(x)
            size = np.maximum(np.abs(np.where(finite, x, 1.0)), 1.0)
            bits = 33 if leaf.dtype == np.float64 else 17  # ten digits or five
            unit = 2.0 ** (np.floor(np.log2(size)) - bits)
            # An irrational share is added, so that values in common use are not halfway between two that are kept.
            leaf = np.where(finite, np.floor(np.where(finite, x, 0.0) / unit + _GOLDEN) * unit, x)
        elif np.issubdtype(leaf.dtype, np.integer):
            leaf = leaf.astype(np.int64)  # widened or not, the same value
        rounded.append(leaf)
    return [row.tobytes() for row in _rows(rounded, count)]
