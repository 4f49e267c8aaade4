"""IBIS: exact on all runs of a coin, and the evidence of a normal mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl, semantics


def coin():
    x = ppl.sample("x", dist.Bernoulli(0.25))
    jax.vmap(lambda p: ppl.sample("y", dist.Bernoulli(0.125 + p * x)))(jnp.array([0.5, 0.25, 0.625]))
    return x


DATA = {"y": np.array([1, 1, 0])}


def gibbs(program):
    return inference.gibbs(program, ["x"])


def test_moving_only_when_weights_differ_leaves_a_small_bias():
    """Which the enumeration of all runs sees, and the docstring says. (That there is none otherwise is checked.)"""
    sampler = inference.ibis(coin, DATA, 2, gibbs, block=2, moves=1, ess_threshold=0.9)
    report = semantics.properly_weighted(sampler, ppl.condition(coin, DATA))()
    assert not report.holds and report.error < 0.01


def test_the_evidence_of_a_normal_mean():
    """And its posterior mean; of ten observations in blocks of four, that is four, four and two."""
    ys = np.linspace(-1.0, 3.0, 10)

    def program(scale):
        mean = ppl.sample("mean", dist.Normal(0.0, 2.0))
        ppl.sample("y", dist.Normal(mean, scale).expand([10]))
        return mean

    def nearby(choices, count, scale):
        ppl.sample("mean", dist.Normal(choices["mean"], 0.5))

    kernel = lambda program: inference.mh(program, nearby)  # noqa: E731
    sampler = inference.ibis(program, {"y": ys}, 24, kernel, block=4, moves=2, ess_threshold=2.0)
    keys = jax.random.split(jax.random.key(0), 4000)
    populations = jax.jit(jax.vmap(ppl.seed(sampler), (0, None)))(keys, jnp.array(1.0))

    covariance = np.eye(10) + 4.0
    exact = -0.5 * (ys @ np.linalg.solve(covariance, ys) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    weight = np.exp(np.asarray(populations.log_weight, np.float64) - exact) / 24
    assert_mean(weight.sum(1), 1.0)
    assert_mean((weight * populations.value).sum(1), 4 * ys.sum() / 41)
    assert np.all(np.asarray(populations.generations) == 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"block": 0}, "block is a positive number"), ({"ess_threshold": -1.0}, "ess_threshold is a fraction")],
)
def test_numbers_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        inference.ibis(coin, DATA, 2, gibbs, **options)
