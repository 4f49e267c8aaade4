"""check: what can be said against a program before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...ppl import UnsupportedError
from ...ppl.staging import Staged, stage
from ..report import name_of
from .absolute_continuity import AbsoluteContinuity, absolute_continuity, proposal_coverage
from .abstract import Abstract
from .finding import Finding, Review
from .key_reuse import key_reuse
from .normalisation import impossible_factors, impossible_observations, improper, no_mass
from .smoothness import smoothness
from .unused import unused


def check(program: Callable, guide: Callable | None = None) -> Callable:
    """``(*args) -> Review``: what is wrong with a program, as far as can be seen before it runs.

    Looked for are proposals and a guide that do not cover the program (:func:`absolute_continuity`), factors and
    observations that leave no mass, or infinite mass, PRNG keys that are used twice, draws that nothing depends on, and
    sites in which the density jumps (:func:`smoothness`).

    An error is proved: in exact arithmetic, for valid parameters. Nothing is run but small finite programs, whose runs
    are added up, and densities, to find jumps. That nothing is found does not mean that nothing is wrong.

    Args:
      program: any program.
      guide: a program to draw its sites from, for importance sampling or variational inference.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def model():
    ...     scale = ppl.sample("scale", dist.Gamma(2.0, 1.0), proposal=dist.Uniform(0.0, 5.0))
    ...     return ppl.observe("y", dist.Normal(0.0, scale), 1.5)
    >>> review = semantics.check(model)()
    >>> review.ok, [finding.severity for finding in review.findings]
    (False, ['error'])
    """

    def checked(*args, **kwargs) -> Review:
        staged = stage(program, *args, **kwargs)
        abstract = Abstract(staged)
        findings = [
            *proposal_coverage(staged, abstract),
            *impossible_factors(staged, abstract),
            *impossible_observations(staged, abstract),
            *improper(staged, abstract),
            *key_reuse(staged, abstract),
            *unused(staged),
            *smoothness(program)(*args, **kwargs).findings,
        ]
        if not any(finding.severity == "error" for finding in findings):
            findings += no_mass(program, staged, *args, **kwargs)
        looked_at = ["proposals", "mass", "PRNG keys", "unused draws", "smoothness"]
        if guide is not None:
            findings += _about_guide(absolute_continuity(guide, program)(*args, **kwargs))
            looked_at.insert(0, "the guide")
        return Review(name_of(program), ", ".join(looked_at), tuple(findings))

    return checked


def _about_guide(found: AbsoluteContinuity) -> Iterator[Finding]:
    """Each direction is needed by one kind of algorithm; an error is what is of no use to either."""
    useless = found.model_by_guide.verdict == found.guide_by_model.verdict == "no"
    for direction, user in (
        (found.model_by_guide, "importance sampling with this guide"),
        (found.guide_by_model, "a variational bound with this guide"),
    ):
        severity = "error" if useless and direction.verdict == "no" else "warning"
        for finding in direction.findings:
            verb = "is" if finding.severity == "error" else "may be"
            yield replace(finding, severity=severity, what=f"{user} {verb} wrong: {finding.what}")


def refuse(staged: Staged) -> None:
    """Raises UnsupportedError for a program with which weighted draws cannot be right: the part of :func:`check` that
    costs little, for inference to begin with.

    Raises:
      UnsupportedError: a proposal does not cover its distribution, or a factor leaves no mass; if that is proved.
    """
    relevant = staged.of_kind("factor") or any(_has_proposal(info) for info in staged.of_kind("sample"))
    if not relevant:
        return
    abstract = Abstract(staged)
    for finding in (*proposal_coverage(staged, abstract), *impossible_factors(staged, abstract)):
        if finding.severity == "error":
            raise UnsupportedError(_refusal(finding))


def _refusal(finding: Finding) -> str:
    return f"site {finding.where}: {finding.what}; {finding.remedy}. To go on all the same, pass check=False"


def _has_proposal(info) -> bool:
    return info.site.effect(info.operands).proposal is not None
