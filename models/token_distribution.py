"""The distribution of one token, made for large vocabularies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

_BLOCK = 256


class TokenDistribution(Distribution):
    """A categorical distribution over a vocabulary of V tokens.

    ``p(v) ~ exp(logits[v] + bias[column[v]])``. The bias belongs to classes of tokens, of which there are
    few, so that a constraint on the vocabulary is a small table. Draws invert the cumulative distribution in
    two levels, blocks of tokens and then tokens of one block, so that a draw costs one uniform and no pass
    over the vocabulary beyond the one that normalises.

    Args:
      logits: float ``[V]``, unnormalised.
      column: int32 ``[V]``, the class of each token (None: no bias).
      bias: float ``[U]``, added to the logits of each class; minus infinity forbids it.
      forced: int32 scalar; a token that is drawn with certainty whatever the logits, or -1.
    """

    arg_constraints = {"logits": constraints.real_vector}
    pytree_data_fields = ("logits", "column", "bias", "forced", "top", "masses")
    has_enumerate_support = True

    def __init__(self, logits, column=None, bias=None, forced=-1):
        self.logits = logits
        self.column = column
        self.bias = bias
        self.forced = jnp.asarray(forced, jnp.int32)
        # Computed here, once, and not where the distribution is used: its density and its draws share them.
        scores = _scores(logits, column, bias)
        top = jnp.max(scores)
        self.top = jnp.where(jnp.isfinite(top), top, 0.0)
        self.masses = jnp.sum(_blocks(jnp.exp(scores - self.top), 0.0), axis=-1)
        super().__init__(batch_shape=(), event_shape=(), validate_args=False)

    @property
    def support(self):
        return constraints.integer_interval(0, self.logits.shape[-1] - 1)

    @property
    def log_normaliser(self):
        """``log sum_v exp(logits[v] + bias[column[v]])``."""
        return self.top + jnp.log(jnp.sum(self.masses))

    @property
    def probs(self):
        """The probabilities of all tokens, ``[V]``."""
        return jnp.exp(jax.vmap(self.log_prob)(jnp.arange(self.logits.shape[-1])))

    def sample(self, key, sample_shape=()):
        if sample_shape:
            draw = self.sample
            for size in reversed(sample_shape):
                draw = _repeated(draw, size)
            return draw(key)
        cumulated = jnp.cumsum(self.masses)
        point = jax.random.uniform(key, dtype=self.masses.dtype) * cumulated[-1]
        block = _first_above(cumulated, self.masses, point)
        row = _block_at(self.logits, block, -jnp.inf)
        if self.column is not None:
            row = row + self.bias[_block_at(self.column, block, 0)]
        within = jnp.exp(row - self.top)
        rest = point - (cumulated[block] - self.masses[block])
        token = block * _BLOCK + _first_above(jnp.cumsum(within), within, rest)
        token = jnp.minimum(token, self.logits.shape[0] - 1)  # in range even if no token has mass
        return jnp.where(self.forced >= 0, self.forced, token).astype(jnp.int32)

    def log_prob(self, value, intermediates=None):
        score = self.logits[value]
        if self.column is not None:
            score = score + self.bias[self.column[value]]
        log_prob = jnp.where(score == -jnp.inf, -jnp.inf, score - self.log_normaliser)
        certain = jnp.where(value == self.forced, 0.0, -jnp.inf)
        return jnp.where(self.forced >= 0, certain, log_prob)

    def enumerate_support(self, expand=True):
        return jnp.arange(self.logits.shape[-1], dtype=jnp.int32)


def _scores(logits, column, bias):
    return logits if column is None else logits + bias[column]


def _blocks(x, fill):
    padding = -x.shape[0] % _BLOCK
    return jnp.pad(x, (0, padding), constant_values=fill).reshape(-1, _BLOCK)


def _block_at(x, block, fill):
    return _blocks(x, fill)[block]


def _first_above(cumulated, masses, point):
    """The first index whose cumulated mass exceeds ``point``, and that has mass at all: rounding must not let in a
    token of probability zero."""
    index = jnp.argmax((cumulated > point) & (masses > 0))
    last = masses.shape[0] - 1 - jnp.argmax(masses[::-1] > 0)
    return jnp.where(cumulated[-1] > point, index, last)


def _repeated(draw, size):
    return lambda key: jax.vmap(draw)(jax.random.split(key, size))
