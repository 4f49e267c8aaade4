"""psis: exact tails, ArviZ's results, and what is said of weights that are not to be relied on."""

from __future__ import annotations

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from thresholds import z_threshold

from borelax import inference, ppl
from borelax.inference import psis
from borelax.inference.predicting.psis import largest_khat

RNG = np.random.default_rng(0)


def quantiles(law, n: int) -> np.ndarray:
    """A sample without noise."""
    return law.ppf((np.arange(n) + 0.5) / n)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.8, 1.2])
def test_the_shape_of_a_pareto_tail_is_found(k):
    """Of many quantiles of a Pareto distribution; the prior of the fit pulls towards one half, by ten of 949."""
    found = psis(np.log(quantiles(stats.genpareto(k), 100_000)))
    assert abs(found.khat - (949 * k + 5) / 959) < 0.05
    assert bool(found.warnings) == (k > 0.7)


@pytest.mark.parametrize("n", [30, 1000])
@pytest.mark.parametrize("relative_ess", [1.0, 0.3])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 10.0])
def test_it_is_that_of_arviz(n, relative_ess, spread):
    log_weight = spread * RNG.normal(size=n) + 0.1 * RNG.standard_t(2, size=n)
    right, khat = arviz.psislw(log_weight.copy(), relative_ess)
    found = psis(log_weight, relative_ess)
    np.testing.assert_allclose(found.log_weight, right, atol=1e-12)
    np.testing.assert_allclose(found.khat, khat, atol=1e-12)


def test_sets_of_weights_are_smoothed_one_by_one():
    log_weight = RNG.normal(size=(2, 3, 50)) * 2
    found = psis(log_weight, relative_ess=np.array([1.0, 0.5, 0.2]))
    assert found.log_weight.shape == (2, 3, 50) and found.khat.shape == (2, 3)
    one = psis(log_weight[1, 2], 0.2)
    np.testing.assert_array_equal(found.log_weight[1, 2], one.log_weight)
    assert found.khat[1, 2] == one.khat
    np.testing.assert_allclose(np.exp(found.log_weight).sum(-1), 1.0, rtol=1e-12)


def test_order_is_kept_and_a_constant_does_not_matter():
    log_weight = RNG.standard_t(2, size=200)
    found, shifted = psis(log_weight), psis(log_weight + 1000)
    np.testing.assert_allclose(shifted.log_weight, found.log_weight, atol=1e-10)
    np.testing.assert_array_equal(np.argsort(found.log_weight), np.argsort(log_weight))


def population(rate) -> ppl.population.Population:
    """Of an exponential distribution, drawn from a steeper one."""

    def program():
        ppl.sample("x", dist.Exponential(1.0), proposal=dist.Exponential(rate))

    return ppl.seed(inference.importance(program, 100_000))(jax.random.key(0))


@pytest.mark.parametrize("k", [0.2, 0.8])
def test_of_a_population_it_says_whether_the_proposal_is_wide_enough(k):
    """With a proposal of rate r, weights are exactly Pareto distributed, with the shape k = 1 - 1 / r."""
    found = psis(population(1 / (1 - k)).log_weight)
    assert abs(found.khat - (949 * k + 5) / 959) < z_threshold(2) * (1 + k) / np.sqrt(949)
    assert bool(found.warnings) == ("WARNING" in repr(found)) == (k > 0.7)


SAID = {
    "heavy": (np.log(quantiles(stats.genpareto(0.85), 1000)), r"is heavy \(k-hat 0.8\d, above 0.67\)"),
    "no mean": (np.log(quantiles(stats.genpareto(1.5), 1000)), r"so heavy \(k-hat 1.\d\d\).*mean nothing"),
    "few": (np.arange(10.0), "fewer than 5 members"),
    "one of two": (
        np.stack([np.zeros(100), np.log(quantiles(stats.genpareto(0.9), 100))]),
        "1 of 2 sets of weights",
    ),
}


@pytest.mark.parametrize(("log_weight", "match"), SAID.values(), ids=SAID)
def test_what_is_wrong_is_said_in_words(log_weight, match):
    (warning,) = psis(log_weight).warnings
    with pytest.raises(AssertionError, match=match):
        raise AssertionError(warning)


def test_equal_weights_are_fine():
    found = psis(np.full(100, 3.0))
    assert found.khat == -np.inf and found.warnings == ()
    np.testing.assert_allclose(found.log_weight, -np.log(100))


def test_weights_of_zero_stay_zero():
    log_weight = np.append(np.full(500, -np.inf), RNG.normal(size=500))
    found = psis(log_weight)
    assert np.all(found.log_weight[:500] == -np.inf) and np.isfinite(found.khat)
    np.testing.assert_allclose(np.exp(found.log_weight).sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("log_weight", "match"),
    [
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.full(10, -np.inf), "all weights are zero"),
        (np.zeros(()), "last axis"),
    ],
)
def test_what_are_no_weights_is_refused(log_weight, match):
    with pytest.raises(ValueError, match=match):
        psis(log_weight)


@pytest.mark.parametrize("relative_ess", [0.0, -1.0, np.nan, np.array([1.0, 0.0])])
def test_a_relative_size_that_is_none_is_refused(relative_ess):
    with pytest.raises(ValueError, match="relative effective sample size is a positive number"):
        psis(np.zeros((2, 10)), relative_ess)


def test_of_no_set_of_weights_there_is_nothing_to_say():
    found = psis(np.zeros((0, 5)))
    assert found.log_weight.shape == (0, 5) and found.khat.shape == (0,) and found.warnings == ()


def test_more_weights_allow_for_heavier_tails():
    assert largest_khat(2000) == pytest.approx(1 - 1 / np.log10(2000)) and largest_khat(10**6) == 0.7
    assert np.all(np.diff([largest_khat(n) for n in (5, 20, 100, 1000, 10_000)]) > 0)


# ------------------------------------------------------------------------------ in jit

SETS = np.stack([spread * RNG.normal(size=200) for spread in (0.1, 1.0, 3.0)] + [np.full(200, 3.0)])
SETS[1, :100] = -np.inf


def test_in_jit_it_is_the_same():
    with jax.enable_x64(True):
        found = jax.jit(psis)(SETS)
    right = psis(SETS)
    np.testing.assert_allclose(found.khat, right.khat, rtol=1e-10)
    np.testing.assert_allclose(found.log_weight, right.log_weight, rtol=1e-10)


def test_in_single_precision_it_is_nearly_the_same():
    """Also where it is not known when it is compiled how many weights make the tail."""
    shares = np.array([1.0, 0.5, 0.8, 1.0], np.float32)
    sets = SETS.astype(np.float32)
    found, right = jax.jit(psis)(sets, shares), psis(sets, shares)
    assert found.khat.dtype == np.float32
    np.testing.assert_allclose(found.khat, right.khat, atol=1e-4)
    np.testing.assert_allclose(found.log_weight, right.log_weight, rtol=1e-5, atol=1e-4)
    one_by_one = jax.jit(jax.vmap(psis))(sets, shares)
    np.testing.assert_allclose(one_by_one.khat, found.khat, rtol=1e-6)
    assert found.warnings == right.warnings


def test_in_jit_what_are_no_weights_has_no_tail():
    bad = np.zeros((4, 200), np.float32)
    bad[0, 3], bad[1, 3], bad[2] = np.nan, np.inf, -np.inf
    found = jax.jit(psis)(jnp.asarray(bad))
    assert (
        np.isnan(found.khat).tolist()
        == np.isnan(found.log_weight).all(1).tolist()
        == [True, True, True, False]
    )
    assert "nothing to average over" in found.warnings[0] and "WARNING" in repr(found)
