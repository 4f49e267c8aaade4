"""SMC^2 is properly weighted for parameters and latent variables together: exactly, by adding up every run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from thresholds import assert_mean

from borelax import inference, ppl, semantics


def bit(name, p=0.5):
    return ppl.sample(name, dist.Bernoulli(p))


def prior():
    return bit("p", 0.25)


def model(p):
    x = bit("x", 0.25 + 0.5 * p)
    ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), 1)
    return x, bit("z", 0.25 + 0.375 * x)


def joint():
    p = prior()
    return p, model(p)


def test_every_run_adds_up_to_the_joint_program():
    report = semantics.properly_weighted(inference.smc2(prior, model, 2, 2, ess_threshold=2.0), joint)()
    assert report.holds and report.error < 1e-10, report


def test_every_run_of_moved_parameters_adds_up_to_the_joint_program():
    def seen(p):
        x = bit("x", 0.25 + 0.5 * p)
        ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), 1)
        return x

    def both():
        p = prior()
        return p, seen(p)

    sampler = inference.smc2(prior, seen, 1, 2, ess_threshold=2.0, proposal=lambda choices: bit("p", 0.375))
    report = semantics.properly_weighted(sampler, both)()
    assert report.holds and report.error < 1e-10, report


def walk(drift, ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(x + drift, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, None

    return jax.lax.scan(step, 0.0, ys)[0]


def nearby(choices, ys):
    return ppl.sample("drift", dist.Normal(choices["drift"], 0.5))


@pytest.mark.parametrize(
    "options", family([{}, {"proposal": nearby, "ess_threshold": 2.0}]), ids=["drawn once", "moved"]
)
def test_the_evidence_and_the_mean_of_a_linear_model(options):
    """Unbiased, however few the particles."""
    ys = np.array([0.5, 2.0, 2.5, 4.0])
    program = inference.smc2(lambda ys: ppl.sample("drift", dist.Normal(0.0, 1.0)), walk, 8, 4, **options)
    populations = jax.jit(jax.vmap(lambda key: ppl.seed(program)(key, jnp.asarray(ys))))(
        jax.random.split(jax.random.key(0), 4000)
    )
    time = np.arange(1, len(ys) + 1)
    covariance = np.minimum.outer(time, time) + np.outer(time, time) + 0.25 * np.eye(len(ys))
    evidence = np.exp(-0.5 * ys @ np.linalg.solve(covariance, ys))
    evidence /= np.sqrt(np.linalg.det(2 * np.pi * covariance))
    weight = np.exp(np.asarray(populations.log_weight, np.float64)) / evidence
    assert_mean(weight.mean(1), 1.0)
    assert_mean((weight * populations.value[0]).mean(1), time @ np.linalg.solve(covariance, ys))


def test_parameters_are_resampled_as_the_data_come():
    """Where the data rule out all but one parameter, the others are gone before the end."""

    def chain(p, ys):
        def step(x, y):
            ppl.factor(jnp.where(y == p, 0.0, -jnp.inf))
            return bit("x", 0.25 + 0.5 * x), None

        return jax.lax.scan(step, 0, ys)[0]

    program = inference.smc2(lambda ys: bit("p"), chain, 20, 2, ess_threshold=1.0)
    population = ppl.seed(program)(jax.random.key(0), jnp.array([1, 1]))
    assert np.all(population.value[0] == 1) and int(population.generations) == 1


@pytest.mark.parametrize("sizes", [(0, 2), (2, 0)])
def test_sizes_are_positive(sizes):
    with pytest.raises(ValueError, match="particles"):
        inference.smc2(prior, model, *sizes)
