"""Region: where a distribution has its mass, with respect to which base measure, and whether one covers another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from ...ppl import compat
from ...ppl.describe import family
from ...ppl.effects import Axis, Effect, Site
from ...ppl.laws import CENSORED, parts
from .bounds import Bounds, anything

STATIC: dict = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Region:
    """Where a distribution has mass. Its arrays have the shape of a value of the site; in the end, they are what is
    known of them (``Value`` of abstract.py).

    Attributes:
      lower, upper: every element of a value lies between them.
      masses: for finitely many values 0, 1, ...: what their probabilities are proportional to, ``[..., K]``.
      positive: arrays that must be above 0 for there to be mass everywhere in the region.
      family: the distribution, in words.
      measure: its base measure: "counting", "Lebesgue", "atom" (of one point), that on a surface ("simplex", ...), or
        "unknown".
      shape: which values within the bounds: "box" for all of them.
      full: whether it has mass everywhere in the region, given ``positive``.
      strict: whether the lower and the upper bound themselves are outside.
    """

    lower: Any
    upper: Any
    masses: Any = None
    positive: tuple = ()
    family: str = field(default="", metadata=STATIC)
    measure: str = field(default="unknown", metadata=STATIC)
    shape: str = field(default="box", metadata=STATIC)
    full: bool = field(default=False, metadata=STATIC)
    strict: tuple[bool, bool] = field(default=(False, False), metadata=STATIC)

    def span(self, dtype) -> Bounds:
        """The bounds of a value."""
        if self.measure == "unknown":
            return anything(dtype)
        low, high = self.lower.bounds, self.upper.bounds
        below = self.strict[0] or bool(np.all(low.lower == -np.inf)) or low.open_below
        above = self.strict[1] or bool(np.all(high.upper == np.inf)) or high.open_above
        return Bounds(low.lower, high.upper, below, above)

    @property
    def everywhere(self) -> bool:
        """Whether it surely has mass everywhere in the region."""
        known = [*self.positive, *([] if self.masses is None else [self.masses])]
        return self.full and all(bool(np.all(x.bounds.positive)) for x in known)


def region_of(
    tree, axes: tuple[Axis, ...], avals: tuple, of_proposal: bool
) -> tuple[compat.ClosedJaxpr, Any]:
    """The computation of a region's arrays from a site's operands, and the pytree structure of the region."""
    try:
        return _region_of(tree, axes, avals, of_proposal)
    except TypeError:  # a distribution with static parts that have no hash
        return _region_of.__wrapped__(tree, axes, avals, of_proposal)


@lru_cache(maxsize=1024)
def _region_of(tree, axes: tuple[Axis, ...], avals: tuple, of_proposal: bool):
    site = Site((), "", tree, axes)

    def region(effect: Effect) -> Region:
        return law_region(effect.proposal if of_proposal else effect.distribution)

    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in avals]
    closed, shapes = jax.make_jaxpr(lambda *xs: site.map(region, xs), return_shape=True)(*arrays)
    return closed, jax.tree.structure(shapes)


def law_region(d: Distribution) -> Region:
    """The region of a distribution.

    >>> region = law_region(dist.Uniform(0.0, 2.0))
    >>> region.measure, float(region.lower), float(region.upper), region.full
    ('Lebesgue', 0.0, 2.0, True)
    """
    base, shape = stripped(d), d.shape()
    fit = lambda x: jnp.broadcast_to(jnp.asarray(x, float), shape)  # noqa: E731
    if isinstance(base, dist.Delta):
        point = jnp.broadcast_to(base.v, shape)
        return Region(point, point, family="Delta", measure="atom", full=True)
    measure, kind, lower, upper, strict = _place(base.support)
    if measure != "counting" and (_may_have_atoms(base) or (measure in _DEGENERATE and shape[-1:] == (1,))):
        measure = "unknown"
    masses, positive = _masses(base), ()
    if masses is not None:
        masses = jnp.broadcast_to(masses, (*shape, masses.shape[-1]))
    elif _is_full(base):
        positive = tuple(_positive(base))
    return Region(fit(lower), fit(upper), masses, positive, family(d), measure, kind, _is_full(base), strict)


def stripped(d: Distribution) -> Distribution:
    """A distribution without what only says which of its axes are copies, and of what."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


# ------------------------------------------------------------------------- supports

# Supports without parameters: base measure, shape, and bounds that are reached in every element.
_SURFACES = {
    "Simplex": ("simplex", "box", 0.0, 1.0),
    "Sphere": ("sphere", "box", -1.0, 1.0),
    "CorrCholesky": ("Cholesky factors of correlation matrices", "box", -1.0, 1.0),
    "CorrMatrix": ("correlation matrices", "box", -1.0, 1.0),
    "LowerCholesky": ("triangular matrices", "box", -np.inf, np.inf),
    "ScaledUnitLowerCholesky": ("triangular matrices", "box", -np.inf, np.inf),
    "SoftplusLowerCholesky": ("triangular matrices", "box", -np.inf, np.inf),
    "PositiveDefinite": ("symmetric matrices", "box", -np.inf, np.inf),
    "PositiveSemiDefinite": ("symmetric matrices", "box", -np.inf, np.inf),
    "ZeroSum": ("vectors that sum to zero", "box", -np.inf, np.inf),
    "OrderedVector": ("Lebesgue", "ordered", -np.inf, np.inf),
    "PositiveOrderedVector": ("Lebesgue", "ordered", 0.0, np.inf),
    "L1Ball": ("Lebesgue", "l1 ball", -1.0, 1.0),
    "Boolean": ("counting", "box", 0.0, 1.0),
    "Real": ("Lebesgue", "box", -np.inf, np.inf),
}
# Of one element, each is something else: a point, or all numbers.
_DEGENERATE = {measure for measure, *_ in _SURFACES.values()} - {"Lebesgue", "counting"}
_STRICT = (constraints.greater_than, constraints.less_than, constraints.open_interval)
_LAX = (constraints.greater_than_eq, constraints.less_than_eq)


def _place(support) -> tuple[str, str, Any, Any, tuple[bool, bool]]:
    """The base measure that goes with a support, its shape, its bounds, and whether they are strict."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    name = type(support).__name__.removeprefix("_")
    if name in _SURFACES:
        return *_SURFACES[name], (False, False)
    if isinstance(support, constraints.multinomial):
        return "counting", "counts", 0.0, jnp.asarray(support.upper_bound, float)[..., None], (False, False)
    if not hasattr(support, "lower_bound") and not hasattr(support, "upper_bound"):
        return "unknown", "unknown", -np.inf, np.inf, (False, False)
    strict = isinstance(support, _STRICT) and not isinstance(support, _LAX)
    lower, upper = getattr(support, "lower_bound", -np.inf), getattr(support, "upper_bound", np.inf)
    return "counting" if support.is_discrete else "Lebesgue", "box", lower, upper, (strict, strict)


# ------------------------------------------------------------------------- whether there is mass everywhere


def _may_have_atoms(d: Distribution) -> bool:
    """Whether it may give a single point probability although its support is continuous."""
    return not _is_numpyros(d) or any(isinstance(part, _ATOMIC) for part in parts(d))


def _is_numpyros(d: Distribution) -> bool:
    return type(d).__module__.startswith("numpyro.distributions.")


_ATOMIC = (
    dist.Delta,
    dist.HurdleProbs,
    dist.ZeroInflatedProbs,
    dist.MixtureGeneral,
    dist.MaskedDistribution,
    dist.IntervalCensoredDistribution,
    *CENSORED,
)

# numpyro's distributions of which nothing follows from the support: it is too large for some parameters, or not that
# of what has a density.
_NOT_FULL = (
    *_ATOMIC,
    dist.FoldedDistribution,
    dist.GaussianStateSpace,
    dist.GaussianCopula,
    dist.EulerMaruyama,
    dist.TruncatedPolyaGamma,
    dist.SineSkewed,
    dist.Unit,
    dist.CAR,
    dist.MatrixNormal,
)


def _is_full(d: Distribution) -> bool:
    """Whether it has mass everywhere in its support, if its parameters lie strictly within theirs."""
    if not _is_numpyros(d) or isinstance(d, _NOT_FULL):
        return False
    if isinstance(d, dist.MixtureSameFamily):
        component = stripped(d.component_distribution)
        free = not jax.tree.leaves(component.support)
        return free and _is_full(component) and not list(_positive(component)) and _masses(component) is None
    if type(d) is dist.TransformedDistribution:
        reached = d.base_dist.support
        for transform in d.transforms:
            if not _same_set(reached, transform.domain):
                return False
            reached = transform.codomain
        return _is_full(stripped(d.base_dist)) and not list(_positive(stripped(d.base_dist)))
    return True


def _same_set(one, other) -> bool:
    while isinstance(one, constraints.independent):
        one = one.base_constraint
    while isinstance(other, constraints.independent):
        other = other.base_constraint
    return type(one) is type(other) and not jax.tree.leaves(one) and not jax.tree.leaves(other)


def _masses(d: Distribution):
    """What the probabilities of 0, 1, ... are proportional to; None for a distribution that is not a table of them."""
    if isinstance(d, dist.BernoulliProbs):
        return jnp.stack([1.0 - d.probs, d.probs], -1)
    if isinstance(d, dist.BernoulliLogits):
        return jnp.stack([jnp.exp(-d.logits), jnp.exp(d.logits)], -1)
    if isinstance(d, dist.CategoricalProbs):
        return d.probs
    if isinstance(d, dist.CategoricalLogits):
        return jnp.exp(d.logits)
    return None


def _positive(d: Distribution) -> Iterator:
    """What must be above 0 of the parameters whose own range includes its ends."""
    if isinstance(d, dist.BinomialLogits | dist.GeometricLogits | dist.NegativeBinomialLogits):
        yield from (jnp.exp(d.logits), jnp.exp(-d.logits))
    elif isinstance(d, dist.MultinomialLogits):
        yield jnp.exp(d.logits)
    elif isinstance(d, dist.Poisson):
        yield d.rate
    elif isinstance(d, dist.NegativeBinomial2):
        yield d.mean
    elif isinstance(d, dist.MultinomialProbs):
        yield d.probs
    elif hasattr(d, "probs") and "probs" in d.arg_constraints:
        yield from (d.probs, 1.0 - d.probs)
