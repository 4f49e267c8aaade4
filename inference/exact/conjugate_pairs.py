"""Conjugate pairs: which likelihoods a prior goes with, and what its parameters become.

The parameters are natural ones, or near enough: an observation adds its statistics to them. What is Gaussian has
residuals instead, of which the sum of squares is to be the least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import gammaln, xlog1py, xlogy
from numpyro.distributions import Distribution

from ...ppl.effects import log_prob_formula
from .affine_flow import Dependence


@dataclass(frozen=True)
class Pair:
    """A likelihood of a parameter that is the site's value, or made of it: ``slope * element + constant``.

    Attributes:
      parameter: its name.
      most: how the parameter may depend on the site.
      statistics: ``(likelihood, value) -> (t_1, t_2, ...)``: a value adds ``slope ** power * t`` to the prior's
        parameters.
      powers: of the slope.
      rank: how many axes one parameter has.
      residual: of a Gaussian likelihood, ``(likelihood, value) -> (value - mean) / standard deviation``. The mean may
        be a sum over elements.
    """

    parameter: str
    most: Dependence
    statistics: Callable[[Distribution, Any], tuple] | None = None
    powers: tuple[int, ...] = ()
    rank: int = 0
    residual: Callable[[Distribution, Any], jax.Array] | None = None


@dataclass(frozen=True)
class Prior:
    """A family of priors.

    Attributes:
      parameters: ``d -> (a_1, a_2, ...)``, those that statistics are added to.
      law: ``(a_1, a_2, ...) -> distribution``; None if it is Gaussian.
      pairs: by the likelihood.
    """

    parameters: Callable[[Distribution], tuple]
    law: Callable[..., Distribution] | None
    pairs: dict[type[Distribution], Pair]


BETA = Prior(
    lambda d: (d.concentration1, d.concentration0),
    dist.Beta,
    {
        dist.BernoulliProbs: Pair("probs", Dependence.MOVED, lambda d, y: (y, 1 - y), (1, 1)),
        dist.BinomialProbs: Pair("probs", Dependence.MOVED, lambda d, y: (y, d.total_count - y), (1, 1)),
        dist.GeometricProbs: Pair("probs", Dependence.MOVED, lambda d, y: (1, y), (1, 1)),
    },
)

GAMMA = Prior(
    lambda d: (d.concentration, d.rate),
    dist.Gamma,
    {
        dist.Poisson: Pair("rate", Dependence.SCALED, lambda d, y: (y, 1), (0, 1)),
        dist.Exponential: Pair("rate", Dependence.SCALED, lambda d, y: (1, y), (0, 1)),
        dist.Gamma: Pair("rate", Dependence.SCALED, lambda d, y: (d.concentration, y), (0, 1)),
    },
)
EXPONENTIAL = replace(GAMMA, parameters=lambda d: (1.0, d.rate))


def _is_each(d: Distribution, y):
    return (y[..., None] == jnp.arange(d.probs.shape[-1]),)


DIRICHLET = Prior(
    lambda d: (d.concentration,),
    dist.Dirichlet,
    {
        dist.CategoricalProbs: Pair("probs", Dependence.ROWS, _is_each, (1,), rank=1),
        dist.MultinomialProbs: Pair("probs", Dependence.ROWS, lambda d, y: (y,), (1,), rank=1),
    },
)


def _whitened(d: dist.MultivariateNormal, y):
    difference = (y - d.loc)[..., None]
    tril = jnp.broadcast_to(d.scale_tril, (*difference.shape[:-1], difference.shape[-2]))
    return lax.linalg.triangular_solve(tril, difference, left_side=True, lower=True)[..., 0]


GAUSSIAN = Prior(
    lambda d: (),
    None,
    {
        dist.Normal: Pair("loc", Dependence.LINEAR, residual=lambda d, y: (y - d.loc) / d.scale),
        dist.MultivariateNormal: Pair("loc", Dependence.LINEAR, rank=1, residual=_whitened),
    },
)

PRIORS = {
    dist.Beta: BETA,
    dist.Gamma: GAMMA,
    dist.Exponential: EXPONENTIAL,
    dist.Dirichlet: DIRICHLET,
    dist.Normal: GAUSSIAN,
    dist.MultivariateNormal: GAUSSIAN,
}


def inside(d: Distribution):
    """The mean, or where a probability is rounded to zero or one, the one next to it that NumPyro does not clamp."""
    if not isinstance(d, dist.Beta):
        return d.mean
    limits = jnp.finfo(d.mean.dtype)
    return jnp.clip(d.mean, limits.tiny, 1.0 - limits.eps)


def log_density(d: Distribution, value):
    """The total log density at a value inside the support. That of a Beta does not lose its digits in a difference of
    log-gammas, which are large where there have been many observations."""
    law = plain(d)
    if not isinstance(law, dist.Beta):
        return log_prob_formula(d, value)
    a, b = law.concentration1, law.concentration0
    return jnp.sum(xlogy(a - 1.0, value) + xlog1py(b - 1.0, -value) - _log_beta(a, b))


def _log_beta(a, b):
    """Where one of them is large, or both are, the log-gammas that are so by Stirling's formula, put together."""
    a, b = jnp.minimum(a, b) * 1.0, jnp.maximum(a, b) * 1.0
    x, y = jnp.maximum(a, 8.0), jnp.maximum(b, 8.0)
    both = 0.5 * jnp.log(2 * jnp.pi / y) - (x - 0.5) * jnp.log1p(y / x) - y * jnp.log1p(x / y)
    both += _correction(x) + _correction(y) - _correction(x + y)
    one = gammaln(a) + a - a * jnp.log(a + y) - (y - 0.5) * jnp.log1p(a / y)
    one += _correction(y) - _correction(a + y)
    neither = gammaln(a) + gammaln(b) - gammaln(a + b)
    return jnp.where(b < 8, neither, jnp.where(a < 8, one, both))


def _correction(x):
    """Of Stirling's formula: the first terms of ``log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2``."""
    return sum(c / x ** (2 * i + 1) for i, c in enumerate((1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)))


def plain(d: Distribution) -> Distribution:
    """A distribution without what only says how many independent copies there are."""
    return plain(d.base_dist) if isinstance(d, dist.Independent | dist.ExpandedDistribution) else d
