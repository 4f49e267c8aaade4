"""Pathwise derivatives: of scalars against quantiles, of the rest against the equation that moving mass obeys."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl
from borelax.inference.gradients.pathwise import has_path, pathwise, without_path

QUANTILES = jnp.array([1e-3, 0.1, 0.45, 0.8, 0.999])

# Each with its parameters, and scipy's distribution of the same law.
SCALARS = {
    "Normal": (dist.Normal, (0.5, 1.5), lambda m, s: stats.norm(m, s)),
    "Laplace": (dist.Laplace, (0.5, 1.5), lambda m, s: stats.laplace(m, s)),
    "Logistic": (dist.Logistic, (0.5, 1.5), lambda m, s: stats.logistic(m, s)),
    "Gumbel": (dist.Gumbel, (0.5, 1.5), lambda m, s: stats.gumbel_r(m, s)),
    "Cauchy": (dist.Cauchy, (0.5, 1.5), lambda m, s: stats.cauchy(m, s)),
    "SoftLaplace": (dist.SoftLaplace, (0.5, 1.5), lambda m, s: stats.hypsecant(m, s)),
    "Levy": (dist.Levy, (0.5, 1.5), lambda m, s: stats.levy(m, s)),
    "StudentT": (lambda m, s: dist.StudentT(3.0, m, s), (0.5, 1.5), lambda m, s: stats.t(3.0, m, s)),
    "HalfNormal": (dist.HalfNormal, (1.5,), lambda s: stats.halfnorm(0.0, s)),
    "HalfCauchy": (dist.HalfCauchy, (1.5,), lambda s: stats.halfcauchy(0.0, s)),
    "Exponential": (dist.Exponential, (1.5,), lambda r: stats.expon(0.0, 1.0 / r)),
    "Uniform": (dist.Uniform, (-0.5, 1.5), lambda a, b: stats.uniform(a, b - a)),
    "Gamma": (dist.Gamma, (2.5, 1.5), lambda a, r: stats.gamma(a, scale=1.0 / r)),
    "Gamma near zero": (dist.Gamma, (0.3, 1.5), lambda a, r: stats.gamma(a, scale=1.0 / r)),
    "Chi2": (dist.Chi2, (3.0,), lambda df: stats.chi2(df)),
    "Weibull": (dist.Weibull, (1.5, 0.7), lambda s, k: stats.weibull_min(k, scale=s)),
    "Gompertz": (dist.Gompertz, (0.5, 1.5), lambda c, r: stats.gompertz(c, scale=1.0 / r)),
    "Dagum": (dist.Dagum, (0.7, 2.5, 1.5), lambda p, a, b: stats.burr(a, p, scale=b)),
    "AsymmetricLaplace": (
        dist.AsymmetricLaplace,
        (0.5, 1.5, 0.7),
        lambda m, s, k: stats.laplace_asymmetric(k, m, s),
    ),
    "LogNormal": (dist.LogNormal, (0.5, 1.5), lambda m, s: stats.lognorm(s, scale=np.exp(m))),
    "LogUniform": (dist.LogUniform, (0.5, 1.5), lambda a, b: stats.loguniform(a, b)),
    "Pareto": (dist.Pareto, (1.5, 2.5), lambda s, a: stats.pareto(a, scale=s)),
    "InverseGamma": (dist.InverseGamma, (2.5, 1.5), lambda a, b: stats.invgamma(a, scale=b)),
    "Affine of Gamma": (
        lambda a, m, s: dist.TransformedDistribution(dist.Gamma(a), dist.transforms.AffineTransform(m, s)),
        (2.5, 0.5, 1.5),
        lambda a, m, s: stats.gamma(a, m, s),
    ),
}


def slopes(make, parameters, values):
    """d value / d parameter, ``[parameter, value]``."""
    return jnp.stack(jax.jit(jax.jacfwd(lambda ps: pathwise(make(*ps), values)))(parameters))


def assert_along_quantiles(make, parameters, truth) -> None:
    """dx/dp = dQ(u; p)/dp, Q being the quantile function and x = Q(u)."""
    values = truth(*parameters).ppf(QUANTILES)
    with jax.enable_x64(True):
        found = slopes(make, parameters, jnp.asarray(values))
    for i, step in enumerate(1e-4 * np.eye(len(parameters))):
        q = lambda k, step=step: truth(*(parameters + k * step)).ppf(QUANTILES)  # noqa: E731
        right = (8 * (q(1) - q(-1)) - (q(2) - q(-2))) / 12e-4
        np.testing.assert_allclose(found[i], right, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SCALARS)
def test_a_draw_stays_at_its_quantile(name):
    assert_along_quantiles(*SCALARS[name])


def assert_mass_is_kept(make, parameter, value) -> None:
    """Mass that moves with velocity v has ``d log f / dp + v . grad log f + div v = 0``, f being its density.

    At one value, in float64: v is dx/dp, and its divergence is found by central differences.
    """

    def log_density(p, x):
        return make(p).log_prob(x).sum()

    def velocity(p, x):
        return jax.jvp(lambda p: pathwise(make(p), x), (p,), (jnp.ones_like(p),))[1].ravel()

    @jax.jit
    def terms(p, x):
        steps = 1e-5 * jnp.eye(x.size).reshape(x.size, *x.shape)
        slopes = jax.vmap(lambda h: (velocity(p, x + h) - velocity(p, x - h)) / 2e-5)(steps)
        by_parameter, by_value = jax.grad(log_density, (0, 1))(p, x)
        return by_parameter, velocity(p, x) @ by_value.ravel(), jnp.trace(slopes)

    with jax.enable_x64(True):
        change = np.array(terms(jnp.asarray(parameter, float), jnp.asarray(value, float)))
    assert np.max(np.abs(change)) > 1e-2
    np.testing.assert_allclose(change.sum(), 0.0, atol=1e-7 * np.max(np.abs(change)))


ROOT = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.25, 0.75, 1.5]])
X = np.array([0.3, -0.7, 1.1])

OTHERS = {
    "loc": (lambda p: dist.MultivariateNormal(p * jnp.arange(3.0), scale_tril=ROOT), X),
    "scale": (lambda p: dist.MultivariateNormal(jnp.zeros(3), scale_tril=jnp.tril(ROOT + p)), X),
    "covariance": (lambda p: dist.MultivariateNormal(jnp.ones(3), p * jnp.ones(3) + jnp.eye(3)), X),
    "precision": (
        lambda p: dist.MultivariateNormal(jnp.ones(3), precision_matrix=p * jnp.ones(3) + jnp.eye(3)),
        X,
    ),
    "low rank": (
        lambda p: dist.LowRankMultivariateNormal(jnp.sin(p) * jnp.ones(3), p * ROOT[:, :2], p + X**2),
        X,
    ),
    "student": (lambda p: dist.MultivariateStudentT(3.0, jnp.sin(p) * jnp.ones(3), ROOT + p * jnp.eye(3)), X),
    "walk": (lambda p: dist.GaussianRandomWalk(p, 3), X),
    "copies": (lambda p: dist.Gamma(p, p**2).expand([3]).to_event(1), np.abs(X)),
    "rows": (lambda p: dist.Normal(p * jnp.arange(2.0)[:, None], p).expand([2, 3]), np.stack([X, X**2])),
    "logit-normal": (
        lambda p: dist.TransformedDistribution(dist.Normal(p, p), dist.transforms.SigmoidTransform()).expand(
            [3]
        ),
        np.array([0.2, 0.5, 0.9]),
    ),
    "relaxed": (lambda p: dist.RelaxedBernoulliLogits(p, p**2), np.array(0.3)),
    "affine of normals": (
        lambda p: dist.TransformedDistribution(
            dist.Normal(jnp.zeros(3), p).to_event(1),
            dist.transforms.LowerCholeskyAffine(p * jnp.ones(3), ROOT + p * jnp.eye(3)),
        ),
        X,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_moving_draws_keep_their_mass(name):
    make, value = OTHERS[name]
    assert_mass_is_kept(make, 0.7, value)


# ------------------------------------------------------------------------- mutants


module = importlib.import_module("borelax.inference.gradients.pathwise")


def test_noise_that_moves_is_caught(monkeypatch):
    """If the noise moves as well, the value does not."""
    wrong = lambda d, x: lambda moved: moved.loc + moved.scale * ((x - moved.loc) / moved.scale)  # noqa: E731
    monkeypatch.setitem(module._PATHS, dist.Normal, wrong)
    with pytest.raises(AssertionError):
        assert_along_quantiles(*SCALARS["Normal"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda d, x: lambda moved: x * d.rate / moved.rate,
        lambda d, x: lambda moved: x * d.rate / moved.rate * moved.concentration / d.concentration,
    ],
    ids=["by the rate alone", "as a scale"],
)
def test_a_wrong_gamma_is_caught(monkeypatch, wrong):
    monkeypatch.setitem(module._PATHS, dist.Gamma, wrong)
    with pytest.raises(AssertionError):
        assert_along_quantiles(*SCALARS["Gamma"])
    make, value = OTHERS["copies"]
    with pytest.raises(AssertionError):
        assert_mass_is_kept(make, 0.7, value)


def test_a_wrong_root_is_caught(monkeypatch):
    wrong = module._multivariate(lambda d: lax.stop_gradient(d.scale_tril))
    monkeypatch.setitem(module._PATHS, dist.MultivariateNormal, wrong)
    make, value = OTHERS["scale"]
    with pytest.raises(AssertionError):
        assert_mass_is_kept(make, 0.7, value)


# ------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("name", SCALARS)
def test_the_value_is_the_draw_itself(name):
    make, parameters, _ = SCALARS[name]
    d = make(*parameters)
    value = d.sample(jax.random.key(0), (1000,))
    np.testing.assert_array_equal(jax.jit(pathwise)(d, value), value)


def test_what_has_a_path():
    def affine(d):
        return dist.TransformedDistribution(d, dist.transforms.AffineTransform(0.0, 2.0))

    assert has_path(affine(dist.Normal())) and has_path(dist.Gamma(1.0).mask(False))
    assert not has_path(affine(dist.VonMises(0.0, 1.0)))
    assert not has_path(dist.FoldedDistribution(dist.Normal()))  # its inverse has two values
    assert not has_path(dist.TruncatedNormal(low=0.0))
    assert not has_path(dist.Bernoulli(0.5))

    class Mine(dist.Normal):
        """Draws in a way of its own, for all that is known."""

    assert not has_path(Mine(0.0, 1.0))


def test_degrees_of_freedom_have_no_path():
    d = dist.StudentT(3.0, 0.0, 1.0).expand([2]).to_event(1)
    assert [float(x) for x in without_path(d)] == [3.0]
    assert without_path(dist.Gamma(3.0, 1.0)) == []


def test_second_derivatives():
    """Where noise stays, x = loc + scale e is linear; of a Gamma only the first derivative is known."""
    square = lambda d: lambda p: pathwise(d(p), 4.0) ** 2  # noqa: E731
    along_normal = jax.grad(jax.grad(square(lambda s: dist.Normal(1.0, s))))(1.5)
    np.testing.assert_allclose(along_normal, 2 * 2.0**2, rtol=1e-5)
    with pytest.raises(ppl.UnsupportedError, match="Gamma is differentiated again"):
        jax.grad(jax.grad(square(dist.Gamma)))(1.5)


def test_a_point_moves_with_its_value():
    assert jax.grad(lambda v: pathwise(dist.Delta(v), 2.0))(2.0) == 1.0
