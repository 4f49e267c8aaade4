"""From measures that should be equal, or from the outcome of a test, to a report."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..ppl import compat
from ..ppl.staging import stage
from .branch import TooManyRuns, is_finite
from .budget import Outcome
from .meaning import meaning, widened
from .measure import TOLERANCE, Measure
from .report import Counterexample, Report, spell

_SINGLE = 1e-5  # the tolerance for what is computed in float32
_MOST_RUNS = 2**16  # that a check adds up; one with more is left to a test


def exactly(
    claim: str, program: str, args: tuple, expected: Measure, found: Measure, tolerance: float = TOLERANCE
) -> Report:
    """The report on two measures that should be equal. The error is relative to the larger total mass if above 1."""
    apart = expected.differences(found)
    error = expected.distance(found) / max(1.0, expected.total, found.total)
    holds = error <= tolerance
    counterexample, details = None, ()
    if not holds:
        worst = apart[0]
        counterexample = Counterexample(program, args, worst.value, worst.one, worst.other)
        details = tuple((spell(d.value), f"{d.one:.6g}", f"{d.other:.6g}") for d in apart[:5])
    how = exact_over(max(len(expected), len(found)), tolerance)
    return Report(claim, holds, error, "total variation distance", how, float(holds), counterexample, details)


def exact_over(count: int, tolerance: float) -> str:
    """How an exact check knows, in words."""
    precision = ", in single precision" if tolerance > TOLERANCE else ""
    return f"exact, over {count} value{'' if count == 1 else 's'}{precision}"


def by_test(claim: str, program: str, args: tuple, outcome: Outcome, rate: float) -> Report:
    """The report on the outcome of a statistical test."""
    counterexample = None
    if outcome.rejected:
        where, one, other = outcome.details[0]
        counterexample = Counterexample(program, args, f"the mean of {where}", one, other)
    how = f"by a test on {outcome.draws} draws, p = {outcome.p_value:.2g} at a false-alarm rate of {rate:.2g}"
    if not outcome.rejected:
        how += f", which would have seen a difference of {outcome.bound:.2g}"
    details = tuple((where, f"{one:.4g}", f"{other:.4g}") for where, one, other in outcome.details)
    return Report(
        claim,
        not outcome.rejected,
        outcome.error,
        "largest difference seen",
        how,
        outcome.p_value,
        counterexample,
        details,
    )


def decide(
    programs: list[Callable], args: tuple, exact: Callable[..., Report], test: Callable[[], Report]
) -> Report:
    """The report of ``exact``, called with the measures of the programs if they are finite and have not too many runs;
    else that of ``test``. ``exact`` is told the tolerance too, which is wider where a program computes in float32 by
    itself."""
    if all(is_finite(stage(program, *args)) for program in programs):
        try:
            measures = [meaning(program, most=_MOST_RUNS)(*args) for program in programs]
        except TooManyRuns:
            return test()
        rounds = any(_rounds(program, args) for program in programs)
        return exact(*measures, tolerance=_SINGLE if rounds else TOLERANCE)
    return test()


def _rounds(program: Callable, args: tuple) -> bool:
    """Whether a program computes in less than double precision even where that is the default."""

    def single(jaxpr: compat.Jaxpr) -> bool:
        dtypes = (v.aval.dtype for eqn in jaxpr.eqns for v in eqn.outvars)
        floats = (dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))
        inner = (j for eqn in jaxpr.eqns for j in compat.inner_jaxprs(eqn))
        return any(jnp.finfo(dtype).bits < 64 for dtype in floats) or any(map(single, inner))

    with jax.enable_x64(True):
        return single(stage(program, *jax.tree.map(widened, args)).jaxpr.jaxpr)
