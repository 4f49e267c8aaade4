"""The test by betting: it keeps its false-alarm rate exactly, and finds differences of many kinds."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom
from thresholds import FALSE_ALARM_RATE

from borelax import ppl
from borelax.semantics.budget import Budget
from borelax.semantics.same_law import bet, same_law

SMALL = Budget(draws=2_048, batch=128, false_alarm_rate=0.05, resolution=0.0)


def pairs(rng, draw):
    """Batches of pairs without end."""
    return (draw(rng) for _ in itertools.count())


def false_alarms(draw, runs: int) -> int:
    streams = np.random.SeedSequence(0).spawn(runs)
    return sum(bet(pairs(np.random.default_rng(s), draw), SMALL).rejected for s in streams)


NULLS = {
    "normal": lambda rng: (rng.normal(size=128), rng.normal(size=128)),
    "heavy tails": lambda rng: (rng.standard_cauchy(128), rng.standard_cauchy(128)),
    "a rare event": lambda rng: (rng.random(128) < 0.01, rng.random(128) < 0.01),
    "several": lambda rng: (rng.normal(size=(128, 3)), rng.normal(size=(128, 3))),
    "paired": lambda rng: (lambda x: (x, -x))(rng.normal(size=128)),
    "paired, one of the two turned": lambda rng: (lambda x: (x, np.where(np.abs(x) > 1, -x, x)))(
        rng.normal(size=128)
    ),
}


@pytest.mark.parametrize("draw", NULLS.values(), ids=NULLS)
def test_false_alarms_are_as_rare_as_they_are_said_to_be(draw):
    runs = 200
    assert binom.sf(false_alarms(draw, runs) - 1, runs, SMALL.false_alarm_rate) > FALSE_ALARM_RATE


DIFFERENCES = {
    "place": lambda rng: (rng.normal(size=256), rng.normal(0.2, size=256)),
    "spread": lambda rng: (rng.normal(size=256), rng.normal(0.0, 1.2, size=256)),
    "a probability": lambda rng: (rng.random(256) < 0.3, rng.random(256) < 0.35),
    "one value of many": lambda rng: (
        rng.choice(5, 256, p=[0.2, 0.2, 0.2, 0.2, 0.2]),
        rng.choice(5, 256, p=[0.2, 0.15, 0.3, 0.15, 0.2]),
    ),
    "only how two depend on each other": lambda rng: (
        rng.normal(size=(256, 2)),
        rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], 256),
    ),
    "only skewness": lambda rng: (rng.normal(size=256), rng.exponential(size=256) - 1),
    "what is not a number": lambda rng: (rng.normal(size=256), np.where(rng.random(256) < 0.05, np.nan, 0)),
}


@pytest.mark.parametrize("draw", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_is_found(draw):
    outcome = bet(pairs(np.random.default_rng(0), draw), Budget(batch=256))
    assert outcome.rejected and outcome.p_value <= 1e-6 and outcome.draws < 65_536


def test_it_stops_once_no_difference_is_left_to_see():
    budget = Budget(resolution=0.05, batch=256)
    outcome = bet(pairs(np.random.default_rng(0), NULLS["normal"]), budget)
    assert not outcome.rejected and outcome.draws < 20_000 and outcome.bound <= 0.05


def test_the_clearest_difference_is_named():
    def pair():
        x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))
        y = ppl.sample("y", dist.Normal(jnp.array([0.0, 0.5]), 1.0))
        return {"a": x}, {"a": y}

    outcome = same_law(pair, (), Budget())
    assert outcome.rejected and "['a'][1]" in outcome.details[0][0]


def test_what_is_not_present_does_not_count():
    def pair():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        absent = jnp.array(False)
        return ppl.Masked(x, absent), ppl.Masked(x + 1, absent)

    assert not same_law(pair, (), Budget(draws=2_048)).rejected


def test_a_value_without_numbers_in_it_is_the_same():
    assert not same_law(lambda: ((), ()), (), Budget(draws=2_048)).rejected


def test_the_same_seed_gives_the_same_answer():
    pair = lambda: tuple(ppl.sample(name, dist.Normal(0.0, 1.0)) for name in "xy")  # noqa: E731
    one, other, third = (same_law(pair, (), Budget(draws=4_096, seed=seed)) for seed in (0, 0, 1))
    assert one == other and one.error != third.error


def test_arguments_are_traced():
    traced = []

    def pair(mean, name):
        traced.append(isinstance(mean, jax.core.Tracer) and name == "static")
        return ppl.sample("x", dist.Normal(mean, 1.0)), ppl.sample("y", dist.Normal(mean, 1.0))

    assert not same_law(pair, (jnp.array(3.0), "static"), Budget(draws=4_096)).rejected
    assert all(traced)


@pytest.mark.parametrize("wrong", [{"false_alarm_rate": 0.0}, {"draws": 100}, {"batch": 0}])
def test_a_budget_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        Budget(**wrong)
