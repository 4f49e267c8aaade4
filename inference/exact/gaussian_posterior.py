"""gaussian_posterior: a Gaussian prior with observations whose means are affine in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Distribution, transforms

from .element_slopes import element_slopes


class GaussianPosterior(NamedTuple):
    """A posterior, and a value at which its density is known.

    Attributes:
      law: of the value.
      value: the mean, or as near to it as rounding has it.
      log_density: of the law there, to which the rounding of the mean makes no difference.
    """

    law: Distribution
    value: jax.Array
    log_density: jax.Array


def gaussian_posterior(
    residuals: Callable, origin: jax.Array, elementwise: bool = False
) -> GaussianPosterior:
    """The posterior of z where ``exp(-|residuals(z)|^2 / 2)`` is prior times likelihood, up to a constant.

    By a QR decomposition of the residuals' slopes, which does not square what they are conditioned on, as the sum of
    precisions would. The mean is found in two steps, the second from where the first one leads: far from the origin a
    single one would be rounded to more than the posterior's width.

    Args:
      residuals: ``z -> pytree of arrays``, affine: for the prior and each observation its distance from the mean, in
        standard deviations (by the inverse of a square root of its covariance).
      origin: any z.
      elementwise: whether each residual depends on one element of z at most, so that the elements are independent.

    >>> law, mean, _ = gaussian_posterior(lambda z: (z, (3.0 - z) / 0.5), jnp.zeros(1))
    >>> mean.round(3).tolist(), law.variance.round(3).tolist()
    ([2.4000000953674316], [0.20000000298023224])
    """

    def flat(z):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(residuals(z.reshape(origin.shape)))])

    start = origin.ravel()
    step, law = (_by_element if elementwise else _by_qr)(flat, start, origin.shape)
    value = lax.stop_gradient(start + step(flat(start)))
    distance = step(flat(value))
    log_density = law(distance).log_prob(jnp.zeros_like(origin)).sum()
    return GaussianPosterior(law(value + distance), value.reshape(origin.shape), log_density)


def _by_qr(flat: Callable, start, shape):
    """The functions from the residuals at a place to the way from there to the mean; and from the mean to the law."""
    # With the columns in reverse, so that the triangle is the lower one, whose inverse is lower as well.
    q, r = jnp.linalg.qr(jax.jacfwd(flat)(start)[:, ::-1])
    sign = jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(r.dtype)
    root = (r * sign[:, None])[::-1, ::-1]
    tril = solve_triangular(root, jnp.eye(len(start), dtype=root.dtype), lower=True)
    step = lambda residual: -solve_triangular(root, ((q * sign).T @ residual)[::-1], lower=True)  # noqa: E731

    def law(mean):
        law = dist.MultivariateNormal(mean, scale_tril=tril)
        if len(shape) == 1:
            return law
        return dist.TransformedDistribution(law, transforms.ReshapeTransform(shape, start.shape))

    return step, law


def _by_element(flat: Callable, start, shape):
    """The same for independent elements. Slopes are in units of each one's largest, whose squares stay in range."""
    slope, element, _ = element_slopes(lambda z: (flat(z), None), start)
    nothing = jnp.zeros_like(start)
    unit = lax.stop_gradient(1.0 / nothing.at[element].max(jnp.abs(slope)))
    slope = slope * unit[element]
    precision = nothing.at[element].add(slope**2)
    step = lambda residual: -unit * nothing.at[element].add(slope * residual) / precision  # noqa: E731
    scale = (unit / jnp.sqrt(precision)).reshape(shape)
    return step, lambda mean: dist.Normal(mean.reshape(shape), scale)
