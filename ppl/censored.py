"""The density of an observation of which only a bound is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaincc, log_ndtr
from numpyro.distributions import (
    Distribution,
    Exponential,
    Gamma,
    LeftCensoredDistribution,
    Logistic,
    LogNormal,
    Normal,
    RightCensoredDistribution,
    Weibull,
)


def censored_log_prob(d: LeftCensoredDistribution | RightCensoredDistribution, value):
    """``log f(value)`` where the value itself was seen, ``log F(value)`` where it is an upper bound (left-censored)
    and ``log (1 - F(value))`` where it is a lower one (right-censored): for each element.

    A bound beyond an end of the support has probability 0 or 1. The tail is exact far out for the distributions of
    ``_LOG_SURVIVAL``; for others it is NaN where ``F`` is too near to 1 for ``1 - F`` to be resolved.
    """
    base, support = d.base_dist, d.base_dist.support
    value = jnp.asarray(value)
    below = value <= getattr(support, "lower_bound", -jnp.inf)
    above = value >= getattr(support, "upper_bound", jnp.inf)
    inside = jnp.where(below | above, support.feasible_like(value), value)
    if isinstance(d, RightCensoredDistribution):
        tail = jnp.where(below, 0.0, jnp.where(above, -jnp.inf, _log_survival(base, inside)))
    else:
        tail = jnp.where(above, 0.0, jnp.where(below, -jnp.inf, jnp.log(base.cdf(inside))))
    supported = support(value)
    seen = base.log_prob(jnp.where(supported, value, support.feasible_like(value)))
    seen = jnp.where(supported, seen, -jnp.inf)
    return jnp.where(d.censored, tail, seen)


def _log_survival(d: Distribution, x):
    if type(d) in _LOG_SURVIVAL:
        return _LOG_SURVIVAL[type(d)](d, x)
    survival = 1.0 - d.cdf(x)
    resolved = survival >= _ULPS * jnp.finfo(survival.dtype).eps
    return jnp.where(resolved, jnp.log(jnp.where(resolved, survival, 1.0)), jnp.nan)


# The difference 1 - F is known to one part in as many as it has units in the last place of 1.
_ULPS = 16

_LOG_SURVIVAL = {
    Exponential: lambda d, x: -d.rate * x,
    Gamma: lambda d, x: jnp.log(gammaincc(d.concentration, d.rate * x)),
    Logistic: lambda d, x: jax.nn.log_sigmoid((d.loc - x) / d.scale),
    LogNormal: lambda d, x: log_ndtr((d.loc - jnp.log(x)) / d.scale),
    Normal: lambda d, x: log_ndtr((d.loc - x) / d.scale),
    Weibull: lambda d, x: -((x / d.scale) ** d.concentration),
}
