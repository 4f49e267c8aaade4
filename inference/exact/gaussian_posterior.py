"""gaussian_posterior: a Gaussian prior with observations whose means are affine in it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Distribution, transforms


def gaussian_posterior(residuals: Callable, origin: jax.Array) -> tuple[Distribution, jax.Array]:
    """The posterior of z, and its mean, where ``exp(-|residuals(z)|^2 / 2)`` is prior times likelihood.

    By a QR decomposition of the residuals' slopes, which does not square what they are conditioned on, as the sum of
    precisions would.

    Args:
      residuals: ``z -> pytree of arrays``, affine: for the prior and each observation its distance from the mean, in
        standard deviations (by the inverse of a square root of its covariance).
      origin: any z.

    >>> posterior, mean = gaussian_posterior(lambda z: (z, (3.0 - z) / 0.5), jnp.zeros(1))
    >>> mean.round(3).tolist(), posterior.variance.round(3).tolist()
    ([2.4000000953674316], [0.20000000298023224])
    """

    def flat(z):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(residuals(z.reshape(origin.shape)))])

    start = origin.ravel()
    # With the columns in reverse, so that the triangle is the lower one, whose inverse is lower as well.
    q, r = jnp.linalg.qr(jax.jacfwd(flat)(start)[:, ::-1])
    sign = jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)
    root, pulled = (r * sign[:, None])[::-1, ::-1], ((q * sign).T @ flat(start))[::-1]
    mean = start - solve_triangular(root, pulled, lower=True)
    tril = solve_triangular(root, jnp.eye(len(start)), lower=True)
    law = dist.MultivariateNormal(mean, scale_tril=tril)
    if origin.ndim != 1:
        reshaped = transforms.ReshapeTransform(origin.shape, mean.shape)
        law = dist.TransformedDistribution(law, reshaped)
    return law, mean.reshape(origin.shape)
