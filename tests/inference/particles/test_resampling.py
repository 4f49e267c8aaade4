"""Every resampling scheme, against its own enumeration, its density and the mean that it must have."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import family
from scipy import stats
from thresholds import FALSE_ALARM_RATE, assert_mean

from borelax import inference, ppl
from borelax.inference.particles.resampling import Adaptive

SCHEMES = {
    scheme.__name__.lower(): scheme
    for scheme in (
        inference.systematic,
        inference.stratified,
        inference.multinomial,
        inference.residual,
        inference.killing,
        inference.ssp,
    )
}
WEIGHTS = {
    "uneven": [0.3, -np.inf, 1.2, -0.5, -np.inf],
    "dead first": [-np.inf, -np.inf, 0.0, 0.1, 5.0],
    "equal": [2.0, 2.0, 2.0, 2.0],
    "one alive": [-np.inf, -700.0, -np.inf],
    "whole": [np.log(2.0), 0.0, 0.0, -np.inf],
    "pair": [0.0, -1.0],
    "single": [3.0],
}

pytestmark = [
    pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES),
]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=family(WEIGHTS.values()), ids=WEIGHTS)
def log_weights(request):
    return jnp.asarray(request.param, jnp.float64)


def offspring(ancestors, size: int):
    return jax.nn.one_hot(ancestors, size, dtype=jnp.float64).sum(-2)


def test_mean_offspring_is_n_times_the_weight(scheme, log_weights):
    d = scheme(log_weights)
    probabilities = np.exp(d.enumerate_log_probs())
    assert abs(probabilities.sum() - 1) < 1e-12
    mean = probabilities @ np.asarray(offspring(d.enumerate_support(), d.size))
    np.testing.assert_allclose(mean, d.size * np.asarray(d.weights), atol=1e-12)


def test_draws_follow_the_enumerated_probabilities(scheme, log_weights):
    assert_draws_follow(scheme(log_weights))


def assert_draws_follow(d, count: int = 100_000) -> None:
    draws = np.asarray(jax.jit(lambda key: d.sample(key, (count,)))(jax.random.key(0)))
    code = lambda vectors: np.asarray(vectors) @ d.size ** np.arange(d.size)  # noqa: E731
    expected: dict = {}
    masses = np.exp(d.enumerate_log_probs())
    for number, probability in zip(code(d.enumerate_support()), masses, strict=True):
        expected[number] = expected.get(number, 0.0) + count * probability
    seen = dict(zip(*np.unique(code(draws), return_counts=True), strict=True))
    assert all(expected.get(number, 0.0) > 1e-9 for number in seen)
    frequent = [number for number, mean in expected.items() if mean >= 5]
    rest = (
        count - sum(seen.get(number, 0) for number in frequent),
        count - sum(expected[n] for n in frequent),
    )
    observed = np.array([seen.get(number, 0) for number in frequent] + [rest[0]])
    means = np.array([expected[number] for number in frequent] + [max(rest[1], 1e-9)])
    if rest[1] < 5:
        observed, means = observed[:-1], means[:-1]
    if len(means) > 1:
        assert stats.chisquare(observed, means * observed.sum() / means.sum()).pvalue > FALSE_ALARM_RATE


def test_the_density_is_that_of_the_enumeration(scheme, log_weights):
    assert_density(scheme(log_weights))


def assert_density(d) -> None:
    support, masses = np.asarray(d.enumerate_support()), np.exp(d.enumerate_log_probs())
    vectors = np.unique(support, axis=0)
    total = [masses[(support == vector).all(1)].sum() for vector in vectors]
    density = np.exp(jax.vmap(d.log_prob)(jnp.asarray(vectors)))
    np.testing.assert_allclose(density, total, atol=1e-12)


# ------------------------------------------------------------------ given that particle 0 survives

ORDERED = (inference.stratified, inference.ssp)


def measure(pairs) -> dict:
    """The probability of each value."""
    total: dict = {}
    for value, probability in pairs:
        total[value] = total.get(value, 0.0) + float(probability)
    return {value: probability for value, probability in total.items() if probability > 1e-12}


def runs(d):
    return zip(np.asarray(d.enumerate_support()), np.exp(np.asarray(d.enumerate_log_probs())), strict=True)


def test_the_conditional_law_is_the_tilted_one(scheme, log_weights):
    """``R(a) / (n W_0)`` for each survivor of particle 0, which is turned to place 0, or put there by a swap."""
    d = scheme(log_weights)
    if type(d) in ORDERED:
        with pytest.raises(ppl.UnsupportedError, match="no conditional law.*use inference.systematic"):
            d.conditional()
        return
    if log_weights[0] == -jnp.inf:
        return
    circle = scheme is inference.systematic
    arranged = (lambda a: tuple(a)) if circle else (lambda a: tuple(sorted(a)))
    share = d.size * float(d.weights[0])
    tilted = measure(
        (arranged(np.roll(a, -place)), probability / share)
        for a, probability in runs(d)
        for place in np.flatnonzero(a == 0)
    )
    conditional = d.conditional()
    found = measure((arranged(a), probability) for a, probability in runs(conditional))
    assert found == pytest.approx(tilted, abs=1e-12)
    assert all(a[0] == 0 for a, probability in runs(conditional) if probability > 0)


@pytest.mark.parametrize("name", ["uneven", "whole"])
def test_the_conditional_law_is_drawn_from_and_has_its_density(scheme, name):
    if scheme not in ORDERED:
        d = scheme(jnp.asarray(WEIGHTS[name], jnp.float64)).conditional()
        assert_draws_follow(d)
        assert_density(d)


def test_a_fixed_place_is_right_where_the_order_does_not_matter(scheme):
    """Particles in another order survive as they would have: for systematic resampling, as a circle. No others do."""
    log_weights = np.log([0.11, 0.23, 0.29, 0.37])
    circle = scheme is inference.systematic
    orders = (
        [np.roll(np.arange(4), k) for k in range(4)]
        if circle
        else map(np.array, itertools.permutations(range(4)))
    )

    def survivors(order):
        d = scheme(jnp.asarray(log_weights[order]))
        return measure((arranged(order[a]), probability) for a, probability in runs(d))

    def arranged(a):
        return min(tuple(np.roll(a, k)) for k in range(4)) if circle else tuple(sorted(a))

    usual = survivors(np.arange(4))
    same = all(survivors(order) == pytest.approx(usual, abs=1e-12) for order in orders)
    assert same == (scheme not in ORDERED)


def test_the_retained_survives_however_light_it_is(scheme):
    """In float32, in which its weight is rounded to nothing."""
    if scheme in ORDERED:
        return
    log_weights = jnp.array([-60.0, 0.0, -jnp.inf, 1.0], jnp.float32)
    draws = np.asarray(scheme(log_weights).conditional().sample(jax.random.key(0), (1000,)))
    assert np.all(draws[:, 0] == 0) and np.all(draws[:, 1:] != 2) and np.any(draws[:, 1:] == 1)


# ------------------------------------------------------------------ many particles


def test_the_dead_have_no_offspring(scheme):
    """In float32, with many particles, where sums are rounded."""
    rng = np.random.default_rng(0)
    log_weights = rng.normal(size=10_000).astype(np.float32)
    log_weights[rng.random(10_000) < 0.7] = -np.inf
    log_weights[-3:] = -np.inf
    draw = jax.jit(lambda key: scheme(jnp.asarray(log_weights)).sample(key))
    for key in jax.random.split(jax.random.key(0), 20):
        ancestors = np.asarray(draw(key))
        assert ancestors.dtype == np.int32 and ancestors.shape == log_weights.shape
        assert np.all(np.isfinite(log_weights[ancestors]))


def test_mean_offspring_of_many(scheme):
    log_weights = jax.random.normal(jax.random.key(1), (100,), jnp.float32) * 2
    d = scheme(log_weights)
    draws = jax.jit(jax.vmap(lambda key: offspring(d.sample(key), d.size)))(
        jax.random.split(jax.random.key(0), 5000)
    )
    assert_mean(draws, d.size * np.asarray(d.weights))


def test_a_batch_is_resampled_row_by_row(scheme):
    log_weights = jax.random.normal(jax.random.key(1), (3, 6))
    keys = jax.random.split(jax.random.key(2), 3)
    together = jax.jit(jax.vmap(lambda key, w: scheme(w).sample(key)))(keys, log_weights)
    alone = [scheme(w).sample(key) for key, w in zip(keys, log_weights, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_no_host_callbacks(scheme):
    text = str(jax.make_jaxpr(lambda key, w: scheme(w).sample(key))(jax.random.key(0), jnp.zeros(8)))
    assert "callback" not in text


@pytest.mark.parametrize("active", [True, False])
def test_adaptive_resampling_is_the_scheme_or_nothing(scheme, active):
    base = scheme(jnp.array([0.0, 1.0, -2.0]))
    d = Adaptive(base, active)
    own = jnp.arange(3)
    assert abs(float(jnp.exp(d.enumerate_log_probs()).sum()) - 1) < 1e-12
    if active:
        np.testing.assert_array_equal(d.sample(jax.random.key(0)), base.sample(jax.random.key(0)))
        assert float(d.log_prob(own)) == float(base.log_prob(own))
    else:
        np.testing.assert_array_equal(d.sample(jax.random.key(0)), own)
        assert float(d.log_prob(own)) == 0.0 and float(d.log_prob(own[::-1])) == -np.inf


def test_too_many_vectors_are_not_listed(scheme):
    if scheme is inference.systematic:
        assert scheme(jnp.zeros(100)).enumerate_support().shape[0] <= 102
    else:
        with pytest.raises(ppl.UnsupportedError, match="too many to enumerate"):
            scheme(jnp.zeros(100)).enumerate_support()
