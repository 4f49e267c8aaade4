from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, PROGRAMS, SEEN, all_runs, chain, viterbi
from jax import lax

from borelax import inference, ppl
from borelax.ppl.population import DegenerateError


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_it_is_the_best_of_all_runs(program):
    with jax.enable_x64(True):
        mode = jax.jit(inference.posterior_mode(program))()
    runs, weights = all_runs(program)
    best = int(weights.argmax())
    assert float(mode.log_density) == pytest.approx(np.log(weights[best]), abs=1e-12)
    assert weights[weights < weights[best]].max() < weights[best] * (1 - 1e-6)  # it is the only one
    found, expected = (
        jax.tree.map(_present, x, is_leaf=_is_masked)
        for x in ((mode.value, mode.choices), jax.tree.map(lambda x: x[best], runs))
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _is_masked(x) -> bool:
    return isinstance(x, ppl.Masked)


def _present(x):
    return np.where(x.present, x.value, -1) if _is_masked(x) else np.asarray(x)


def test_viterbi():
    """A thousand steps; the density is that of the choices."""
    with jax.enable_x64(True):
        args = (jnp.asarray(MOVES), jnp.asarray(EMITS), SEEN)
        mode = jax.jit(inference.posterior_mode(chain))(*args)
        density = jax.jit(ppl.log_density(chain))(mode.choices, *args)
    path, log_density = viterbi(MOVES, EMITS, SEEN)
    np.testing.assert_array_equal(mode.choices["state"], path)
    np.testing.assert_allclose([mode.log_density, density], log_density, rtol=1e-12)
    assert int(mode.value) == path[-1]


def test_of_equals_it_is_one():
    """Independent coins that must add up to an even number: many best runs, and one joint choice."""

    def coins():
        def step(parity, _):
            x = ppl.sample("x", dist.Bernoulli(0.5))
            return (parity + x) % 2, x

        parity, xs = lax.scan(step, 0, None, length=6)
        ppl.factor(jnp.where(parity == 0, 0.0, -jnp.inf))
        return xs

    mode = jax.jit(inference.posterior_mode(coins))()
    assert int(mode.value.sum()) % 2 == 0
    np.testing.assert_array_equal(mode.value, mode.choices["x"])
    assert float(mode.log_density) == pytest.approx(6 * np.log(0.5), rel=1e-5)


def test_nothing_is_best_where_nothing_has_weight():
    def impossible():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x < 2, -jnp.inf, 0.0))

    with pytest.raises(DegenerateError, match="no run of the program has weight"):
        inference.posterior_mode(impossible)()
    assert jax.jit(inference.posterior_mode(impossible))().log_density == -jnp.inf
