"""The test of means: it keeps its false-alarm rate where draws are skewed, and finds what is off by a little."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom
from thresholds import FALSE_ALARM_RATE

from borelax import ppl
from borelax.semantics.budget import Budget
from borelax.semantics.same_mean import compare_means, compare_measures, same_mean, same_measure

SMALL = Budget(draws=4_096, batch=128, false_alarm_rate=0.05, resolution=0.0)


def batches(rng, draw):
    return (draw(rng) for _ in itertools.count())


def false_alarms(test, draw, runs: int) -> int:
    streams = np.random.SeedSequence(0).spawn(runs)
    return sum(test(batches(np.random.default_rng(s), draw), SMALL).rejected for s in streams)


MEANS = {
    "normal": lambda rng: (np.zeros(128), rng.normal(size=128)),
    "skewed": lambda rng: (np.ones(128), rng.exponential(size=128)),
    "very skewed": lambda rng: (np.full(128, np.exp(0.5)), np.exp(rng.normal(size=128))),
    "five of them": lambda rng: (np.ones((128, 5)), rng.exponential(size=(128, 5))),
    "a rare event": lambda rng: (np.full(128, 0.02), (rng.random(128) < 0.02).astype(float)),
}


@pytest.mark.parametrize("draw", MEANS.values(), ids=MEANS)
def test_false_alarms_are_as_rare_as_they_are_said_to_be(draw):
    alarms = false_alarms(compare_means, draw, 200)
    assert binom.sf(alarms - 1, 200, SMALL.false_alarm_rate) > FALSE_ALARM_RATE


def populations(shift):
    """Sixteen members, drawn from a wider law and weighted, against an eight of the law itself."""

    def draw(rng):
        x, y = rng.normal(size=(128, 8)), rng.normal(0.0, 1.5, size=(128, 16))
        log_weight = -0.5 * y**2 + 0.5 * (y / 1.5) ** 2 + np.log(1.5) + shift
        return x, np.zeros((128, 8)), y, log_weight

    return draw


def test_weighted_false_alarms_are_as_rare_as_they_are_said_to_be():
    assert (
        binom.sf(false_alarms(compare_measures, populations(0.0), 200) - 1, 200, SMALL.false_alarm_rate)
        > FALSE_ALARM_RATE
    )


def test_a_weight_that_is_off_by_a_little_is_found():
    outcome = compare_measures(batches(np.random.default_rng(0), populations(0.02)), Budget())
    assert outcome.rejected


@pytest.mark.parametrize("far", [-5_000.0, 5_000.0], ids=["tiny", "huge"])
def test_weights_of_any_size(far):
    def draw(rng):
        x, xw, y, yw = populations(0.0)(rng)
        return x, xw + far, y, yw + far

    assert not compare_measures(batches(np.random.default_rng(0), draw), Budget(draws=8_192)).rejected


def test_a_population_without_weight_has_mass_zero():
    def sides():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))[None]
        return x, jnp.zeros(1), x, jnp.full(1, -jnp.inf)

    assert same_measure(sides, (), Budget(draws=8_192)).rejected


def test_a_mean_that_is_off_by_a_little_is_found():
    pair = lambda: (1.05, ppl.sample("x", dist.Exponential(1.0)))  # noqa: E731
    assert same_mean(pair, (), Budget()).rejected


def test_what_is_constant_has_to_be_right():
    assert same_mean(lambda: (1.0, jnp.array(1.001)), (), Budget(draws=8_192)).rejected
    assert not same_mean(lambda: (1.0, jnp.array(1.0 + 1e-7)), (), Budget(draws=8_192)).rejected


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_draw_without_a_mean_is_wrong(bad):
    pair = lambda: (0.0, jnp.where(ppl.sample("x", dist.Normal(0.0, 1.0)) > 3, bad, 0.0))  # noqa: E731
    assert same_mean(pair, (), Budget()).rejected
