"""optimal_resampling: of N weighted members n different ones, without replacement and without bias."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints


class Threshold(NamedTuple):
    """Where to cut weights.

    Attributes:
      order: the members by weight, the heaviest first, ``int32[N]``.
      kept: how many of them are kept for sure.
      log_weight: the log weight of every other one that survives.
    """

    order: jax.Array
    kept: jax.Array
    log_weight: jax.Array


def threshold(log_weights, n: int) -> Threshold:
    """The cut that leaves n of N > n members: with weights w it is the c for which

        sum_i min(1, w_i / c) = n.

    A member of weight at least c is kept, with its weight. Any other survives with probability ``w_i / c``, and has
    weight c from then on. Of all unbiased ways to come to n members this has the least expected squared error of the
    weights.

    Source: Fearnhead and Clifford, *On-line inference for hidden Markov models via particle filters*, JRSS B 65 (2003).

    >>> cut = threshold(jnp.log(jnp.array([0.1, 0.6, 0.1, 0.2])), 2)
    >>> int(cut.kept), round(float(jnp.exp(cut.log_weight)), 4)
    (1, 0.4)
    """
    order = jnp.argsort(-log_weights).astype(jnp.int32)
    ordered = log_weights[order]
    top = jnp.where(jnp.isfinite(ordered[0]), ordered[0], 0.0)
    weight = jnp.exp(ordered - top)
    rest = jnp.cumsum(weight[::-1])[::-1]  # of each member and all that are lighter
    places = n - jnp.arange(len(ordered))
    is_kept = (places > 0) & (weight * places >= rest)
    kept = jnp.sum(jnp.cumprod(is_kept))
    left = jnp.append(rest, 0.0)[kept]
    share = jnp.where(left == 0, 1.0, left) / jnp.maximum(n - kept, 1)
    return Threshold(order, kept, jnp.where(left == 0, -jnp.inf, jnp.log(share) + top))


class OptimalResampling(Distribution):
    """The law of the n survivors, ``int32[n]``: indices, the kept ones first, all different if n have weight.

    One uniform number decides, by systematic resampling of those that are not kept: at most N + 1 outcomes are
    possible.
    """

    arg_constraints = {"log_weights": constraints.real_vector}
    pytree_aux_fields = ("n",)
    has_enumerate_support = True

    def __init__(self, log_weights, n: int):
        self.log_weights, self.n = jnp.asarray(log_weights), n
        super().__init__(batch_shape=(), event_shape=(n,), validate_args=False)

    @property
    def support(self):
        return constraints.independent(constraints.integer_interval(0, len(self.log_weights) - 1), 1)

    def sample(self, key, sample_shape=()):
        u = jax.random.uniform(key, sample_shape, dtype=self.log_weights.dtype)
        return jnp.vectorize(self._at, signature="()->(n)")(u)

    def enumerate_support(self, expand=True):
        """``int32[N + 1, n]``: the outcomes of the intervals of u. Some may repeat, or have probability zero."""
        edges = self._edges()
        return jax.vmap(self._at)((edges[1:] + edges[:-1]) / 2)

    def enumerate_log_probs(self):
        """The log lengths of those intervals, ``[N + 1]``."""
        return jnp.log(jnp.diff(self._edges()))

    def log_prob(self, value, intermediates=None):
        same = jnp.all(jnp.expand_dims(value, -2) == self.enumerate_support(), axis=-1)
        return jax.nn.logsumexp(jnp.where(same, self.enumerate_log_probs(), -jnp.inf), axis=-1)

    def _at(self, u):
        """The survivors for one uniform number: of the lighter ones those in whose part of the line u + k falls."""
        order, kept, _ = threshold(self.log_weights, self.n)
        points = jnp.arange(self.n) - kept + u
        heirs = jnp.searchsorted(self._line(), points, side="right")
        last = jnp.max(jnp.where(self.log_weights[order] > -jnp.inf, jnp.arange(len(order)), 0))
        return order[jnp.where(jnp.arange(self.n) < kept, jnp.arange(self.n), jnp.minimum(heirs, last))]

    def _line(self):
        """The probabilities of the lighter ones to survive, cumulated in order of weight: from 0 to how many do."""
        order, kept, log_weight = threshold(self.log_weights, self.n)
        lighter = jnp.arange(len(order)) >= kept
        chance = jnp.where(
            lighter & (log_weight > -jnp.inf), jnp.exp(self.log_weights[order] - log_weight), 0.0
        )
        return jnp.cumsum(chance)

    def _edges(self):
        line = self._line()
        return jnp.sort(jnp.concatenate([line - jnp.floor(line), jnp.array([0.0, 1.0], line.dtype)]))
