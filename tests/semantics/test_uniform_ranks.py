"""The test of uniformity: it keeps its false-alarm rate, finds what ranks are like where draws are wrong, and its bands
cover as often as they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom, multinomial
from thresholds import FALSE_ALARM_RATE

from borelax.semantics.budget import Budget
from borelax.semantics.uniform_ranks import (
    count_ranks,
    ecdf_bands,
    ecdf_difference,
    log_wealth,
    uniform_ranks,
)

DRAWS = 31


def gaussian(rng, scale=1.0, shift=0.0, skewed=False, components=2):
    """Batches of ranks of true values among draws from a posterior that is wrong in these ways."""
    while True:
        true = rng.normal(size=(64, components))
        draws = shift + scale * rng.normal(size=(64, components, DRAWS))
        if skewed:
            draws = rng.gamma(1.0, size=draws.shape) - 1.0
        yield (draws < true[..., None]).sum(-1)


def rare(rng):
    """Ranks that are uniform but for one value."""
    while True:
        ranks = rng.integers(0, DRAWS + 1, size=(64, 2))
        yield np.where((ranks == 7) & (rng.random(ranks.shape) < 0.8), 8, ranks)


@pytest.mark.parametrize("bins", [4, 32])
def test_the_mean_of_the_wealth_is_one(bins):
    """Exactly, over all counts of three uniform ranks: what makes the false-alarm rate right."""
    everything = np.array(list(itertools.product(range(bins), repeat=3))).T
    counts = np.stack([np.bincount(row, minlength=bins) for row in everything.T])
    assert np.exp(log_wealth(counts)).mean() == pytest.approx(1.0, abs=1e-12)


def test_a_bet_goes_on_where_it_was():
    """The wealth is a fair game at every step: its mean over the next rank is what it is."""
    before = np.random.default_rng(0).integers(0, 9, size=12)
    after = np.exp(log_wealth(before + np.eye(12, dtype=int)))
    assert after.mean() == pytest.approx(np.exp(log_wealth(before)), rel=1e-12)


@pytest.mark.parametrize("components", [1, 4])
def test_false_alarms_are_as_rare_as_they_are_said_to_be(components):
    runs, budget = 400, Budget(draws=320, batch=64, false_alarm_rate=0.05)
    streams = (np.random.default_rng(s) for s in np.random.SeedSequence(0).spawn(runs))
    drawn = (gaussian(rng, components=components) for rng in streams)
    alarms = sum(uniform_ranks(batches, DRAWS + 1, budget).rejected for batches in drawn)
    assert binom.sf(alarms - 1, runs, 0.05) > FALSE_ALARM_RATE


WRONG = {
    "too narrow": lambda rng: gaussian(rng, scale=0.9),
    "too wide": lambda rng: gaussian(rng, scale=1.1),
    "shifted": lambda rng: gaussian(rng, shift=0.15),
    "skewed": lambda rng: gaussian(rng, skewed=True),
    "one rank of many": rare,
}


@pytest.mark.parametrize("ranks", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found(ranks):
    found = uniform_ranks(ranks(np.random.default_rng(0)), DRAWS + 1, Budget(draws=8_192, batch=64))
    assert found.rejected and found.p_value <= 1e-6
    assert len(found.ranks) < 8_192  # it stopped at the first sign


def test_it_stops_once_no_difference_is_left_to_see():
    budget = Budget(draws=65_536, batch=64, resolution=0.1)
    found = uniform_ranks(gaussian(np.random.default_rng(0)), DRAWS + 1, budget)
    assert not found.rejected and found.error < found.bound <= 0.1 and len(found.ranks) < 4_096


def test_the_difference_of_distribution_functions():
    counts = count_ranks(np.array([[0], [0], [1], [3]]), 4)
    assert counts.tolist() == [[2, 1, 0, 1]]
    assert ecdf_difference(counts).tolist() == [[0.25, 0.25, 0.0, 0.0]]


def test_bands_cover_as_they_say():
    """Against the exact law of four ranks' counts: bands are as narrow as steps of 1/N allow, and no narrower."""
    number, bins = 12, 3
    counts = np.array([(i, j, number - i - j) for i in range(number + 1) for j in range(number + 1 - i)])
    mass = multinomial.pmf(counts, number, np.full(bins, 1 / bins))

    def coverage(lower, upper):
        difference = ecdf_difference(counts)
        within = (difference >= lower - 1e-12) & (difference <= upper + 1e-12)
        return mass[within.all(-1)].sum()

    lower, upper = ecdf_bands(number, bins, probability=0.9)
    step = np.array([1 / number, 1 / number, 0.0])
    assert coverage(lower, upper) >= 0.89  # simulated: the tail probability has an error of about 0.003
    assert coverage(lower + step, upper - step) < 0.9


def test_bands_cover_many_ranks():
    number, bins = 500, 64
    lower, upper = ecdf_bands(number, bins)
    simulated = np.random.default_rng(1).multinomial(number, np.full(bins, 1 / bins), 20_000)
    difference = ecdf_difference(simulated)
    inside = ((difference >= lower - 1e-12) & (difference <= upper + 1e-12)).all(-1).sum()
    # binomial, widened by the error of the tail probability, which 10 000 simulations have
    assert binom.ppf(1e-6, 20_000, 0.95 - 0.011) <= inside <= binom.isf(1e-6, 20_000, 0.95 + 0.011)
