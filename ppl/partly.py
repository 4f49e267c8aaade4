"""Values of which only some elements are known: missing data, and the first steps of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, Independent


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Partly:
    """A choice of which some elements are known; see :func:`partly` and :func:`prefix`.

    Attributes:
      value: shaped like the site's value; meaningless where it is not known.
      known: bool, shaped like the value without the axes of one event of the site's distribution.
    """

    value: Any
    known: Any


@dataclass(frozen=True)
class Prefix:
    """The first steps of a choice, along its first axis."""

    value: Any


def partly(value, known=None) -> Partly:
    """A value to condition on of which only some elements are known; the others stay to be sampled.

    Args:
      value: an array shaped like the site's value.
      known: bool, which elements are known: shaped like the value, without the axes of one event (an event of a
        multivariate distribution is known as a whole or not at all). If left out, NaN marks what is not known.

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> model = lambda: ppl.sample("y", dist.Normal(0.0, 1.0).expand([3]))
    >>> posterior = ppl.condition(model, {"y": ppl.partly([5.0, jnp.nan, 7.0])})
    >>> y = ppl.simulate(posterior)(jax.random.key(0)).value
    >>> float(y[0]), float(y[2])
    (5.0, 7.0)
    """
    if known is not None:
        return Partly(value, known)
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"a value of dtype {value.dtype} has no NaN to mark what is missing: say what is known, "
            "ppl.partly(value, known)"
        )
    return Partly(value, None)


def prefix(value) -> Prefix:
    """The first steps of a site inside a scan (or the first rows of any site), to condition on.

    Args:
      value: an array shaped like the site's value but for a shorter first axis.

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> step = lambda x, _: (ppl.sample("x", dist.Normal(x, 1.0)),) * 2
    >>> walk = lambda: jax.lax.scan(step, 0.0, None, length=5)[1]
    >>> forecast = ppl.condition(walk, {"x": ppl.prefix([1.0, 2.0])})
    >>> ppl.simulate(forecast)(jax.random.key(0)).value[:2].tolist()
    [1.0, 2.0]
    """
    return Prefix(value)


# ------------------------------------------------------------------------- what a site becomes


class Remaining(Distribution):
    """The law of a site of which some elements are known: those are fixed, the others drawn from ``base``."""

    arg_constraints = {}
    pytree_data_fields = ("base", "value", "known")

    def __init__(self, base: Distribution, value, known):
        self.base, self.value, self.known = base, value, known
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self):
        return self.base.support

    @property
    def has_enumerate_support(self) -> bool:
        return self.base.has_enumerate_support

    def sample(self, key, sample_shape=()):
        return self._filled(self.base.sample(key, sample_shape))

    def log_prob(self, value, intermediates=None):
        same = value == self.value
        agrees = jnp.all(same, axis=tuple(range(same.ndim - self.event_dim, same.ndim)))
        return jnp.where(self.known, jnp.where(agrees, 0.0, -jnp.inf), self.base.log_prob(value))

    def enumerate_support(self, expand=True):
        return self._filled(self.base.enumerate_support(expand=True))

    def enumerate_log_probs(self):
        """Of the rows of ``enumerate_support()``: a known element has its one value in the first row."""
        log_probs = self.base.log_prob(self.base.enumerate_support(expand=True))
        rows = jnp.arange(log_probs.shape[0]).reshape(-1, *(1,) * (log_probs.ndim - 1))
        return jnp.where(self.known, jnp.where(rows == 0, 0.0, -jnp.inf), log_probs)

    def _filled(self, drawn):
        return jnp.where(self.known.reshape(self.known.shape + (1,) * self.event_dim), self.value, drawn)


def remaining(d: Distribution, value, known) -> Distribution:
    """``d`` with its known elements fixed, over the same events."""
    if isinstance(d, Independent):
        return remaining(d.base_dist, value, known).to_event(d.reinterpreted_batch_ndims)
    return Remaining(d, value, known)


def known_log_prob(d: Distribution, value, known):
    """The log density of the known elements of ``value`` alone, minus infinity if one is outside the support."""
    if isinstance(d, Independent):
        return known_log_prob(d.base_dist, value, known)
    inside = True if d.support is None else d.support(value)
    return jnp.sum(jnp.where(known, jnp.where(inside, d.log_prob(value), -jnp.inf), 0.0))


def is_supported(d: Distribution, value, known=None):
    """Whether all known elements of ``value`` are in the support of ``d`` (all elements, if ``known`` is None)."""
    if isinstance(d, Independent):
        return is_supported(d.base_dist, value, known)
    inside = jnp.asarray(True if d.support is None else d.support(value))
    return jnp.all(inside if known is None else inside | ~known)


def event_dim(d: Distribution) -> int:
    """How many axes one event has that cannot be known in part."""
    return event_dim(d.base_dist) if isinstance(d, Independent) else d.event_dim
