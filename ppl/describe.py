"""Words for sites: the family of a distribution, its support, the shape of its value."""

from __future__ import annotations

import re

import jax
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

from .effects import Effect
from .flow import Visit
from .partly import Remaining
from .staging import SiteInfo


def family(d: Distribution) -> str:
    """The name that a user knows a distribution by.

    >>> family(dist.Categorical(logits=jax.numpy.zeros(3)).expand([2]).to_event(1))
    'Categorical'
    >>> family(dist.TruncatedNormal(low=0.0))
    'LeftTruncated Normal'
    """
    if isinstance(d, Remaining):
        return f"{family(d.base)}, known in part"
    if isinstance(d, dist.Independent | dist.ExpandedDistribution):
        return family(d.base_dist)
    name = type(d).__name__
    if name.endswith("Distribution") and isinstance(getattr(d, "base_dist", None), Distribution):
        return f"{name.removesuffix('Distribution')} {family(d.base_dist)}"
    stem = name.removesuffix("Probs").removesuffix("Logits")
    return stem if hasattr(dist, stem) else name


def support_of(info: SiteInfo):
    """The support of one element of a site: a numpyro constraint, with ``jax.ShapeDtypeStruct`` for computed bounds."""
    one = info.site.unbatched(info.operands)
    return jax.eval_shape(lambda *leaves: info.site.effect(leaves).distribution.support, *one)


def spell_support(support) -> str:
    """
    >>> spell_support(constraints.nonnegative_integer), spell_support(constraints.unit_interval)
    ('integer nonnegative', 'unit interval')
    """
    if support is None:
        return ""
    if type(support) is constraints.independent:
        return spell_support(support.base_constraint)
    return " ".join(word.lower() for word in re.findall("[A-Z]+[a-z0-9]*", type(support).__name__))


def effect_of(info: SiteInfo) -> Effect:
    """The effect of one element of a site, with shapes for arrays: for a look at what is there."""
    return info.site.effect(info.site.unbatched(info.operands))


def spell_value(visit: Visit) -> str:
    """Dtype and shape of a site's value, each leading axis with what it comes from: ``float32[scan 10, 3]``.

    A factor has no value: only the axes.
    """
    plates = list(map(str, visit.plates))
    if visit.info.kind == "factor":
        return f"[{', '.join(plates)}]" if plates else ""
    leading = len(visit.info.present_shape)
    shapes = (", ".join([*plates, *map(str, leaf.shape[leading:])]) for leaf in visit.value)
    return ", ".join(f"{leaf.dtype}[{shape}]" for leaf, shape in zip(visit.value, shapes))
