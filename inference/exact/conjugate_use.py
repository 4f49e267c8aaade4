"""What a program uses the value of a site for: the parameters of conjugate observations, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from numpyro.distributions import Distribution, MultivariateNormal

from ...ppl import UnsupportedError
from ...ppl.choices import Address
from ...ppl.dataflow import Position
from ...ppl.describe import effect_of, family
from ...ppl.effects import Site
from ...ppl.partly import Remaining
from ...ppl.staging import SiteInfo, Staged
from .affine_flow import Dependence, Use, affine_flow
from .conjugate_pairs import PRIORS, Pair, Prior, plain

_MAY_BE = {
    Dependence.ROWS: "be its value, whose last axis is kept as it is",
    Dependence.MOVED: "be elements of its value",
    Dependence.SCALED: "be elements of its value times what does not depend on it",
    Dependence.LINEAR: "be affine in its value",
}
_REMEDY = "draw it where it is, or move it with a kernel"


@dataclass(frozen=True)
class Conjugacy:
    """What goes with a site.

    Attributes:
      info: the site.
      prior: its family.
      pairs: for each observation that depends on it.
      elementwise: whether its elements are independent, and each number that is observed depends on one of them.
      shown: what depends on the site's value and is no weight: deterministic sites, what the program returns.
    """

    info: SiteInfo
    prior: Prior
    pairs: dict[Address, Pair]
    elementwise: bool
    shown: tuple[str, ...]


def conjugate_use(staged: Staged, info: SiteInfo) -> Conjugacy:
    """What goes with a ``sample`` site.

    Raises:
      UnsupportedError: there is an observation that does not, or another use of its value.
    """
    prior = _prior(staged, info)
    found = _Uses(info, prior)
    returned = affine_flow(staged, info.address, found.visit)
    correlated = type(plain(effect_of(info).distribution)) is MultivariateNormal or any(
        pair.residual and pair.rank for pair in found.pairs.values()
    )
    elementwise = not correlated and found.most < Dependence.LINEAR
    shown = [*found.shown, *(["what the program returns"] if any(use.how for use in returned) else [])]
    return Conjugacy(info, prior, found.pairs, elementwise, tuple(shown))


def _prior(staged: Staged, info: SiteInfo) -> Prior:
    d = plain(effect_of(info).distribution)
    if type(d) not in PRIORS:
        raise UnsupportedError(
            f"{info} has a {family(d)}, and conjugate knows pairs of {_names(PRIORS)}; {_REMEDY}"
        )
    if info.address in staged.optional or info.unbounded or effect_of(info).present is not None:
        raise UnsupportedError(
            f"{info} is in a branch or a while_loop, so that it may not be drawn once; {_REMEDY}"
        )
    return PRIORS[type(d)]


class _Uses:
    """What has been met so far."""

    def __init__(self, info: SiteInfo, prior: Prior):
        self.info = info
        self.prior = prior
        self.pairs: dict[Address, Pair] = {}
        self.most = Dependence.NONE
        self.shown: list[str] = []

    def visit(self, kind: str, site: Site, uses: list[Use], here: Position) -> None:
        """Checks a place where the program reaches a site."""
        numbered = site.effect(range(len(uses)))
        if kind == "deterministic":
            if here.reached.how or any(use.how for use in uses):
                self.shown.append(f"deterministic {site}")
            return
        if kind == "sample" and site.name == self.info.address and here.certain is not None:
            raise UnsupportedError(f"{self.info} is in a branch, so that it may not be drawn once; {_REMEDY}")
        if here.reached.how:
            self._refuse(f"whether {kind} site {site} is reached depends on it, by {here.reached.cause}")
        if not any(use.how for use in uses):
            return
        if kind == "sample" and isinstance(plain(numbered.distribution), Remaining):
            self._refuse(f"the draw {site} of it is known in part: condition on all of it, or on none")
        if kind != "observe":
            what = "the log weight of factor" if kind == "factor" else "the law of a later draw,"
            self._refuse(f"{what} {site} depends on it")
        if here.certain is not None or numbered.present is not None:
            self._refuse(f"the observation {site} of it is in a branch")
        if any(plate.size is None for plate in here.plates):
            self._refuse(f"the observation {site} of it is in a while_loop")
        self.pairs[site.name] = self._pair(site, numbered.distribution, uses)

    def _pair(self, site: Site, numbered: Distribution, uses: list[Use]) -> Pair:
        law = plain(numbered)
        pair = self.prior.pairs.get(type(law))
        if pair is None:
            other = type(law).__name__
            logits = "; it is by probs that it is conjugate" if other.endswith("Logits") else ""
            self._refuse(f"{site} of it is a {other}, which is not one of {_names(self.prior.pairs)}{logits}")
        own = getattr(law, pair.parameter)
        for i, use in enumerate(uses):
            if use.how and i != own:
                self._refuse(f"{site} depends on it by more than its {pair.parameter}")
        if uses[own].how > pair.most:
            cause = f", and not go through {uses[own].cause}" if uses[own].cause else ""
            self._refuse(f"the {pair.parameter} of {site} must {_MAY_BE[pair.most]}{cause}")
        self.most = max(self.most, uses[own].how)
        return pair

    def _refuse(self, reason: str):
        raise UnsupportedError(f"{self.info} has no posterior in closed form: {reason}; {_REMEDY}")


def _names(laws) -> str:
    return ", ".join(dict.fromkeys(law.__name__.removesuffix("Probs") for law in laws))
