from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from thresholds import FALSE_ALARM_RATE

from borelax.models import TokenDistribution


@pytest.mark.parametrize("size", [3, 256, 257, 1000])
@pytest.mark.parametrize("biased", [False, True])
def test_draws_follow_the_probabilities(size, biased):
    logits = 2.0 * jax.random.normal(jax.random.key(1), (size,))
    column = jnp.arange(size, dtype=jnp.int32) % 3
    bias = jnp.array([0.0, -jnp.inf, -1.0])
    d = TokenDistribution(logits, column, bias) if biased else TokenDistribution(logits)
    expected = jax.nn.softmax(logits + bias[column] if biased else logits)
    np.testing.assert_allclose(d.probs, expected, rtol=1e-5, atol=1e-9)
    draws = np.asarray(jax.jit(lambda key: d.sample(key, (200_000,)))(jax.random.key(0)))
    counts, expected = np.bincount(draws, minlength=size), np.asarray(expected, np.float64) * len(draws)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    expected *= counts.sum() / expected.sum()
    assert stats.chisquare(counts[kept], expected[kept]).pvalue > FALSE_ALARM_RATE


def test_a_forced_token_is_certain():
    d = TokenDistribution(jnp.zeros(5), forced=2)
    assert np.all(d.sample(jax.random.key(0), (50,)) == 2)
    np.testing.assert_array_equal(
        jax.vmap(d.log_prob)(jnp.arange(5)), np.where(np.arange(5) == 2, 0.0, -np.inf)
    )


def test_without_any_mass_every_density_is_zero():
    d = TokenDistribution(jnp.zeros(5), jnp.zeros(5, jnp.int32), jnp.array([-jnp.inf]))
    assert np.all(jax.vmap(d.log_prob)(jnp.arange(5)) == -np.inf)
    assert 0 <= int(d.sample(jax.random.key(0))) < 5


def test_a_zero_probability_token_at_a_boundary_is_never_drawn():
    logits = jnp.where(jnp.arange(600) % 2 == 0, -jnp.inf, 0.0).at[300:].set(-jnp.inf)
    draws = TokenDistribution(logits).sample(jax.random.key(0), (20_000,))
    assert np.all(np.asarray(draws) % 2 == 1) and int(jnp.max(draws)) < 300
