"""normalisation: programs that have no mass, or infinite mass, so that there is nothing to normalise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
from numpyro.distributions import ImproperUniform, MaskedDistribution

from ...ppl.laws import parts
from ...ppl.staging import Staged, stage
from ..branch import TooManyRuns, is_finite
from ..meaning import meaning
from .absolute_continuity import lost, observed
from .abstract import Abstract, Visit
from .finding import Finding
from .origins import Origins

_MOST_RUNS = 2**12  # that are added up to see whether any has weight


def impossible_factors(staged: Staged, abstract: Abstract | None = None) -> tuple[Finding, ...]:
    """An error for each factor that takes all mass, whatever is drawn."""
    if not staged.of_kind("factor"):
        return ()
    return _reasons(staged, abstract, "factor", lost)


def impossible_observations(staged: Staged, abstract: Abstract | None = None) -> tuple[Finding, ...]:
    """An error for each observed value outside the support of its distribution; a warning if only some branches
    observe it."""
    if not staged.of_kind("observe"):
        return ()
    return _reasons(staged, abstract, "observe", observed)


def improper(staged: Staged, abstract: Abstract | None = None) -> tuple[Finding, ...]:
    """Infinite mass: an error where it is proved, a warning where it depends on what weighs the draws.

    It is proved for a log weight of plus infinity, and for a uniform draw from an unbounded set that nothing weighs.
    A log weight that grows without bound, so that its expectation is infinite, is not seen.
    """
    abstract = Abstract(staged) if abstract is None else abstract
    found = {
        finding.where: finding for visit in abstract.visits for finding in _improper(visit, abstract, staged)
    }
    return tuple(found.values())


def no_mass(program: Callable, staged: Staged, *args, **kwargs) -> tuple[Finding, ...]:
    """An error if no run of a finite program has weight, by adding up all runs: for small programs whose arguments are
    at hand. Where other programs lose their mass is seen only if a single factor or observation takes all of it."""
    weights = staged.of_kind("factor", "observe")
    if not weights or not is_finite(staged) or any(isinstance(x, jax.core.Tracer) for x in staged.leaves):
        return ()
    try:
        total = meaning(program, most=_MOST_RUNS)(*args, **kwargs).total
    except TooManyRuns:
        return ()
    if total > 0:
        return ()
    what = "no run has weight: the total mass is 0" if total == 0 else f"the total mass is {total}"
    remedy = "look for factors and observations that rule each other out; inference.enumerate shows every run"
    return (Finding("error", what, str(weights[-1]), remedy),)


def normalisation(program: Callable) -> Callable:
    """``(*args) -> findings``: whether a program surely has no mass, or infinite mass.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl
    >>> def model():
    ...     ppl.observe("wait", dist.Exponential(1.0), -2.0)
    >>> [finding.severity for finding in normalisation(model)()]
    ['error']
    """

    def found(*args, **kwargs) -> tuple[Finding, ...]:
        staged = stage(program, *args, **kwargs)
        abstract = Abstract(staged)
        static = [
            check(staged, abstract) for check in (impossible_factors, impossible_observations, improper)
        ]
        findings = tuple(finding for part in static for finding in part)
        return findings or no_mass(program, staged, *args, **kwargs)

    return found


# ------------------------------------------------------------------------- helpers


def _reasons(staged: Staged, abstract: Abstract | None, kind: str, ask: Callable) -> tuple[Finding, ...]:
    abstract = Abstract(staged) if abstract is None else abstract
    found = {}
    for visit in abstract.visits:
        answer = ask(abstract, visit) if visit.kind == kind else None
        if answer is None or answer.verdict != "no" or (kind == "factor" and not visit.certain):
            continue  # in a branch, a factor that rejects is as it should be
        severity = "error" if visit.certain else "warning"
        consequence = "the program has no mass" if visit.certain else "runs that get here have no weight"
        what = f"{answer.why}: {consequence}"
        found[str(visit.site)] = Finding(severity, what, str(visit.site), _REMEDIES[kind])
    return tuple(found.values())


_REMEDIES = {
    "factor": "check the expression: a log weight is the log of a positive number, such as 0.0 for no change",
    "observe": "check the value and the distribution's parameters: the value must be in the support",
}


def _improper(visit: Visit, abstract: Abstract, staged: Staged) -> Iterator[Finding]:
    where = str(visit.site)
    if visit.kind == "factor" and visit.certain:
        b = visit.value("log_weight").bounds
        if np.any(b.lower == np.inf) and not b.open_below and not b.nan:
            what = "the log weight is plus infinity, whatever is drawn: the total mass is infinite"
            yield Finding("error", what, where, _REMEDIES["factor"])
    if visit.kind != "sample":
        return
    laws = list(parts(visit.site.effect(visit.operands).distribution))
    if any(isinstance(law, MaskedDistribution) for law in laws):
        what = "its density is switched off in part (.mask) but its draws are not, so that they are of two measures"
        yield Finding(
            "warning", what, where, "take the mask out, or draw the two parts at sites of their own"
        )
    if any(isinstance(law, ImproperUniform) for law in laws) and _unbounded(visit, abstract):
        yield _flat(visit, staged)


def _unbounded(visit: Visit, abstract: Abstract) -> bool:
    region = abstract.region(visit)
    low, high = region.lower.bounds, region.upper.bounds
    return bool(np.any(low.upper == -np.inf) or np.any(high.lower == np.inf))


def _flat(visit: Visit, staged: Staged) -> Finding:
    """What to say of a uniform draw from an unbounded set."""
    origins = Origins(staged)
    weighed = {
        place for origin in origins.sites.values() if origin.kind != "sample" for place in origin.sources
    }
    frontier = set(weighed)
    while frontier:
        frontier = {p for place in frontier for p in origins.sites[place].sources} - weighed
        weighed |= frontier
    own = {place for place, origin in origins.sites.items() if str(origin.site) == str(visit.site)}
    remedy = "give it a prior that integrates to one"
    if own & weighed or not visit.certain:
        what = (
            "it is uniform on an unbounded set: the total mass is finite only if what weighs it makes it so"
        )
        return Finding("warning", what, str(visit.site), remedy)
    what = "it is uniform on an unbounded set and nothing weighs it: the total mass is infinite"
    return Finding("error", what, str(visit.site), remedy)
