"""Whether a transformation of programs keeps what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .budget import Budget
from .denoted import Reading, members
from .properly_weighted import stands_for
from .report import Report, asserting, name_of
from .small_programs import SMALL_PROGRAMS


def preserves(
    transformation: Callable,
    program: Callable | None = None,
    budget: Budget | None = None,
    read: Reading = members,
) -> Callable:
    """``(*args) -> Report``: whether ``transformation(program)`` denotes the same measure as ``program``.

    The transformed program may return what the program returns, a trace, or a population, which stands for the measure
    of its members on average; with ``read=semantics.weighted``, a value and its log weight.

    Without a program the transformation is tried on many small ones, and a counterexample is the smallest of them.

    Exact if both programs are finite, else by a test: see :func:`~borelax.semantics.properly_weighted`.

    Source: Ścibior et al., *Denotational validation of higher-order Bayesian inference*, POPL 2018.

    >>> from borelax import inference, ppl, semantics
    >>> semantics.preserves(ppl.trace)().holds
    True
    >>> forgetful = lambda program: ppl.do(program, {"x": 1}) if program.__name__ == "coin" else program
    >>> semantics.preserves(forgetful)().counterexample.program
    'coin'
    """
    name = name_of(transformation)
    if program is not None:
        claim = f"{name} preserves {name_of(program)}"
        return stands_for(claim, transformation(program), program, budget, read)

    def checked() -> Report:
        reports: list[Report] = []
        for small in SMALL_PROGRAMS:
            reports.append(preserves(transformation, small, budget, read)())
            if not reports[-1].holds:
                return reports[-1]
        return _all(reports, name)

    return checked


assert_preserves = asserting(preserves)


def _all(reports: list[Report], transformation: str) -> Report:
    """One report on many that hold."""
    worst = max(reports, key=lambda report: report.error)
    claim, how = f"{transformation} preserves {len(reports)} small programs", f"each {worst.how}"
    if all(report.how.startswith("exact") for report in reports):
        how = "exact"
    return replace(worst, claim=claim, how=how)
