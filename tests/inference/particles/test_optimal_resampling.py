from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thresholds import assert_mean, z_threshold

from borelax.inference.particles.optimal_resampling import OptimalResampling, threshold

WEIGHTS = np.array([0.1, 0.6, 0.05, 0.2, 0.05])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_cut_solves_its_equation(n):
    def asked(log_weights):
        law = OptimalResampling(log_weights, n)
        return threshold(log_weights, n), law.enumerate_support(), jnp.exp(law.enumerate_log_probs())

    with jax.enable_x64(True):
        cut, outcomes, chance = jax.tree.map(np.asarray, jax.jit(asked)(np.log(WEIGHTS)))
    level = np.exp(cut.log_weight)
    assert np.minimum(1.0, WEIGHTS / level).sum() == pytest.approx(n, abs=1e-12)
    heavy = set(np.flatnonzero(WEIGHTS > level * (1 - 1e-9)).tolist())
    assert set(cut.order[: cut.kept].tolist()) <= heavy

    # Without replacement and without bias: all survivors differ, and each is there as often as it should be.
    possible = chance > 0
    assert all(len(set(row)) == n for row in outcomes[possible].tolist())
    survives = chance @ (outcomes[..., None] == np.arange(5)).any(1)
    np.testing.assert_allclose(survives, np.minimum(1.0, WEIGHTS / level), atol=1e-12)


def test_draws_are_as_enumerated():
    law = OptimalResampling(jnp.log(WEIGHTS), 2)
    drawn = np.asarray(jax.jit(lambda key: law.sample(key, (4000,)))(jax.random.key(0)))
    assert_mean((drawn[..., None] == np.arange(5)).any(1)[:, [0, 3]], np.array([0.25, 0.5]))
    assert (drawn[:, 0] == 1).all()
    rows, counts = np.unique(drawn, axis=0, return_counts=True)
    *chance, never = np.exp(jax.jit(law.log_prob)(np.array([*rows, [1, 1]])))
    np.testing.assert_allclose(chance, counts / 4000, atol=z_threshold(3) * 0.5 / np.sqrt(4000))
    assert sum(chance) == pytest.approx(1.0, rel=1e-5) and never == 0.0


def test_members_without_weight():
    law = OptimalResampling(jnp.array([-jnp.inf, 0.0, -jnp.inf, 1.0]), 3)
    assert {3, 1} <= set(law.sample(jax.random.key(0)).tolist())
    assert threshold(law.log_weights, 3).log_weight == -jnp.inf
    assert np.isnan(threshold(law.log_weights.at[0].set(jnp.nan), 1).log_weight)
