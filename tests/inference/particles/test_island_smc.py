"""Islands are populations of a population: properly weighted, and weighed against each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl, semantics


def coins(advice=None):
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.factor(0.75 * x)
    if advice is not None:
        ppl.twist(advice[x])
    y = ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    ppl.factor(-0.5 * y)
    return x, y


@pytest.mark.parametrize(
    ("thresholds", "advice"),
    [
        ((2.0, 2.0), None),
        ((0.9, 0.9), None),
        ((2.0, 0.0), None),
        ((0.0, 2.0), None),
        ((2.0, 0.9), [1.5, -np.inf]),
    ],
)
def test_properly_weighted(thresholds, advice):
    """Two islands of two, exactly: whichever resample."""
    program = lambda: coins(None if advice is None else jnp.array(advice))  # noqa: E731
    algorithm = inference.island_smc(
        program, 2, 2, ess_threshold=thresholds[0], island_ess_threshold=thresholds[1]
    )
    report = semantics.properly_weighted(algorithm, program)().assert_holds()
    assert report.how.startswith("exact") and report.error < 1e-10


def three():
    return *coins(), ppl.sample("z", dist.Bernoulli(0.5))


def test_islands_that_stay_apart_are_runs_of_smc():
    """Each has its own evidence; resampling within it leaves that to it."""
    islands = inference.island_smc(three, 3, 8, ess_threshold=2.0, island_ess_threshold=0.0)
    trace = jax.jit(ppl.simulate(islands))(jax.random.key(0))
    population, x = trace.value, np.asarray(trace.choices["x"]).reshape(3, 8)
    assert population.generations == 0
    np.testing.assert_array_equal(population.origin, np.repeat(np.arange(3), 8))
    y = np.asarray(trace.choices["y"]).reshape(3, 8)
    means = np.exp(0.75 * x).mean(1) * np.exp(-0.5 * y).mean(1)
    np.testing.assert_allclose(
        np.exp(population.log_weight.reshape(3, 8)), means[:, None].repeat(8, 1), rtol=1e-5
    )


def test_an_island_is_copied_whole():
    """Without resampling within islands, each is one of those that there were, and goes on by itself."""
    islands = inference.island_smc(three, 4, 3, ess_threshold=0.0, island_ess_threshold=2.0)
    trace = jax.jit(ppl.simulate(islands))(jax.random.key(1))
    first, second = (np.asarray(trace.choices["resample"][point]["islands"]) for point in "01")
    x = np.asarray(trace.choices["x"]).reshape(4, 3)
    np.testing.assert_array_equal(np.asarray(trace.value.value[0]).reshape(4, 3), x[first[second]])
    np.testing.assert_array_equal(trace.value.origin.reshape(4, 3), first[second][:, None].repeat(3, 1))
    assert trace.value.generations == 2 and trace.value.initial_size == 4
    mean = np.exp(trace.value.log_weight).reshape(4, 3).mean(1)
    np.testing.assert_allclose(mean, mean[0], rtol=1e-5)


@pytest.fixture(scope="module")
def replicated():
    """1000 runs of 16 islands of 16 over a chain."""

    def walk(ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, None

        return jax.lax.scan(step, 0.0, ys)[0]

    run = jax.vmap(ppl.seed(inference.island_smc(walk, 16, 16, island_ess_threshold=0.9)), (0, None))
    return jax.jit(run)(jax.random.split(jax.random.key(0), 1000), OBSERVED)


OBSERVED = np.array([0.5, -1.0, 2.0, 1.5, -0.5, 0.0], np.float32)


def exact_evidence() -> float:
    walk = np.tril(np.ones((6, 6)))
    return float(dist.MultivariateNormal(0.0, walk @ walk.T + 0.25 * np.eye(6)).log_prob(OBSERVED))


def test_the_evidence_is_unbiased_for_kalmans(replicated):
    assert_mean(np.exp(np.asarray(replicated.log_evidence, np.float64) - exact_evidence()), 1.0)
    assert 0 < np.mean(replicated.generations) < 6


def test_the_standard_error_is_that_of_the_replications(replicated):
    estimates = np.exp(np.asarray(replicated.log_evidence, np.float64) - exact_evidence())
    claimed = np.asarray(replicated.log_evidence_se) ** 2
    assert 0.5 < np.mean(claimed) / np.var(estimates) < 2.0


def test_of_one_island_no_error_is_known():
    population = jax.jit(ppl.seed(inference.island_smc(coins, 1, 4)))(jax.random.key(0))
    assert population.log_evidence_se == np.inf


def test_what_is_asked_for_is_checked():
    with pytest.raises(ValueError, match="positive integer, got 0"):
        inference.island_smc(coins, 0, 2)
    with pytest.raises(ValueError, match="positive integer, got 2.5"):
        inference.island_smc(coins, 2, 2.5)
    with pytest.raises(ValueError, match="at least 0; got -1"):
        inference.island_smc(coins, 2, 2, island_ess_threshold=-1)
