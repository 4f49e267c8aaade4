"""What slots held, by the weights of later times: exact of one run, and in the mean over runs that of the model."""

from __future__ import annotations

import hidden_markov as hmm
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl

N, YS = 20, np.sin(np.arange(6)).astype(np.float32)


def wandering(ys):
    """Suspends before a loop that runs backwards, after its steps, and is advised there."""
    start = ppl.sample("start", dist.Normal(0.0, 1.0))
    ppl.factor(start)

    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.25), y)
        ppl.twist(-((x - y) ** 2))
        return x, x

    return start, jax.lax.scan(step, start, ys, reverse=True)[1]


def rows_of(trace):
    return jnp.concatenate([trace.choices["start"][None], trace.choices["x"]])


@jax.jit
def wandered(key):
    """A run, and what is smoothed inside jit."""
    trace = ppl.simulate(inference.smc(wandering, N))(key, YS)
    return trace, inference.genealogy(trace).fixed_lag(rows_of(trace), 2)


@pytest.fixture(scope="module")
def run():
    trace, smoothed = wandered(jax.random.key(0))
    return trace, inference.genealogy(trace), smoothed


def test_a_long_lag_has_the_paths_of_the_population(run):
    trace, found, _ = run
    start, x = trace.value.value
    for lag in (6, 100):
        population = found.fixed_lag(rows_of(trace), lag)
        np.testing.assert_array_equal(population.value, np.concatenate([start[:, None], x], 1).T)
        np.testing.assert_array_equal(population.log_weight, np.tile(trace.value.log_weight, (7, 1)))
    last = jax.tree.map(lambda x: x[1], population)  # the last step of a loop that runs backwards
    np.testing.assert_array_equal(last.origin, trace.value.origin)
    assert last.generations == trace.value.generations > 2
    np.testing.assert_allclose(last.log_growth, trace.value.log_growth, rtol=1e-5)


@pytest.mark.parametrize("lag", [0, 1, 3, 5])
def test_ancestors_are_followed_as_far_as_the_lag(run, lag):
    trace, found, _ = run
    values, times = np.asarray(rows_of(trace)), [0, 6, 5, 4, 3, 2, 1]
    population = found.fixed_lag({"x": values, "both": np.stack([values, values**2], -1)}, lag)
    for row, time in enumerate(times):
        later, slots = min(time + lag, 6), np.arange(N)
        for ancestors in found.ancestors[time:later][::-1]:
            slots = ancestors[slots]
        np.testing.assert_array_equal(population.value["x"][row], values[row][slots])
        np.testing.assert_array_equal(population.value["both"][row, :, 1], values[row][slots] ** 2)
        np.testing.assert_array_equal(population.log_weight[row], found.log_weight[later])
        np.testing.assert_array_equal(population.generations[row], found.resampled[:later].sum())
        np.testing.assert_array_equal(population.origin[row], np.asarray(origins(found, later)))


def origins(found, time):
    slots = np.arange(N)
    for ancestors in found.ancestors[:time][::-1]:
        slots = ancestors[slots]
    return slots


def test_inside_jit_it_is_the_same(run):
    trace, found, smoothed = run
    outside = found.fixed_lag(rows_of(trace), 2)
    for inside, right in zip(jax.tree.leaves(smoothed), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(inside, right, rtol=1e-6, atol=1e-6)


def test_a_past_that_is_taken_over():
    """Of conditional SMC with ancestor sampling, whose population turns before it is resampled."""

    def walk(ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, (x, x - y)

        return jax.lax.scan(step, 0.0, ys)[1]

    conditional = inference.conditional_smc(walk, 30, ancestor_sampling=True)
    trace = jax.jit(ppl.simulate(conditional))(jax.random.key(0), {"x": jnp.zeros(6)}, YS)
    assert np.any(trace.choices["resample"]["0 ancestor"] != 0)
    found = inference.genealogy(trace)
    x = jnp.where(trace.choices["x"].present, trace.choices["x"].value, 0.0)  # the retained one is not drawn
    population = found.fixed_lag(x, 5)
    np.testing.assert_array_equal(population.value, trace.value.value[0].T)
    np.testing.assert_array_equal(population.log_weight[0], trace.value.log_weight)
    first = dist.Normal(x[0], 0.5).log_prob(YS[0])
    np.testing.assert_allclose(
        found.log_weight[0], first, rtol=1e-5
    )  # each of its own slot, before they turn
    with pytest.raises(ppl.ChoiceError, match="some slots have no value"):
        found.fixed_lag(trace.choices["x"], 5)


LENGTH, RUNS = 6, 4000
SEEN = hmm.SEEN[:LENGTH]


def test_of_a_hidden_markov_model_it_is_what_is_known_by_then():
    """Weighted and unnormalised, as each time is without bias: of x_t and y_0, ..., y_{t + lag} together."""
    lags = (0, 2)

    def smoothed(key):
        trace = ppl.simulate(inference.smc(hmm.chain, 30))(key, hmm.MOVES, hmm.EMITS, SEEN)
        found = inference.genealogy(trace)
        populations = [found.fixed_lag(trace.choices["state"], lag) for lag in lags]
        is_state = lambda state: jnp.arange(hmm.STATES) == state  # noqa: E731
        return [jnp.exp(p.log_evidence)[:, None] * p.expectation(is_state) for p in populations]

    for lag, found in zip(lags, jax.jit(jax.vmap(smoothed))(jax.random.split(jax.random.key(0), RUNS))):
        known = [hmm.forward_backward(hmm.MOVES, hmm.EMITS, SEEN[: t + lag + 1]) for t in range(LENGTH)]
        evidence = np.exp([log_evidence for log_evidence, _ in known])[:, None]
        assert_mean(found / evidence, [probability[t] for t, (_, probability) in enumerate(known)])


def test_steps_that_are_no_suspensions(run):
    trace, found, _ = run
    with pytest.raises(ppl.ChoiceError, match="6 steps of values, and 7 suspensions.*before the loop"):
        found.fixed_lag(trace.choices["x"], 2)
    with pytest.raises(ppl.ChoiceError, match=r"shape \[7, 20, \.\.\.\].*got \[7, 3\]"):
        found.fixed_lag(rows_of(trace)[:, :3], 2)
    for lag in (-1, 1.5, jnp.array(2)):
        with pytest.raises(ValueError, match="lag is a number of suspensions"):
            found.fixed_lag(rows_of(trace), lag)


def observing_first(ys):
    def step(x, y):
        ppl.observe("y", dist.Normal(x, 0.5), y)
        x = ppl.sample("x", dist.Normal(x, 1.0))
        return x, x

    return jax.lax.scan(step, ppl.sample("start", dist.Normal(0.0, 1.0)), ys)[1]


def test_what_is_drawn_after_a_suspension_is_of_the_next_time():
    """As many suspensions as steps: their number alone does not tell."""

    def smoothed(key):
        trace = ppl.simulate(inference.smc(observing_first, N))(key, YS)
        found = inference.genealogy(trace)
        assert found.ancestors.shape == trace.choices["x"].shape
        return found.fixed_lag(trace.choices["x"], 2)

    with pytest.raises(ppl.UnsupportedError, match="suspends before its step is over"):
        jax.eval_shape(smoothed, jax.random.key(0))


def test_suspensions_that_may_not_come_are_counted_outside_of_jit():
    def program(flag):
        x = jax.lax.cond(flag, weighed, lambda: 0.0)
        return x + ppl.sample("z", dist.Normal(0.0, 1.0))

    def weighed():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor(x)
        return x + ppl.sample("y", dist.Normal(0.0, 1.0))

    simulate = ppl.simulate(inference.smc(program, 4))
    found = inference.genealogy(jax.jit(simulate)(jax.random.key(0), jnp.array(True)))
    assert found.ancestors.shape == found.log_weight.shape == (1, 4)
    with pytest.raises(ppl.UnsupportedError, match="how many there are is not known inside jit"):
        jax.eval_shape(lambda flag: inference.genealogy(simulate(jax.random.key(0), flag)).ess, True)
