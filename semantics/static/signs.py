"""What bounds say of signs, wherever the values are finite numbers."""

from __future__ import annotations

import numpy as np

from .bounds import Bounds, hull


def above(x: Bounds, number: float) -> bool:
    """Whether all elements are greater than a number.

    >>> above(Bounds(np.float64(0), np.float64(1), open_below=True), 0.0)
    True
    """
    return bool(np.all((x.lower > number) | ((x.lower == number) & x.open_below)))


def below(x: Bounds, number: float) -> bool:
    """Whether all elements are less than a number."""
    return bool(np.all((x.upper < number) | ((x.upper == number) & x.open_above)))


def positive(x: Bounds) -> bool:
    return above(x, 0.0)


def nonzero(x: Bounds) -> bool:
    """Whether all elements are positive, or all are negative."""
    return above(x, 0.0) or below(x, 0.0)


def coarse(x: Bounds) -> Bounds:
    """Of the bounds by 0 and infinity, which are finitely many, the narrowest around these."""
    x = hull(x)
    lower, upper = np.float64(0 if x.lower >= 0 else -np.inf), np.float64(0 if x.upper <= 0 else np.inf)
    return Bounds(lower, upper, above(x, float(lower)), below(x, float(upper)), x.nan)
