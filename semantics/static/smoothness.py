"""smoothness: whether a program's log density, or its value, is smooth in the values of its sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from ...ppl import select
from ...ppl.choices import Address, spell
from ...ppl.describe import effect_of
from ...ppl.effects import Site
from ...ppl.errors import SiteError
from ...ppl.staging import SiteInfo, Staged, stage
from ...ppl.summary import count
from ...ppl.table import Table
from .finding import Finding
from .probe import Probe, probe
from .smooth_flow import Cause, smooth_flow
from .smooth_rules import Break

Verdict = Literal["differentiable", "continuous", "possibly discontinuous", "discontinuous (confirmed)"]


def smoothness(
    program: Callable,
    *,
    of: Literal["density", "value"] = "density",
    sites: Iterable[str] | None = None,
    search: bool = True,
) -> Callable:
    """``(*args) -> Smoothness``: for each continuous ``sample`` site, whether the program is smooth in its value.

    Two questions can be asked. ``of="density"``: is the log density of the program (all terms, with factors and
    observations) smooth in the site's value, the values of the other sites held fixed? A kernel that follows gradients
    asks this. (In the coordinates of ``unconstrain`` the values of other sites move along with the bounds of their
    supports; here a support that moves is a jump.)

    ``of="value"``: is what the program returns smooth in it, where the draws of other sites move along if they are
    reparameterised (numpyro's ``has_rsample``, and no ``grad`` that says otherwise)? The draws of the others stay, and
    their log density counts like the value. A gradient along paths asks this. The program's weights do not count, and
    the value is looked at where it is finite: that log p(x) is minus infinity outside the support is no jump.

    The verdicts are read off the jaxpr:

    - "differentiable": on the way from the site there are only operations that are infinitely often differentiable on
      the interior of their domains, and no value can leave the interior by going through infinity. This is a proof, in
      exact arithmetic, wherever all values are finite.
    - "continuous": there are also some with kinks (``abs``, ``max``, ``clip``, ``sort``), or at the edge of their
      domains (``log`` of what may be zero). The program is differentiable almost everywhere; gradients along paths
      and HMC are right.
    - "possibly discontinuous": there is a comparison, a rounding, a branch, a division by what may be zero, a support
      that moves with the site, or a primitive of which nothing is known.

    What is possibly discontinuous is then looked at numerically (see :func:`~borelax.semantics.static.probe.probe`). If
    jumps are found it is "discontinuous (confirmed)", with the place and the size; if every suspected equation was seen
    to change and there was no jump it counts as "continuous", as in ``jnp.where(x > 0, x, 0)``. This is evidence, not
    proof: it says what was tried.

    Args:
      sites: addresses, or scopes, of the sites that are asked about; all if None.
      search: whether to look for jumps. With arguments that are traced (inside ``jit``) nothing can be looked at.

    Raises:
      AddressError: ``sites`` names one that the program does not have.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def program():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(jnp.where(x > 0.5, 1.0, 0.0), 1.0), 1.0)
    >>> semantics.smoothness(program)().of("x").verdict
    'discontinuous (confirmed)'
    """
    if of not in ("density", "value"):
        raise SiteError(f"of is {of!r}; it must be 'density' or 'value'")

    def judged(*args, **kwargs) -> Smoothness:
        staged = stage(program, *args, **kwargs)
        asked = _asked(staged, sites)
        moves = _moving(staged)
        causes = smooth_flow(staged, of, moves).result.causes
        through = {
            address: frozenset(cause for site, cause in causes if site == address) for address in asked
        }
        suspects = {
            address: frozenset(cause for cause in own if cause.kind >= Break.JUMP)
            for address, own in through.items()
        }
        suspects = {address: own for address, own in suspects.items() if own}
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in staged.leaves)
        probes = {}
        if search and suspects and not traced:
            probes = probe(program, of, moves, suspects)(*args, **kwargs)
        found = tuple(
            SiteSmoothness(
                spell(address), info.site.source, _worst_first(through[address]), probes.get(address)
            )
            for address, info in asked.items()
        )
        return Smoothness(getattr(program, "__name__", "program"), of, found)

    return judged


@dataclass(frozen=True)
class SiteSmoothness:
    """How smooth a program is in one site.

    Attributes:
      address, source: the site, and its source line.
      causes: the equations on the way from it that are not smooth, the worst first.
      probe: what was tried numerically; None if nothing was.
    """

    address: str
    source: str
    causes: tuple[Cause, ...]
    probe: Probe | None = None

    @property
    def verdict(self) -> Verdict:
        if not self.causes:
            return "differentiable"
        if self.probe is not None and self.probe.jump is not None:
            return "discontinuous (confirmed)"
        left = self.suspects if self.probe is None else self.probe.left
        return "possibly discontinuous" if left else "continuous"

    @property
    def suspects(self) -> frozenset[Cause]:
        """The equations that may jump, as far as the jaxpr tells."""
        return frozenset(cause for cause in self.causes if cause.kind >= Break.JUMP)

    @property
    def through(self) -> tuple[tuple[str, str], ...]:
        """The primitive and the source line of each cause, the worst first."""
        return tuple((cause.primitive, cause.source) for cause in self.causes)

    def __str__(self) -> str:
        return f"{self.address!r} ({self.source})"


@dataclass(frozen=True, repr=False)
class Smoothness:
    """The report of :func:`smoothness`.

    Attributes:
      title: the program.
      question: "density" or "value".
      sites: the verdicts, in program order.
    """

    title: str
    question: str
    sites: tuple[SiteSmoothness, ...]

    def of(self, address: str) -> SiteSmoothness:
        """The verdict on one site."""
        known = {tuple(site.address.split("/")): site for site in self.sites}
        (found,) = select(address).among(known)
        return known[found]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A warning for each site with a jump, and a note for each that may have one."""
        return tuple(_finding(self, site) for site in self.sites if "discontinuous" in site.verdict)

    @property
    def table(self) -> Table:
        rows = tuple(
            (
                site.address,
                site.verdict,
                ", ".join(map(str, site.causes)),
                "" if site.probe is None else str(site.probe),
                site.source,
            )
            for site in self.sites
        )
        title = f"{self.title}: smoothness of its {self.question} in {count(len(rows), 'site')}"
        return Table(("site", "verdict", "through", "tried", "source"), rows, title)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


# ------------------------------------------------------------------------- helpers


def _asked(staged: Staged, sites: Iterable[str] | None) -> dict[Address, SiteInfo]:
    continuous = {
        info.address: info for info in staged.of_kind("sample") if jnp.issubdtype(info.dtype, jnp.inexact)
    }
    if sites is None:
        return continuous
    chosen = select(*sites).among(continuous)
    return {address: info for address, info in continuous.items() if address in chosen}


def _worst_first(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    return tuple(sorted(causes, key=lambda cause: (-cause.kind, cause.source, cause.primitive)))


def _moving(staged: Staged) -> Callable[[Site], bool]:
    """Whether the draws of a site move with the parameters of its distribution."""
    moving = {
        info.address
        for info in staged.of_kind("sample")
        if info.site.grad in (None, "pathwise") and effect_of(info).distribution.has_rsample
    }
    return lambda site: site.name in moving


def _finding(report: Smoothness, site: SiteSmoothness) -> Finding:
    worst = site.causes[0]
    confirmed = site.probe is not None and site.probe.jump is not None
    what = f"the {report.question} may be discontinuous in this site, through {worst}"
    if confirmed:
        what = f"the {report.question} {site.probe} of this site, through {site.probe.jump.cause}"
    unknown = " (nothing is known of this primitive)" if worst.kind == Break.UNKNOWN and not confirmed else ""
    remedy = (
        "use grad='score' here, or write the branch with functions that are continuous"
        if report.question == "value"
        else "move it with a kernel that takes no gradients, or smooth the branch"
    )
    return Finding("warning" if confirmed else "note", what + unknown, str(site), remedy)
