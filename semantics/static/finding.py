"""Finding: what a check has to say about one place of a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...ppl.summary import count
from ...ppl.table import Table

Severity = Literal["error", "warning", "note"]
_RANK = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, repr=False)
class Finding:
    """What is wrong, where, and what to do.

    Attributes:
      severity: "error" for what is proved wrong, "warning" for what may be, "note" for what is worth knowing.
      what: in one sentence.
      where: the site and its source line, as ``str`` of a site spells them: ``'block/x' (model.py:12)``.
      remedy: what to do.

    >>> Finding("warning", "nothing depends on this draw", "'x' (model.py:12)", "remove it")
    warning: 'x' (model.py:12): nothing depends on this draw; remove it
    """

    severity: Severity
    what: str
    where: str
    remedy: str

    def __repr__(self) -> str:
        return f"{self.severity}: {self.where}: {self.what}; {self.remedy}"


@dataclass(frozen=True, repr=False)
class Review:
    """The findings of a look at a program, with the errors first.

    Attributes:
      title: what was checked.
      looked_at: what was looked for: in words, since it has to be said when nothing is found.

    >>> Review("model", "draws that nothing depends on", ())
    model: nothing found
      looked at: draws that nothing depends on
    """

    title: str
    looked_at: str
    findings: tuple[Finding, ...]

    def __post_init__(self):
        ordered = tuple(sorted(self.findings, key=lambda finding: _RANK[finding.severity]))
        object.__setattr__(self, "findings", ordered)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __repr__(self) -> str:
        lines = [self._headline(), f"  looked at: {self.looked_at}"]
        for finding in self.findings:
            lines += [
                f"  {finding.severity} at {finding.where}",
                f"    {finding.what}",
                f"    what to do: {finding.remedy}",
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = tuple((f.severity, f.where, f.what, f.remedy) for f in self.findings)
        title = f"{self._headline()} (looked at: {self.looked_at})"
        return Table(("severity", "where", "what", "what to do"), rows, title)._repr_html_()

    def _headline(self) -> str:
        found = count(len(self.findings), "finding") if self.findings else "nothing found"
        return f"{self.title}: {found}"
