"""pathwise: how a draw moves with the parameters of its distribution."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import Distribution, TransformedDistribution

from ...ppl.laws import parts
from .held import held


@jax.custom_jvp
def pathwise(d: Distribution, value):
    """``value``, a draw of ``d``, with a derivative in the parameters of ``d``: that of a reparameterisation.

    With T(noise; parameters) a map that makes draws of ``d`` out of noise whose law has no parameters, and e the noise
    of which ``value`` was made, it is that of ``T(e; parameters)`` with e held fixed. For a scalar with distribution
    function F and density f it is

        dx/dp = -(dF/dp) / f(x),

    whatever T is, as long as it increases. A transformed distribution takes it from its base, through its transforms.

    Args:
      d: a distribution that :func:`has_path`.
      value: of shape ``d.shape()``, or with more axes in front. It is taken to move in no other way.

    Source: Kingma and Welling, *Auto-encoding variational Bayes*, ICLR 2014; Figurnov, Mohamed and Mnih, *Implicit
    reparameterization gradients*, NeurIPS 2018.

    >>> jax.grad(lambda scale: pathwise(dist.Normal(1.0, scale), 4.0))(1.5).item()
    2.0
    """
    return value


@pathwise.defjvp
def _velocity(primals, tangents):
    d, value = primals
    value = jnp.asarray(pathwise(d, value))  # it moves in what is computed here, too: for second derivatives
    _, velocity = jax.jvp(_path(d, value), (d,), tangents[:1])
    return value, jnp.broadcast_to(velocity, jnp.shape(value)).astype(value.dtype)


def has_path(d: Distribution) -> bool:
    """Whether draws of ``d`` have a derivative in its parameters, and it is known here.

    >>> has_path(dist.LogNormal(0.0, 1.0).expand([3]).to_event(1)), has_path(dist.VonMises(0.0, 1.0))
    (True, False)
    """
    return has_path(d.base_dist) if _has_base(d) else type(d) in _PATHS


def without_path(d: Distribution) -> list:
    """The parameters of ``d`` along which the derivative is not known: they must be held fixed."""
    return [part.df for part in parts(d) if type(part) in (dist.StudentT, dist.MultivariateStudentT)]


# ------------------------------------------------------------------------- the paths


def _path(d: Distribution, value) -> Callable:
    """``moved -> value``: where the value goes when its distribution moves from ``d`` to ``moved``."""
    if not _has_base(d):
        return _PATHS[type(d)](d, value)
    transforms = () if type(d) in _WRAPPERS else d.transforms
    for transform in reversed(transforms):
        value = transform.inv(value)
    of_base = _path(d.base_dist, value)

    def path(moved):
        value = of_base(moved.base_dist)
        for transform in moved.transforms if transforms else ():
            value = transform(value)
        return value

    return path


def _has_base(d: Distribution) -> bool:
    """Whether a draw of ``d`` is one of its base, as it is or transformed."""
    pushed_forward = (TransformedDistribution.sample, TransformedDistribution.log_prob)
    return type(d) in _WRAPPERS or (type(d).sample, type(d).log_prob) == pushed_forward


_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def _keeping(to_noise: Callable, to_value: Callable) -> Callable:
    """The path along which the noise of a value stays what it is."""

    def path(d, value):
        noise = to_noise(d, value)
        return lambda moved: to_value(moved, noise)

    return path


_located = _keeping(lambda d, x: (x - d.loc) / d.scale, lambda d, e: d.loc + d.scale * e)
_scaled = _keeping(lambda d, x: x / d.scale, lambda d, e: d.scale * e)
_exponential = _keeping(lambda d, x: x * d.rate, lambda d, e: e / d.rate)
_uniform = _keeping(lambda d, x: (x - d.low) / (d.high - d.low), lambda d, e: d.low + (d.high - d.low) * e)
_random_walk = _keeping(lambda d, x: x / d.scale[..., None], lambda d, e: d.scale[..., None] * e)


def _delta(d, value):
    return lambda moved: moved.v


def _gamma(d, value):
    """A Gamma(a, 1) variate moves with a, and is divided by the rate."""
    unit = value * d.rate
    concentration = jnp.broadcast_to(d.concentration, unit.shape).astype(unit.dtype)
    speed = held(lax.random_gamma_grad(concentration, unit), (concentration, unit), _NOT_TWICE)
    return lambda moved: (unit + speed * (moved.concentration - concentration)) / moved.rate


_NOT_TWICE = (
    "the pathwise derivative of a Gamma is differentiated again, and how its draws move is known to first order only: "
    "use grad='score'"
)


def _along_quantiles(d, value):
    """F(x) stays what it is."""
    density = jnp.exp(d.log_prob(value))
    return lambda moved: value - (moved.cdf(value) - d.cdf(value)) / density


def _multivariate(root: Callable) -> Callable:
    """``loc + root @ noise``."""

    def to_noise(d, value):
        lower = jnp.broadcast_to(root(d), (*value.shape, value.shape[-1]))
        return lax.linalg.triangular_solve(lower, (value - d.loc)[..., None], left_side=True, lower=True)

    return _keeping(to_noise, lambda d, e: d.loc + (root(d) @ e)[..., 0])


def _cholesky_of_low_rank(d):
    """Not the root that numpyro draws with, but one of the same covariance."""
    factor, eye = d.cov_factor, jnp.eye(d.cov_diag.shape[-1])
    return jnp.linalg.cholesky(factor @ jnp.swapaxes(factor, -1, -2) + d.cov_diag[..., None] * eye)


_PATHS: dict[type, Callable] = {
    **dict.fromkeys([dist.Normal, dist.Laplace, dist.Logistic, dist.Gumbel, dist.Cauchy], _located),
    **dict.fromkeys([dist.StudentT, dist.SoftLaplace, dist.Levy], _located),
    **dict.fromkeys([dist.HalfNormal, dist.HalfCauchy], _scaled),
    **dict.fromkeys([dist.Gamma, dist.Chi2], _gamma),
    **dict.fromkeys([dist.Weibull, dist.Gompertz, dist.AsymmetricLaplace, dist.Dagum], _along_quantiles),
    **dict.fromkeys(
        [dist.MultivariateNormal, dist.MultivariateStudentT], _multivariate(lambda d: d.scale_tril)
    ),
    dist.LowRankMultivariateNormal: _multivariate(_cholesky_of_low_rank),
    dist.GaussianRandomWalk: _random_walk,
    dist.Exponential: _exponential,
    dist.Uniform: _uniform,
    dist.Delta: _delta,
}
