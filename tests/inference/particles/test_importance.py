from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl, semantics


def regression(xs):
    slope = ppl.sample("slope", dist.Normal(0.0, 1.0), proposal=dist.Normal(0.5, 0.7))
    return ppl.sample("y", dist.Normal(slope * xs, 0.5).to_event(1))


def test_the_evidence_is_the_conjugate_one():
    xs, ys = np.array([0.5, 1.0, 2.0]), np.array([0.3, 0.9, 1.1])
    posterior = ppl.condition(regression, {"y": ys})
    run = ppl.seed(inference.importance(posterior, 1))
    covariance = np.outer(xs, xs) + 0.25 * np.eye(3)
    solved = np.linalg.solve(covariance, ys)
    log_evidence = -0.5 * (ys @ solved + np.linalg.slogdet(covariance)[1] + 3 * np.log(2 * np.pi))
    keys = jax.random.split(jax.random.key(0), 20_000)
    populations = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, jnp.asarray(xs))
    assert_mean(np.exp(np.asarray(populations.log_weight[:, 0], np.float64) - log_evidence), 1.0)


def test_without_weights_every_weight_is_one():
    population = ppl.seed(inference.importance(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 10))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(population.log_weight, np.zeros(10))
    assert float(population.ess) == pytest.approx(10.0) and population.value.shape == (10,)


def test_a_value_that_no_draw_touches_still_has_a_member_axis():
    population = ppl.seed(inference.importance(lambda: (ppl.sample("x", dist.Normal(0.0, 1.0)), 3.0), 4))(
        jax.random.key(0)
    )
    assert population.value[1].shape == (4,)


def test_the_number_of_members_is_checked():
    with pytest.raises(ValueError, match="positive integer"):
        inference.importance(regression, 0)


def coins():
    x = ppl.sample("x", dist.Bernoulli(0.25), proposal=dist.Bernoulli(0.5))
    y = jax.lax.cond(x == 1, lambda: ppl.sample("y", dist.Bernoulli(0.75)), lambda: 0)
    ppl.factor(0.5 * y - 0.25 * x)
    return x, y


def test_a_retained_member_is_a_member_like_the_others():
    """Conditional importance sampling, exactly: P(pick i, and it is x) is p(x) E[1 / Z | x is in it]."""
    n, algorithm = 2, inference.importance
    forth: dict = {}
    for population, probability in semantics.meaning(algorithm(coins, n))():
        weight = np.exp(np.asarray(population.log_weight))
        for i in range(n):
            value = tuple(int(v[i]) for v in population.value)
            forth[value] = forth.get(value, 0.0) + probability * weight[i] / weight.sum()
    for trace, mass in traces():
        value = tuple(map(int, trace.value))
        runs = semantics.meaning(algorithm(coins, n, retained=trace.choices))()
        reciprocal = sum(p / np.exp(np.asarray(run.log_weight)).mean() for run, p in runs)
        assert mass * reciprocal == pytest.approx(forth[value], rel=1e-6)
        first, _ = next(iter(runs))
        assert tuple(int(v[0]) for v in first.value) == value


def traces():
    """The traces of the coins, with the program's own density."""
    for trace, _ in semantics.meaning(ppl.trace(coins))():
        yield trace, float(np.exp(ppl.log_density(coins)(trace.choices)))
