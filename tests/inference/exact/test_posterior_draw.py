from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, SEEN, STATES, all_runs, chain, forward_backward
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics


def short_chain():
    """Its path is stacked, and there is one more draw in the end."""

    def step(state, weight):
        state = ppl.sample("state", dist.Bernoulli(jnp.array([0.25, 0.625])[state]))
        ppl.factor(weight * state)
        return state, state

    state, path = lax.scan(step, 1, jnp.array([0.5, -0.25, 1.0]))
    return path, ppl.sample("last", dist.Bernoulli(0.25 + 0.5 * state))


def test_its_law_is_the_posterior():
    """All that it may draw, added up: the law of the value and of the choices, and the density of each."""
    (value, choices), weights = all_runs(short_chain)
    posterior = semantics.Measure.stacked((value, choices), weights / weights.sum())
    drawn = semantics.meaning(inference.posterior_draw(short_chain))()
    assert drawn.map(lambda run: (run.value, run.choices)).distance(posterior) < 1e-12
    log_weight = {repr((v, c)): np.log(w) for v, c, w in _rows(value, choices, weights)}
    for run, weight in drawn:
        if weight > 0:
            assert float(run.log_density) == pytest.approx(
                log_weight[repr(_row(run.value, run.choices))], abs=1e-12
            )


def _rows(value, choices, weights):
    for i, weight in enumerate(weights):
        yield *_row(*jax.tree.map(lambda x, i=i: x[i], (value, choices))), weight


def _row(value, choices):
    return jax.tree.map(lambda x: np.asarray(x).tolist(), (value, choices))


def test_draws_of_a_longer_chain():
    """The states at each time have the probabilities that forward-backward gives."""
    seen, draws = SEEN[:20], 4000
    keys = jax.random.split(jax.random.key(0), draws)
    draw = jax.jit(jax.vmap(ppl.seed(inference.posterior_draw(chain)), in_axes=(0, None, None, None)))
    states = np.asarray(draw(keys, np.float32(MOVES), np.float32(EMITS), seen).choices["state"])
    _, expected = forward_backward(MOVES, EMITS, seen)
    often = expected > 0.02
    assert_mean((states[..., None] == np.arange(STATES))[:, often], expected[often])


def test_without_weight_or_room_its_density_says_so():
    def impossible():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x < 2, -jnp.inf, 0.0))

    def growing(scale):
        def step(x, _):
            return scale * x + ppl.sample("x", dist.Bernoulli(0.5)), None

        return lax.scan(step, 0.0, None, length=4)[0]

    key = jax.random.key(0)
    assert jax.jit(ppl.seed(inference.posterior_draw(impossible)))(key).log_density == -jnp.inf
    draw = jax.jit(ppl.seed(inference.posterior_draw(growing, states=8)))
    assert np.isnan(draw(key, jnp.array(2.5)).log_density)
