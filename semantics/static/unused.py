"""unused: draws on which nothing depends."""

from __future__ import annotations

from ...ppl.staging import Staged
from .finding import Finding
from .origins import Origins


def unused(staged: Staged) -> tuple[Finding, ...]:
    """A note for each ``sample`` site whose value flows into nothing that is returned and into no other site.

    Such a draw is right in a program that is to be conditioned on it. Otherwise it is superfluous, or an observation
    was meant: a ``sample`` does not weigh.

    >>> from borelax import ppl
    >>> from borelax.ppl.staging import stage
    >>> import numpyro.distributions as dist
    >>> def model():
    ...     ppl.sample("y", dist.Normal(ppl.sample("x", dist.Normal(0.0, 1.0)), 1.0))
    >>> [finding.where.split()[0] for finding in unused(stage(model))]
    ["'y'"]
    """
    origins = Origins(staged)
    used = set(origins.returned)
    for place, origin in origins.sites.items():
        used |= (origin.sources | origin.proposal) - {place}
    by_line = {
        str(origin.site): Finding(
            "note",
            "nothing depends on this draw: no output, factor, observation or other site",
            str(origin.site),
            "condition the program on it, or write ppl.observe if it was meant to weigh; else take it out",
        )
        for place, origin in origins.sites.items()
        if origin.kind == "sample" and place not in used
    }
    return tuple(by_line.values())
