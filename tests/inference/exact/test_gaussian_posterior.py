from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from borelax.inference.exact.gaussian_posterior import gaussian_posterior

_generator = np.random.default_rng(0)
SLOPES = _generator.normal(size=(7, 2, 3))
CONSTANT = _generator.normal(size=7)


def residuals(z):
    return {"prior": z - 1.0, "seen": jnp.einsum("nij,ij->n", jnp.asarray(SLOPES), z) + CONSTANT}


def test_it_is_the_solution_of_the_normal_equations():
    origin = _generator.normal(size=(2, 3))
    with jax.enable_x64(True):
        law, mean, _ = jax.jit(lambda origin: gaussian_posterior(residuals, origin))(origin)
        values = _generator.normal(size=(4, 2, 3))
        log_density = law.log_prob(jnp.asarray(values))
    flat = SLOPES.reshape(7, 6)
    precision = np.eye(6) + flat.T @ flat
    expected = np.linalg.solve(precision, np.ones(6) - flat.T @ CONSTANT)
    np.testing.assert_allclose(mean, expected.reshape(2, 3), rtol=1e-10)
    away = values.reshape(4, 6) - expected
    quadratic = np.einsum("ni,ij,nj->n", away, precision, away)
    expected = -0.5 * quadratic + 0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1]
    np.testing.assert_allclose(log_density, expected, rtol=1e-10)


def test_slopes_that_are_nearly_parallel_do_no_harm_in_single_precision():
    """The sum of precisions would not be positive definite any more."""
    slopes = jnp.array([[1e4, 1e4], [1e4, 1e4 * (1 + 1e-4)]])
    law, mean, _ = jax.jit(lambda z: gaussian_posterior(lambda z: (z, slopes @ z - 1.0), z))(jnp.zeros(2))
    wide = np.concatenate([np.eye(2), np.asarray(slopes, np.float64)])
    expected = np.linalg.inv(wide.T @ wide)
    np.testing.assert_allclose(law.covariance_matrix, expected, rtol=1e-2)
    assert np.all(np.isfinite(mean))
