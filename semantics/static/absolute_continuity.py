"""absolute_continuity: whether one program puts mass only where another does, site by site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl.choices import Address, spell
from ...ppl.staging import Staged, stage
from ...ppl.table import Table
from ..report import name_of
from .abstract import Abstract, Terms, Visit
from .bounds import hull
from .covers import YES, Answer, covers
from .finding import Finding


@dataclass(frozen=True, repr=False)
class Direction:
    """Whether one program is absolutely continuous with respect to another, and why not.

    Attributes:
      claim: in words: ``"model << guide"``.
      verdict: "yes", "no" or "unknown".
      findings: an error for each reason for "no", a warning for each reason for "unknown".
    """

    claim: str
    verdict: str
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, claim: str, findings: tuple[Finding, ...]) -> Direction:
        severities = {finding.severity for finding in findings}
        verdict = "no" if "error" in severities else "unknown" if "warning" in severities else "yes"
        return cls(claim, verdict, findings)

    def __repr__(self) -> str:
        return "\n".join([f"{self.claim}: {self.verdict}", *(f"  {finding!r}" for finding in self.findings)])


@dataclass(frozen=True, repr=False)
class AbsoluteContinuity:
    """Both directions; see :func:`absolute_continuity`.

    Attributes:
      model_by_guide: whether the model is absolutely continuous with respect to the guide.
      guide_by_model: the reverse.
    """

    model_by_guide: Direction
    guide_by_model: Direction

    @property
    def findings(self) -> tuple[Finding, ...]:
        return (*self.model_by_guide.findings, *self.guide_by_model.findings)

    def __repr__(self) -> str:
        return f"{self.model_by_guide!r}\n{self.guide_by_model!r}"

    def _repr_html_(self) -> str:
        tables = []
        for direction in (self.model_by_guide, self.guide_by_model):
            rows = tuple((f.where, f.what, f.remedy) for f in direction.findings)
            title = f"{direction.claim}: {direction.verdict}"
            tables.append(Table(("where", "why", "what to do"), rows, title)._repr_html_())
        return "".join(tables)


def absolute_continuity(guide: Callable, model: Callable) -> Callable:
    """``(*args) -> AbsoluteContinuity``: does one of two programs put mass on traces on which the other has none?

    The measures are those of the programs on their traces, the values of their ``sample`` sites. Importance sampling of
    the model with the guide needs model << guide: every set of traces without mass under the guide has none under the
    model, or the weights miss a part of the model. A variational bound needs guide << model: elsewhere the log density
    of the model is minus infinity. Nothing is run; the programs are traced at the same arguments.

    Compared are the addresses, and at each address shape, dtype, base measure (counting, Lebesgue, that on a surface
    such as the simplex, an atom) and support, at the same values of what comes before. The one that is to have mass
    must not lose it by a factor or an observation.

    "yes" and "no" are proved, in exact arithmetic and for parameters that are valid; "no" also supposes that the
    program which is not covered has any mass. "unknown" comes with what it depends on: a bound that is computed from
    other values, a probability that may be 0, a site that only some branches have.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))
    >>> guide = lambda: ppl.sample("x", dist.LogNormal(0.0, 1.0))
    >>> found = semantics.absolute_continuity(guide, model)()
    >>> found.model_by_guide.verdict, found.guide_by_model.verdict
    ('no', 'yes')
    """

    def compared(*args, **kwargs) -> AbsoluteContinuity:
        terms = Terms()
        both = [Abstract(stage(program, *args, **kwargs), terms) for program in (guide, model)]
        names = [_named(program, role) for program, role in ((guide, "guide"), (model, "model"))]
        return AbsoluteContinuity(
            Direction.of(f"{names[1]} << {names[0]}", tuple(_compare(both[1], both[0], "model", "guide"))),
            Direction.of(f"{names[0]} << {names[1]}", tuple(_compare(both[0], both[1], "guide", "model"))),
        )

    return compared


def proposal_coverage(staged: Staged, abstract: Abstract | None = None) -> tuple[Finding, ...]:
    """Whether each site's own proposal has mass wherever its distribution does, as importance weighting needs: an error
    where it has not, a warning where that is unknown."""
    if not any(_has_proposal(info) for info in staged.of_kind("sample")):
        return ()
    abstract = Abstract(staged) if abstract is None else abstract
    found = {}
    for visit in abstract.visits:
        if visit.kind == "sample" and visit.site.effect(visit.operands).proposal is not None:
            answer = _same_law(visit) or covers(
                abstract.region(visit, of_proposal=True), abstract.region(visit)
            )
            if answer.verdict != "yes":
                proved = answer.verdict == "no" and visit.certain
                what = (
                    f"the proposal does not cover the distribution: {answer.why}"
                    if answer.verdict == "no"
                    else f"the proposal may not cover the distribution: {answer.why}"
                )
                found[str(visit.site), what] = Finding(
                    "error" if proved else "warning",
                    what,
                    str(visit.site),
                    "give it a proposal that has mass wherever the distribution has, or none",
                )
    return tuple(found.values())


# ------------------------------------------------------------------------- two programs


def _compare(inner: Abstract, outer: Abstract, inner_name: str, outer_name: str) -> Iterator[Finding]:
    """Reasons why ``inner`` may not be absolutely continuous with respect to ``outer``."""
    mine, theirs = _by_address(inner), _by_address(outer)
    remedy = f"let the {outer_name} have mass wherever the {inner_name} has"
    for address in {**mine, **theirs}:
        visits = [*mine.get(address, ()), *theirs.get(address, ())]
        where = f"{spell(address)!r} ({visits[0].site.source})"
        if address not in theirs or address not in mine:
            lacking = outer_name if address in mine else inner_name
            severity = "error" if any(v.certain for v in visits) else "warning"
            what = f"the {lacking} has no such site, so that its traces are of another kind"
            yield Finding(
                severity, what, where, f"give the {lacking} the site, or take it out of the other program"
            )
            continue
        answers = [_answer(visit, theirs[address], inner, outer) for visit in mine[address]]
        presence = _presence(mine[address], theirs[address])
        for verdict, why, certain in dict.fromkeys([*answers, *presence]):
            if verdict != "yes":
                yield Finding("error" if verdict == "no" and certain else "warning", why, where, remedy)
    yield from _losses(inner, outer, outer_name)


def _answer(visit: Visit, others: list[Visit], inner: Abstract, outer: Abstract) -> tuple[str, str, bool]:
    """How the other program covers a visit: verdict, reason, and whether every run gets there."""
    same_path = [other for other in others if other.path == visit.path] or others
    answers = [_site(visit, other, inner, outer) for other in same_path]
    verdicts = {answer.verdict for answer in answers}
    verdict = verdicts.pop() if len(verdicts) == 1 else "unknown"
    return verdict, next((answer.why for answer in answers if answer.why), ""), visit.certain


def _site(visit: Visit, other: Visit, inner: Abstract, outer: Abstract) -> Answer:
    if visit.shape != other.shape or _loops(visit) != _loops(other):
        return Answer(
            "no", f"a value has shape {_whole(visit)} in one program and {_whole(other)} in the other"
        )
    if _kind(visit.dtype) != _kind(other.dtype):
        return Answer("no", f"a value is {visit.dtype} in one program and {other.dtype} in the other")
    if any(plate.size is None for plate in (*visit.plates, *other.plates)):
        return Answer("unknown", "it is inside a while_loop, where the number of its values is not fixed")
    if _law(visit) == _law(other):
        return YES
    return covers(outer.region(other), inner.region(visit))


def _presence(mine: list[Visit], theirs: list[Visit]) -> list[tuple[str, str, bool]]:
    """Whether the two programs have the site in the same runs."""
    paths = [{visit.path for visit in visits} for visits in (mine, theirs)]
    always = [any(visit.certain for visit in visits) for visits in (mine, theirs)]
    if paths[0] == paths[1] or all(always):
        return []
    return [("unknown", "only some branches have it, and they need not be the same in both programs", False)]


def _losses(inner: Abstract, outer: Abstract, outer_name: str) -> Iterator[Finding]:
    """Where a factor or an observation may take away the mass that the outer program needs."""
    shared = {_weight(visit) for visit in inner.visits if visit.kind in ("factor", "observe")}
    remedy = f"make sure that it leaves the {outer_name} mass wherever the other program has some"
    seen = set()
    for visit in outer.visits:
        if visit.kind not in ("factor", "observe") or _weight(visit) in shared:
            continue
        loss = lost(outer, visit)
        if loss.verdict == "yes" or (visit.site, loss) in seen:
            continue
        seen.add((visit.site, loss))
        severity = "error" if loss.verdict == "no" and visit.certain else "warning"
        yield Finding(severity, f"in the {outer_name}, {loss.why}", str(visit.site), remedy)


def lost(program: Abstract, visit: Visit) -> Answer:
    """Whether a factor or an observation surely leaves mass ("yes"), or surely takes all of it ("no")."""
    if visit.kind == "factor":
        b = visit.value("log_weight").bounds
        if np.any(b.upper == -np.inf):
            return Answer("no", "the log weight is minus infinity, whatever is drawn")
        leaves = b.open_below or bool(np.all(b.lower > -np.inf))
        return YES if leaves and not b.nan else Answer("unknown", "the log weight may be minus infinity")
    return observed(program, visit)


def observed(program: Abstract, visit: Visit) -> Answer:
    """Whether an observed value is surely in the support ("yes"), or surely not ("no")."""
    region, value = program.region(visit), visit.value("value")
    if region.measure == "unknown":
        return Answer("unknown", f"not enough is known of the support of {region.family}")
    b = hull(value.bounds) if visit.site.axes else value.bounds  # axes that it lacks are not in front
    low, high = region.lower.bounds, region.upper.bounds
    strict_below, strict_above = region.strict
    slack = 1e-6 * (1.0 + np.abs(np.where(np.isfinite(b.lower), b.lower, 0.0)))
    under = (b.upper + slack < low.lower) | (strict_below & (b.upper == low.lower) & low.known & b.known)
    over = (b.lower - slack > high.upper) | (strict_above & (b.lower == high.upper) & high.known & b.known)
    if not b.nan and (np.any(under) or np.any(over)):
        side = "below" if np.any(under) else "above"
        return Answer("no", f"the observed value lies {side} the support of {region.family}")
    if region.masses is not None and b.known and _impossible(region, b):
        return Answer("no", f"the observed value has probability 0 under {region.family}")
    inside = np.all(b.lower >= low.upper) and np.all(b.upper <= high.lower)
    edge = (strict_below and np.any(b.lower == low.upper) and not b.open_below) or (
        strict_above and np.any(b.upper == high.lower) and not b.open_above
    )
    if (
        inside
        and not edge
        and not b.nan
        and region.shape == "box"
        and region.measure in ("Lebesgue", "counting")
    ):
        if region.everywhere:
            return YES
    return Answer("unknown", f"the observed value may lie where {region.family} has no mass")


def _impossible(region, b) -> bool:
    """Whether a known outcome surely has probability 0."""
    masses = region.masses.bounds.upper
    if np.ndim(masses) == 0:
        return bool(masses <= 0)
    outcome = np.broadcast_to(b.lower, masses.shape[:-1]).astype(int)
    inside = np.clip(outcome, 0, masses.shape[-1] - 1)
    return bool(np.any(np.take_along_axis(masses, inside[..., None], -1) <= 0))


# ------------------------------------------------------------------------- helpers


def _by_address(program: Abstract) -> dict[Address, list[Visit]]:
    found: dict[Address, list[Visit]] = defaultdict(list)
    for visit in program.visits:
        if visit.kind == "sample":
            found[visit.site.name].append(visit)
    return dict(found)


def _law(visit: Visit):
    """Equal for two visits whose values have the same distribution."""
    return _numbered(visit, "distribution")


def _same_law(visit: Visit) -> Answer | None:
    """Whether a site's proposal is its own distribution."""
    return YES if _numbered(visit, "distribution") == _numbered(visit, "proposal") else None


def _weight(visit: Visit):
    """Equal for two visits that weigh a run by the same."""
    effect = visit.site.effect([x.number for x in visit.operands])
    leaves, tree = jax.tree.flatten((effect.distribution, effect.value, effect.log_weight))
    return visit.kind, tree, tuple(leaves), visit.path, _axes(visit)


def _numbered(visit: Visit, part: str):
    leaves, tree = jax.tree.flatten(getattr(visit.site.effect([x.number for x in visit.operands]), part))
    return tree, tuple(leaves), _axes(visit)


def _axes(visit: Visit) -> tuple[int, ...]:
    return tuple(axis.size for axis in visit.site.axes)


def _loops(visit: Visit) -> tuple:
    return tuple(plate.size for plate in visit.plates)


def _whole(visit: Visit) -> tuple:
    return (*_loops(visit), *visit.shape)


def _kind(dtype) -> str:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jax.dtypes.prng_key)
    return next((kind.__name__ for kind in kinds if jnp.issubdtype(dtype, kind)), str(dtype))


def _has_proposal(info) -> bool:
    return info.site.effect(info.operands).proposal is not None


def _named(program: Callable, role: str) -> str:
    name = name_of(program)
    return role if name == "the program" else name
