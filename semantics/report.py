"""Report: what a check compared, how far off it was, how sure that is, and where it went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax

from ..ppl import BorelaxError, Trace
from ..ppl.summary import one_line
from ..ppl.table import Table


class CheckFailed(BorelaxError, AssertionError):
    """What a check claims does not hold. Its ``report`` says where."""

    def __init__(self, report: Report):
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class Counterexample:
    """Where a claim fails.

    Attributes:
      program: the name of the program.
      args: its arguments.
      where: the value at which two measures differ, or the test function.
      expected, found: what it should have there and what it has.
    """

    program: str
    args: tuple
    where: Any
    expected: Any
    found: Any

    def __str__(self) -> str:
        arguments = f" at arguments {', '.join(map(spell, self.args))}" if self.args else ""
        return f"{self.program}{arguments}: at {spell(self.where)} {_number(self.found)}, not {_number(self.expected)}"


@dataclass(frozen=True, repr=False)
class Report:
    """The outcome of a check.

    Attributes:
      claim: what was checked, in words.
      holds: whether nothing speaks against it: exactly, or at the false-alarm rate.
      error: how far off, in the unit that ``unit`` names.
      unit: "total variation distance", ...
      how: how sure that is, in words: "exact, over 24 values", or the number of draws and the false-alarm rate.
      p_value: for a statistical check, a p-value that is valid whenever it stops; 0 or 1 for an exact one.
      counterexample: where it fails; None if it holds.
      details: the largest differences, ``(where, expected, found)``.
    """

    claim: str
    holds: bool
    error: float
    unit: str
    how: str
    p_value: float
    counterexample: Counterexample | None = None
    details: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.holds

    def assert_holds(self) -> Report:
        """Raises :class:`CheckFailed` unless the claim holds; returns the report."""
        if not self.holds:
            raise CheckFailed(self)
        return self

    def __repr__(self) -> str:
        lines = [self._title(), f"  {self.how}; {self.unit} {_number(self.error)}"]
        if self.counterexample is not None:
            lines.append(f"  counterexample: {self.counterexample}")
        return "\n".join([*lines, *(f"  {line}" for line in self._table(""))])

    def _repr_html_(self) -> str:
        title = f"{self._title()} — {self.how}; {self.unit} {_number(self.error)}"
        return Table(("where", "expected", "found"), self.details, title)._repr_html_()

    def _title(self) -> str:
        return f"{'HOLDS' if self.holds else 'FAILS'}  {self.claim}"

    def _table(self, title: str) -> list[str]:
        if not self.details:
            return []
        return repr(Table(("where", "expected", "found"), self.details, title)).splitlines()[1:]


def asserting(check: Callable) -> Callable:
    """The form of a check that raises :class:`CheckFailed` where its claim does not hold.

    >>> never = lambda: lambda: Report("one is two", False, 1.0, "difference", "exact", 0.0)
    >>> asserting(never)()()
    Traceback (most recent call last):
      ...
    borelax.semantics.report.CheckFailed: FAILS  one is two
      exact; difference 1
    """

    @wraps(check)
    def asserted(*what, **options) -> Callable:
        return lambda *args, **kwargs: check(*what, **options)(*args, **kwargs).assert_holds()

    asserted.__doc__ = (
        f"Like :func:`{name_of(check)}`, but raises :class:`CheckFailed` where its claim does not hold."
    )
    return asserted


def name_of(thing) -> str:
    """What a report calls a program or a transformation."""
    name = getattr(thing, "__name__", None) or getattr(getattr(thing, "func", None), "__name__", None)
    return name if name and name != "<lambda>" else "the program" if name else type(thing).__name__


def spell(value) -> str:
    """A value in one line; of a trace, its choices."""
    if isinstance(value, str):
        return value
    choices = lambda x: x.choices if isinstance(x, Trace) else x  # noqa: E731
    return one_line(jax.tree.map(choices, value, is_leaf=lambda x: isinstance(x, Trace)))


def _number(x) -> str:
    return f"{x:.4g}" if isinstance(x, float) else spell(x)
