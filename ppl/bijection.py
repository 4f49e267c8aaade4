"""The one-to-one map between R^n and the values of a distribution, or the reason why there is none to use."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from numpyro.distributions import (
    Delta,
    Distribution,
    ExpandedDistribution,
    HurdleProbs,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
    biject_to,
)
from numpyro.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from .effects import log_prob_formula
from .laws import parts
from .partly import Remaining


def bijection(d: Distribution) -> Transform:
    """The smooth map from R^n onto the values of ``d``: numpyro's, for the support that ``d`` has with its parameters.

    A transformed distribution is reached through its base. Its own support need not be asked, which numpyro takes from
    what the last transform says of itself (an affine one takes a scale that is not known yet to be positive).

    Raises:
      NotImplementedError: numpyro has none (for a sphere, say).
    """
    if isinstance(d, Independent):
        return IndependentTransform(bijection(d.base_dist), d.reinterpreted_batch_ndims)
    if isinstance(d, ExpandedDistribution):
        return bijection(d.base_dist)
    if _is_pushed_forward(d):
        return ComposeTransform([bijection(d.base_dist), *d.transforms])
    return biject_to(d.support)


def at_position(d: Distribution, x):
    """The value of ``d`` at ``x`` in R^n, and the log density there of the law that ``bijection`` maps to ``d``.

    With T that map, it is ``log d(T(x)) + log |det dT/dx|``. For a transformed distribution this is the density of its
    base at ``x``: what the transforms take away in ``d`` they add in the determinant, and neither is computed.
    """
    if isinstance(d, Independent | ExpandedDistribution):
        return at_position(d.base_dist, x)
    if _is_pushed_forward(d):
        value, log_density = at_position(d.base_dist, x)
        for transform in d.transforms:
            value = transform(value)
        return value, log_density
    to_value = biject_to(d.support)
    value = to_value(x)
    return value, log_prob_formula(d, value) + jnp.sum(to_value.log_abs_det_jacobian(x, value))


def obstacle(d: Distribution) -> str | None:
    """Why a value of ``d`` has no density over R^n, and what to do instead; None if nothing is known against it."""
    if any(layer.support is None for layer in _layers(d)):
        return "has no support that numpyro knows of: draw it from another distribution"
    if any(layer.support.is_discrete for layer in _layers(d)):
        return (
            "is discrete: sum it out of the program (ppl.marginal with inference.enumerate), or hold it fixed with "
            "ppl.condition and move it with another kernel"
        )
    for part in parts(d):
        if isinstance(part, Delta | HurdleProbs):
            return (
                f"takes a single value with positive probability ({type(part).__name__}): compute that value without "
                "sample, or draw which case it is at a site of its own"
            )
        if isinstance(part, MaskedDistribution):
            return "has a density that is switched off in part (.mask), but its draws have not: take the mask out"
        if isinstance(part, Remaining):
            return (
                "is known in part (ppl.partly or ppl.prefix), and its known elements cannot move: make what is known "
                "and what is not two sites"
            )
        if getattr(part, "is_estimated", False):
            return (
                "has a density that is only an estimate: use an exact algorithm, such as inference.enumerate"
            )
    return None


def _is_pushed_forward(d: Distribution) -> bool:
    """Whether the density of ``d`` is that of its base under transforms, by numpyro's formula for it."""
    return type(d).log_prob is TransformedDistribution.log_prob


def _layers(d: Distribution) -> Iterator[Distribution]:
    """``d``, what it wraps, and its components if it is a mixture: all those whose kind of value is that of ``d``."""
    yield d
    for inner in (getattr(d, "base_dist", None), *getattr(d, "component_distributions", ())):
        if isinstance(inner, Distribution):
            yield from _layers(inner)
