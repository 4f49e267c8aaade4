"""Families of like cases, of which some are enough from day to day."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def family(cases: Iterable, every: int = 3) -> list:
    """The cases of a parametrized test. All but each third one are for ``make test-all`` alone.

    >>> [getattr(case, "values", case) for case in family("abcd")]
    ['a', ('b',), ('c',), 'd']
    """
    spared = pytest.mark.thorough
    return [
        case if i % every == 0 else pytest.param(*_arguments(case), marks=spared)
        for i, case in enumerate(cases)
    ]


def _arguments(case) -> tuple:
    return case if isinstance(case, tuple) else (case,)
