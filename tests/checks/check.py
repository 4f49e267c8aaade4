"""A check of an algorithm: what the library must pass, and a mutant of it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from borelax.semantics import Report


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
      name: what mutants call it by.
      of: the public names that it is a check of, such as "inference.smc".
      run: ``lib -> Report``, for the packages of a library: ``lib.ppl``, ``lib.inference``, ...
    """

    name: str
    of: tuple[str, ...]
    run: Callable[[SimpleNamespace], Report]


def check(*of: str) -> Callable[[Callable], Check]:
    """Makes a function of a library a check of these public names."""
    return lambda run: Check(run.__name__, of, run)


def near(lib, claim: str, found, right, tolerance: float) -> Report:
    """Whether numbers are what they should be, up to what rounding, or quantiles in place of draws, leave open."""
    error = float(np.max(np.abs(np.asarray(found) - np.asarray(right))))
    return lib.semantics.Report(
        claim, error < tolerance, error, "largest difference", f"within {tolerance}", float(error < tolerance)
    )
