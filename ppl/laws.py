"""Which numpyro distributions a program may not use, because their draws and their density do not go together."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from numpyro.distributions import (
    Distribution,
    HurdleProbs,
    Independent,
    IntervalCensoredDistribution,
    LeftCensoredDistribution,
    LeftTruncatedDistribution,
    MixtureGeneral,
    RightCensoredDistribution,
    RightTruncatedDistribution,
    TruncatedPolyaGamma,
    TwoSidedTruncatedDistribution,
    ZeroInflatedProbs,
)

CENSORED = (LeftCensoredDistribution, RightCensoredDistribution)
TRUNCATED = (LeftTruncatedDistribution, RightTruncatedDistribution, TwoSidedTruncatedDistribution)


def wrong_density(d: Distribution) -> str | None:
    """Why the density of ``d`` is not to be relied on, and what to use instead; None if nothing is known against it."""
    if any(isinstance(part, CENSORED) for part in parts(d) if part is not without_event(d)):
        return f"{_name(d)} wraps a censored distribution, which can be observed on its own or with .to_event only"
    return next(filter(None, map(_wrong_density, parts(d))), None)


def wrong_draws(d: Distribution) -> str | None:
    """Why draws of ``d`` do not have its density, and what to do instead; None if nothing is known against it."""
    for part in parts(d):
        if isinstance(part, CENSORED):
            return (
                f"{_name(part)} is the likelihood of a bound, not the law of a value: ppl.observe it, or draw the "
                "uncensored value"
            )
        if isinstance(part, TruncatedPolyaGamma):
            return "TruncatedPolyaGamma cuts off the series that it draws from, so its draws are too small on average"
    return None


def parts(d: Distribution) -> Iterator[Distribution]:
    """``d`` and the distributions that it is made of."""
    yield d
    for part in jax.tree.leaves(d, is_leaf=lambda x: isinstance(x, Distribution) and x is not d):
        if isinstance(part, Distribution):
            yield from parts(part)


def without_event(d: Distribution) -> Distribution:
    """``d`` without the declaration that some of its batch axes belong to the event."""
    return without_event(d.base_dist) if isinstance(d, Independent) else d


def _wrong_density(d: Distribution) -> str | None:
    if isinstance(d, IntervalCensoredDistribution):
        return (
            "IntervalCensoredDistribution draws values of another shape than it scores, and rounds away what it cannot "
            "resolve; write the likelihood out: ppl.factor(jnp.log(d.cdf(upper) - d.cdf(lower)))"
        )
    if isinstance(d, CENSORED) and d.base_dist.is_discrete:
        return (
            f"{_name(d)} of {_name(d.base_dist)} counts the bound itself as excluded on the right and included on the "
            "left; write the likelihood that is meant out, with ppl.factor"
        )
    if (
        isinstance(d, MixtureGeneral)
        and d._support is None
        and any(map(_has_bounds, d.component_distributions))
    ):
        return (
            "the components of this MixtureGeneral have supports with parameters, and it takes the first component's "
            "for that of all; give it support=, a constraint that holds for every component"
        )
    if isinstance(d, ZeroInflatedProbs) and not _has_zero(d.base_dist):
        return (
            f"{_name(d)} is wrong where {_name(d.base_dist)} cannot be 0; use lax.cond on a drawn Bernoulli"
        )
    if isinstance(d, HurdleProbs) and not _has_zero(d):
        return (
            f"{_name(d)} can be 0, which it does not count to its support; use HurdleGamma, HurdleLogNormal or "
            "lax.cond on a drawn Bernoulli"
        )
    return None


def _has_bounds(d: Distribution) -> bool:
    return bool(jax.tree.leaves(d.support))


def _has_zero(d: Distribution) -> bool:
    """Whether 0 is known to be in the support."""
    if any(isinstance(bound, jax.core.Tracer) for bound in jax.tree.leaves(d.support)):
        return False
    with jax.ensure_compile_time_eval():
        return bool(np.all(d.support(np.zeros(()))))


def _name(d: Distribution) -> str:
    return type(d).__name__
