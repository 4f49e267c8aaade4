from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, SEEN, all_runs, automaton, chain, forward_backward
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl.recorded import recorded


def weighed_chain():
    """Outputs, an input that is drawn, a branch, and straight-line code before and after the scan."""
    xs = jax.vmap(lambda p: ppl.sample("x", dist.Bernoulli(p)))(jnp.array([0.25, 0.5]))
    ppl.factor(0.5 * xs[0])

    def step(state, x):
        state = ppl.sample("state", dist.Bernoulli(0.25 + 0.5 * state))
        y = lax.cond(state == x, lambda: ppl.sample("y", dist.Bernoulli(0.75)), lambda: 0)
        ppl.factor(0.75 * y - 0.25 * state)
        return state, (state, y)

    state, path = lax.scan(step, 1, xs)
    return xs, path, ppl.sample("last", dist.Bernoulli(0.25 + 0.5 * state))


def test_it_is_properly_weighted():
    assert (
        semantics.properly_weighted(inference.discrete_smc(weighed_chain, 2), weighed_chain)().error < 1e-12
    )


def test_with_enough_runs_nothing_is_left_to_chance():
    _, weights = all_runs(automaton)
    whole = jax.jit(ppl.seed(inference.discrete_smc(automaton, 2 * len(weights))))
    for seed in range(2):
        evidence = float(jnp.exp(whole(jax.random.key(seed)).log_evidence))
        assert evidence == pytest.approx(weights.sum(), rel=1e-5)


def test_no_run_is_there_twice():
    """And the evidence is right on average."""
    args = (np.float32(MOVES), np.float32(EMITS), SEEN[:10])
    run = jax.jit(
        jax.vmap(ppl.seed(inference.discrete_smc(recorded(chain), 3)), in_axes=(0, None, None, None))
    )
    population = run(jax.random.split(jax.random.key(0), 2000), *args)
    paths = np.asarray(population.value[1]["state"])
    assert np.all(np.isfinite(population.log_weight))
    assert all(len(np.unique(three, axis=0)) == 3 for three in paths)
    log_evidence, _ = forward_backward(*(np.asarray(x, np.float64) for x in args[:2]), args[2])
    assert_mean(jnp.exp(population.log_evidence - log_evidence), 1.0)


def switching(values):
    """A hidden Markov chain that moves a level; drawn values where levels are drawn, and from a proposal."""

    def step(carry, value):
        state, level = carry
        state = ppl.sample("state", dist.Bernoulli(jnp.array([0.25, 0.625])[state]))
        guide = dist.Categorical(jnp.array([0.25, 0.25, 0.5]))
        level = ppl.sample("level", dist.Categorical(jnp.array([0.5, 0.25, 0.25])), proposal=guide)
        ppl.factor(-0.5 * (level + state - value) ** 2)
        return (state, level), state

    return lax.scan(step, (0, 0), values)[1]


def test_some_sites_branch_and_others_are_drawn():
    values = jnp.array([0.0, 2.0])
    algorithm = inference.discrete_smc(switching, 2, ppl.select("state"))
    drawn = ppl.trace_type(algorithm)(values)
    assert "level" in drawn and "state" not in drawn
    assert semantics.properly_weighted(algorithm, switching)(values).error < 1e-12


def test_what_is_refused():
    values = jnp.array([0.0])
    with pytest.raises(ppl.AddressError, match="did you mean 'state'"):
        jax.eval_shape(
            ppl.seed(inference.discrete_smc(switching, 2, ppl.select("stat"))), jax.random.key(0), values
        )
    normal = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="whose support is not finite"):
        ppl.seed(inference.discrete_smc(normal, 2, ppl.select("x")))(jax.random.key(0))
    assert ppl.seed(inference.discrete_smc(normal, 2))(jax.random.key(0)).value.shape == (2,)
