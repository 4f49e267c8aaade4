"""LinearGaussian: state spaces in which everything is linear and Gaussian, so that all is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from ..ppl import factor, sample
from ..ppl.errors import BorelaxError


class StateSpaceError(BorelaxError, ValueError):
    """The arrays of a state space, or its data, do not have shapes that go together."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearGaussian:
    """A linear-Gaussian state space, with states x of dimension d and observations y of dimension m:

        x_0 ~ N(mean, covariance)
        x_t ~ N(transition x_{t-1} + drift, transition_noise)
        y_t ~ N(emission x_t + offset, emission_noise)

    It is a pytree, to be passed to programs as an argument. :meth:`generate` is the program that draws from it, and
    :meth:`posterior` the one that draws the states exactly, given observations: both have the states at the site "x",
    so that one can stand for the other. NaN in observations marks what is missing, as in the future.

    Computed with triangular square roots of all covariances, which keep them positive definite in single precision;
    and what the future says of a state, as its distance from the filtered mean, so that large means cost no digits.

    Attributes:
      mean, covariance: of the first state, ``[d]`` and ``[d, d]``.
      transition, transition_noise: ``[d, d]``. With a leading axis T - 1 they change with time: the first entry is the
        way from x_0 to x_1.
      emission, emission_noise: ``[m, d]`` and ``[m, m]``; with a leading axis T if they change with time.
      drift, offset: ``[d]`` and ``[m]``, or with the same leading axes; zero if left out.

    All covariances must be symmetric and positive definite: where one is not definite, what comes out is NaN; where one
    is not symmetric, as the square root of a covariance is not, it is refused, unless it is traced.

    Source: Kalman, *A new approach to linear filtering and prediction problems*, Journal of Basic Engineering 82
    (1960); Kailath, Sayed and Hassibi, *Linear Estimation* (2000), chapter 12, for the square roots.

    >>> level = LinearGaussian(jnp.zeros(1), jnp.eye(1), jnp.eye(1), jnp.eye(1), jnp.eye(1), jnp.eye(1))
    >>> known = level.filter(jnp.array([[1.0], [jnp.nan]]))
    >>> [round(float(x), 3) for x in (known.mean[1, 0], known.covariance[1, 0, 0])]
    [0.5, 1.5]
    """

    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]
    transition: Float[Array, "*steps d d"]
    transition_noise: Float[Array, "*steps d d"]
    emission: Float[Array, "*times m d"]
    emission_noise: Float[Array, "*times m m"]
    drift: Float[Array, "*steps d"] | None = None
    offset: Float[Array, "*times m"] | None = None

    def generate(self, length: int) -> tuple[Float[Array, "T d"], Float[Array, "T m"]]:
        """The program that draws the states, at the site "x", and the observations, at the site "y".

        Condition it on observations that are there as a whole, by ``ppl.partly`` if at some times there is none. Of one
        that is missing in part, the rest is used by :meth:`filter`, :meth:`smooth` and :meth:`posterior` alone.

        Args:
          length: T, a Python integer: under ``jit``, a static argument.

        Raises:
          StateSpaceError: the arrays do not go together, or are for another number of steps.
        """
        emission, offset, noise = self._emissions(length)

        def step(before, now):
            (gain, drift, tril), emission, offset, root = now
            x = sample("x", dist.MultivariateNormal(gain @ before + drift, scale_tril=tril))
            y = sample("y", dist.MultivariateNormal(emission @ x + offset, scale_tril=root))
            return x, (x, y)

        inputs = (self._forwards(length), emission, offset, jnp.linalg.cholesky(noise))
        return lax.scan(step, self._origin[0], inputs)[1]

    def filter(self, ys: Float[Array, "T m"]) -> Moments:
        """What is known of each state from the observations up to its time, and the log evidence of all of them.

        Raises:
          StateSpaceError: as ``generate`` does; or ``ys`` has another shape.
        """
        mean, tril, log_evidence = self._filtered(ys)
        return Moments(mean, _square(tril), log_evidence)

    def smooth(self, ys: Float[Array, "T m"]) -> Moments:
        """What is known of each state from all observations, and their log evidence.

        Source: Rauch, Tung and Striebel, *Maximum likelihood estimates of linear dynamic systems*, AIAA Journal 3
        (1965).
        """
        filtered, backwards, log_evidence = self._backwards(ys)

        def step(later, link):
            now = _pushed(*later, *link)
            return now, now

        _, (distance, tril) = lax.scan(step, self._origin, backwards, reverse=True)
        return Moments(filtered + distance, _square(tril), log_evidence)

    def posterior(self, ys: Float[Array, "T m"]) -> Float[Array, "T d"]:
        """The program that draws the states given the observations, with the evidence as a factor.

        It denotes the measure of ``generate`` conditioned on ``ys``, and has its density at each path of the site "x",
        but draws from the posterior: the last state first, and each other one given the next.

        Source: Frühwirth-Schnatter, *Data augmentation and dynamic linear models*, Journal of Time Series Analysis 15
        (1994).

        >>> from borelax import ppl
        >>> level = LinearGaussian(jnp.zeros(1), jnp.eye(1), jnp.eye(1), jnp.eye(1), jnp.eye(1), 1e-12 * jnp.eye(1))
        >>> path, _ = ppl.seed(ppl.weigh(LinearGaussian.posterior))(jax.random.key(0), level, jnp.ones((3, 1)))
        >>> [round(x, 3) for x in path.ravel().tolist()]
        [1.0, 1.0, 1.0]
        """
        filtered, backwards, log_evidence = self._backwards(ys)
        factor(log_evidence, "evidence")

        def step(later, now):
            mean, (gain, drift, tril) = now
            # The mean is added to the draw: a pull towards it may be too small a change of the last draw to add before.
            distance = dist.MultivariateNormal(gain @ later + drift, scale_tril=tril)
            x = sample("x", dist.TransformedDistribution(distance, AffineTransform(mean, 1.0)))
            return x - mean, x

        return lax.scan(step, self._origin[0], (filtered, backwards), reverse=True)[1]

    def _filtered(self, ys):
        """Means ``[T, d]`` and square roots ``[T, d, d]`` given the past, and the log evidence."""
        ys, (_, m) = jnp.asarray(ys, self._dtype), self._sizes
        if ys.shape[1:] != (m,):
            raise StateSpaceError(f"the observations have shape {ys.shape}, but the emission is for [T, {m}]")
        emissions = self._emissions(len(ys))

        def step(belief, now):
            link, y, *emission = now
            mean, tril, log_density = _updated(*_pushed(*belief, *link), y, *emission)
            return (mean, tril), (mean, tril, log_density)

        _, (mean, tril, log_density) = lax.scan(step, self._origin, (self._forwards(len(ys)), ys, *emissions))
        return mean, tril, log_density.sum()

    def _backwards(self, ys):
        """The filtered means; the chain of distances from them given all observations, from the last state to the
        first, as links like those of ``_forwards``; and the log evidence."""
        mean, tril, log_evidence = self._filtered(ys)
        forwards = jax.tree.map(lambda x: x[1:], self._forwards(len(ys)))

        def turned(mean, tril, later, gain, drift, noise):
            _, back, rest = _joint(noise, gain, tril)
            return back, back @ (later - gain @ mean - drift), rest

        links = jax.vmap(turned)(mean[:-1], tril[:-1], mean[1:], *forwards)
        last = self._origin[1], self._origin[0], tril[-1]
        return mean, tuple(jnp.concatenate([x, y[None]]) for x, y in zip(links, last)), log_evidence

    @property
    def _dtype(self):
        return jnp.result_type(jnp.float32, *jax.tree.leaves(self))

    @property
    def _sizes(self) -> tuple[int, int]:
        """Of a state and of an observation."""
        mean, emission = jnp.shape(self.mean), jnp.shape(self.emission)
        if len(mean) != 1 or len(emission) < 2:
            raise StateSpaceError(
                f"mean and emission have shapes {mean} and {emission}: they must be [d] and [m, d]"
            )
        return mean[0], emission[-2]

    @property
    def _origin(self):
        """The state before the first one: zero, for certain. Its mean, and the square root of its covariance."""
        d, _ = self._sizes
        return jnp.zeros(d, self._dtype), jnp.zeros((d, d), self._dtype)

    def _forwards(self, length: int):
        """The chain of states as links ``x_t ~ N(gain x_{t-1} + drift, tril tril^T)``, where x_{-1} is zero."""
        d, _ = self._sizes
        first = (
            self._origin[1],
            self._array("mean", self.mean, [(d,)]),
            jnp.linalg.cholesky(self._array("covariance", self.covariance, [(d, d)])),
        )
        steps = (
            self._over_time("transition", self.transition, (d, d), length - 1),
            self._over_time("drift", jnp.zeros(d) if self.drift is None else self.drift, (d,), length - 1),
            self._over_time(
                "transition_noise", self.transition_noise, (d, d), length - 1, jnp.linalg.cholesky
            ),
        )
        return tuple(jnp.concatenate([x[None], rest]) for x, rest in zip(first, steps))

    def _emissions(self, length: int):
        """Emissions, offsets and noise, each with a leading axis T."""
        if not isinstance(length, int | np.integer):
            raise StateSpaceError(
                f"the number of times must be a Python integer, got {type(length).__name__}: under jit, make it a "
                "static argument, or a constant, as in lambda model: model.generate(100)"
            )
        if length < 1:
            raise StateSpaceError(f"a state space has at least one time, and {length} are asked for")
        d, m = self._sizes
        return (
            self._over_time("emission", self.emission, (m, d), length),
            self._over_time("offset", jnp.zeros(m) if self.offset is None else self.offset, (m,), length),
            self._over_time("emission_noise", self.emission_noise, (m, m), length),
        )

    def _over_time(self, name: str, x, shape: tuple[int, ...], length: int, change=lambda x: x):
        """An array with a leading axis for time, changed, and repeated along it if it has none."""
        x = change(self._array(name, x, [shape, (length, *shape)]))
        return jnp.broadcast_to(x, (length, *shape))

    def _array(self, name: str, x, shapes: list[tuple[int, ...]]):
        """An array of one of these shapes, symmetric if it is a covariance."""
        x = jnp.asarray(x, self._dtype)
        if x.shape not in shapes:
            raise StateSpaceError(
                f"{name} has shape {x.shape}: with the other arrays, and this number of observations, it must be "
                + ", or ".join([str(shapes[0]), *(f"{shape} to change with time" for shape in shapes[1:])])
            )
        if name in _COVARIANCES and _is_asymmetric(x):
            raise StateSpaceError(
                f"{name} is not symmetric: give the covariance itself, tril @ tril.T, and not its square root"
            )
        return x


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """What is known of the states of a :class:`LinearGaussian`.

    Attributes:
      mean, covariance: of each state, ``[T, d]`` and ``[T, d, d]``.
      log_evidence: the log density of all observations, those that are missing integrated out.
    """

    mean: Float[Array, "T d"]
    covariance: Float[Array, "T d d"]
    log_evidence: Float[Array, ""]


_COVARIANCES = ("covariance", "transition_noise", "emission_noise")


def _is_asymmetric(x) -> bool:
    """Whether a covariance is known not to be symmetric, and not by rounding."""
    if isinstance(x, jax.core.Tracer):
        return False
    x = np.asarray(x)
    return bool(np.any(np.abs(x - np.swapaxes(x, -1, -2)) > 1e-4 * np.abs(x).max(initial=0.0)))


# ------------------------------------------------------------------------- one step, in square roots


def _pushed(mean, tril, gain, drift, noise):
    """The mean and the square root of ``gain x + drift + noise``, for x with these."""
    return gain @ mean + drift, _triangular(jnp.concatenate([gain @ tril, noise], 1))


def _updated(mean, tril, y, emission, offset, noise):
    """The mean and the square root of a state given ``y``, and the log density of y.

    What is missing of y is taken to be zero, to have nothing to do with the state, and to have variance one.
    """
    seen = ~jnp.isnan(y)
    noise = jnp.where(seen[:, None] & seen, noise, jnp.eye(len(y), dtype=noise.dtype))
    emission = jnp.where(seen[:, None], emission, 0.0)
    residual = jnp.where(seen, jnp.where(seen, y, 0.0) - offset - emission @ mean, 0.0)
    spread, gain, rest = _joint(jnp.linalg.cholesky(noise), emission, tril)
    log_density = dist.MultivariateNormal(jnp.zeros_like(y), scale_tril=spread).log_prob(residual)
    missing = -dist.Normal(jnp.zeros_like(y), jnp.ones_like(y)).log_prob(jnp.zeros_like(y))
    return mean + gain @ residual, rest, log_density + jnp.sum(jnp.where(seen, 0.0, missing))


def _joint(noise, matrix, tril):
    """For x with the square root ``tril`` and v = matrix x + noise: the square root of v; the gain, by which a change
    of v moves the mean of x given v; and the square root of x given v."""
    k = len(noise)
    above = jnp.concatenate([noise, matrix @ tril], 1)
    below = jnp.concatenate([jnp.zeros((len(tril), k), tril.dtype), tril], 1)
    both = _triangular(jnp.concatenate([above, below]))
    gain = solve_triangular(both[:k, :k], both[k:, :k].T, lower=True, trans=1).T
    return both[:k, :k], gain, both[k:, k:]


def _triangular(matrix):
    """The lower triangular L with ``L L^T = matrix matrix^T`` and a diagonal that is not negative."""
    upper = jnp.linalg.qr(matrix.T, mode="r")
    return (upper * jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0)[:, None]).T


def _square(tril):
    return tril @ jnp.swapaxes(tril, -1, -2)
