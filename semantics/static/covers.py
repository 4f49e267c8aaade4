"""covers: whether one distribution has mass wherever another has, by their regions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .bounds import Bounds
from .region import Region

_SLACK = 1e-6  # what is apart by less, relative to its size, may be equal: bounds are not those of the program's floats
_MOST_VALUES = 2**10  # of a distribution, that are compared one by one


@dataclass(frozen=True)
class Answer:
    """ "yes", "no" or "unknown", and why."""

    verdict: str
    why: str = ""


YES = Answer("yes")


def covers(outer: Region, inner: Region) -> Answer:
    """Whether ``inner`` is absolutely continuous with respect to ``outer``: what has no mass there has none here.

    The arrays of both regions are values of passes that share their terms.
    """
    if outer.family == inner.family:
        outer = replace(outer, family=f"the other {outer.family}")
    if "unknown" in (outer.measure, inner.measure):
        return Answer("unknown", f"not enough is known of the supports of {inner.family} and {outer.family}")
    measures = {outer.measure, inner.measure}
    if measures == {"atom"}:
        return _same_point(outer, inner)
    if measures == {"atom", "counting"} or measures == {"counting"}:
        return _covers_counting(outer, inner)
    if len(measures) == 1:
        return _covers_set(outer, inner)
    kinds = [f"{r.family} ({_KINDS.get(r.measure, f'on the {r.measure}')})" for r in (inner, outer)]
    return Answer("no", f"{kinds[0]} and {kinds[1]} have different base measures")


_KINDS = {"counting": "discrete", "Lebesgue": "continuous", "atom": "constant"}


def _same_point(outer: Region, inner: Region) -> Answer:
    one, other = inner.lower, outer.lower
    if one.number == other.number or _surely_equal(one, other):
        return YES
    if np.any(_below(one, other)) or np.any(_below(other, one)):
        return Answer("no", "two Delta are at different values")
    return Answer("unknown", "two Delta may be at different values, which are computed in different ways")


def _covers_counting(outer: Region, inner: Region) -> Answer:
    """Value by value, if there are few; else by bounds."""
    if inner.masses is not None and outer.masses is not None and inner.masses.number == outer.masses.number:
        return YES
    by_set = Answer("unknown", f"{inner.family} may have mass where {outer.family} has none")
    if outer.measure == "atom" and inner.everywhere and np.any(_below(inner.lower, inner.upper)):
        return Answer("no", f"{inner.family} has several values, of which a Delta is one")
    if "atom" not in (outer.measure, inner.measure):
        by_set = _covers_set(outer, inner)
    first, last = inner.lower.bounds.lower.min(initial=np.inf), inner.upper.bounds.upper.max(initial=-np.inf)
    if by_set.verdict == "yes" or "counts" in (outer.shape, inner.shape) or not last - first < _MOST_VALUES:
        return by_set
    values = np.arange(first, last + 1)
    has, may = _probable(inner, values)
    covered, touched = _probable(outer, values)
    missed = has & ~touched
    if np.any(missed):
        value = values[np.argwhere(missed)[0][-1]]
        return Answer("no", f"{inner.family} has probability at {value:.0f}, where {outer.family} has none")
    return by_set if np.any(may & ~covered) else YES


def _probable(region: Region, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where there surely is probability, and where there may be: ``[..., len(values)]``."""
    low, high = region.lower.bounds, region.upper.bounds
    inside = (values >= low.lower[..., None]) & (values <= high.upper[..., None])
    if region.masses is None:
        surely = (values >= low.upper[..., None]) & (values <= high.lower[..., None])
        return surely & region.everywhere, inside
    b = region.masses.bounds
    if np.ndim(b.upper) == 0:
        return inside & bool(b.positive), inside & bool(b.upper > 0)
    place = np.clip(values, 0, b.upper.shape[-1] - 1).astype(int)
    return inside & b.positive[..., place], inside & (b.upper > 0)[..., place]


def _covers_set(outer: Region, inner: Region) -> Answer:
    """Of boxes and what is in them."""
    same_bounds = inner.lower.number == outer.lower.number and inner.upper.number == outer.upper.number
    if outer.shape == "counts" and inner.shape == "counts" and not same_bounds:
        if np.any(_below(inner.upper, outer.upper)) or np.any(_below(outer.upper, inner.upper)):
            return Answer("no", f"{inner.family} and {outer.family} have different totals")
        if not _surely_equal(inner.upper, outer.upper):
            return Answer("unknown", "the totals may be different: they depend on other values")
    reaches_out = [_below(inner.lower, outer.lower), _below(outer.upper, inner.upper)]
    if (np.any(reaches_out[0]) or np.any(reaches_out[1])) and inner.everywhere:
        side = "below" if np.any(reaches_out[0]) else "above"
        supports = f"{_spell(inner)} against {_spell(outer)}"
        return Answer("no", f"{inner.family} has mass {side} the support of {outer.family}: {supports}")
    within = same_bounds or _within(inner, outer)
    shaped = outer.shape in ("box", inner.shape)
    if within and shaped and outer.everywhere:
        return YES
    if not outer.full:
        return Answer("unknown", f"{outer.family} may lack mass in parts of its support")
    if not outer.everywhere:
        return Answer("unknown", f"a parameter of {outer.family} may be at the end of its range")
    if not shaped:
        return Answer("unknown", f"not all values of {inner.family} need be values of {outer.family}")
    return Answer("unknown", f"the bounds depend on other values: {_spell(inner)} against {_spell(outer)}")


def _within(inner: Region, outer: Region) -> bool:
    low = np.all(outer.lower.bounds.upper <= inner.lower.bounds.lower)
    high = np.all(outer.upper.bounds.lower >= inner.upper.bounds.upper)
    below = bool(low) or inner.lower.number == outer.lower.number
    return below and (bool(high) or inner.upper.number == outer.upper.number)


def _below(one, other) -> np.ndarray:
    """Where one value is surely less than another, by more than rounding."""
    upper, lower = one.bounds.upper, other.bounds.lower
    with np.errstate(invalid="ignore"):
        slack = _SLACK * (1.0 + np.minimum(np.abs(upper), np.abs(lower)))
        return (upper + np.where(np.isfinite(slack), slack, 0.0) < lower) & (
            not (one.bounds.nan or other.bounds.nan)
        )


def _surely_equal(one, other) -> bool:
    both_known = one.bounds.known and other.bounds.known
    return both_known and bool(np.all(one.bounds.lower == other.bounds.lower))


def _spell(region: Region) -> str:
    low, high = region.lower.bounds, region.upper.bounds
    return f"[{_end(low)}, {_end(high)}]"


def _end(b: Bounds) -> str:
    if not b.known:
        return "?"
    ends = np.unique(b.lower)
    return f"{ends[0]:.4g}" if len(ends) == 1 else f"{ends[0]:.4g}..{ends[-1]:.4g}"
