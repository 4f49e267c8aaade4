"""Conjugate pairs: which likelihoods a prior goes with, and what its parameters become.

The parameters are natural ones, or near enough: an observation adds its statistics to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import Distribution

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
        be a sum over elements, and there are ``statistics`` only where it need not be.
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
      law: ``(origin, a_1, a_2, ...) -> distribution``; None if it is not one of independent elements.
      pairs: by the likelihood.
    """

    parameters: Callable[[Distribution], tuple]
    law: Callable[..., Distribution] | None
    pairs: dict[type[Distribution], Pair]


BETA = Prior(
    lambda d: (d.concentration1, d.concentration0),
    lambda _, a, b: dist.Beta(a, b),
    {
        dist.BernoulliProbs: Pair("probs", Dependence.MOVED, lambda d, y: (y, 1 - y), (1, 1)),
        dist.BinomialProbs: Pair("probs", Dependence.MOVED, lambda d, y: (y, d.total_count - y), (1, 1)),
        dist.GeometricProbs: Pair("probs", Dependence.MOVED, lambda d, y: (1, y), (1, 1)),
    },
)

GAMMA = Prior(
    lambda d: (d.concentration, d.rate),
    lambda _, a, b: dist.Gamma(a, b),
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
    lambda _, a: dist.Dirichlet(a),
    {
        dist.CategoricalProbs: Pair("probs", Dependence.ROWS, _is_each, (1,), rank=1),
        dist.MultinomialProbs: Pair("probs", Dependence.ROWS, lambda d, y: (y,), (1,), rank=1),
    },
)


def _gaussian(origin, precision, shift):
    return dist.Normal(origin + shift / precision, 1.0 / jnp.sqrt(precision))


def _gaussian_statistics(d: dist.Normal, y):
    return 1.0 / d.scale**2, (y - d.loc) / d.scale**2


def _whitened(d: dist.MultivariateNormal, y):
    difference = (y - d.loc)[..., None]
    tril = jnp.broadcast_to(d.scale_tril, (*difference.shape[:-1], difference.shape[-2]))
    return lax.linalg.triangular_solve(tril, difference, left_side=True, lower=True)[..., 0]


_GAUSSIAN_PAIRS = {
    dist.Normal: Pair(
        "loc",
        Dependence.LINEAR,
        _gaussian_statistics,
        powers=(2, 1),
        residual=lambda d, y: (y - d.loc) / d.scale,
    ),
    dist.MultivariateNormal: Pair("loc", Dependence.LINEAR, rank=1, residual=_whitened),
}

# The precision, and the precision times how far the mean is from the origin, at which d.loc is as it is.
NORMAL = Prior(lambda d: (1.0 / d.scale**2, 0.0), _gaussian, _GAUSSIAN_PAIRS)
MULTIVARIATE_NORMAL = Prior(lambda d: (), None, _GAUSSIAN_PAIRS)

PRIORS = {
    dist.Beta: BETA,
    dist.Gamma: GAMMA,
    dist.Exponential: EXPONENTIAL,
    dist.Dirichlet: DIRICHLET,
    dist.Normal: NORMAL,
    dist.MultivariateNormal: MULTIVARIATE_NORMAL,
}


def plain(d: Distribution) -> Distribution:
    """A distribution without what only says how many independent copies there are."""
    return plain(d.base_dist) if isinstance(d, dist.Independent | dist.ExpandedDistribution) else d
