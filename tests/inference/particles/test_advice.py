"""Advice to resamplers changes no measure, whatever it is; good advice makes better filters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import f
from thresholds import FALSE_ALARM_RATE, assert_mean

from borelax import inference, ppl, semantics
from borelax.inference.particles.advice import FLOOR, advised
from borelax.ppl import Cloud


def properly_weighted(algorithm, program, *args) -> None:
    report = semantics.properly_weighted(algorithm, program)(*args).assert_holds()
    assert report.how.startswith("exact") and report.error < 1e-10


ADVICE = jnp.array([[0.0, 1.5], [-np.inf, 0.0], [-np.inf, -np.inf], [200.0, -100.0]])


def coins(advice=ADVICE):
    """Two coins, the second weighted by whether it is as the first. Which advice a run gives is drawn too."""
    k = ppl.sample("k", dist.Categorical(jnp.ones(len(advice)) / len(advice)))
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.factor(0.5 * x)
    ppl.twist(advice[k, x])
    y = ppl.sample("y", dist.Bernoulli(0.5))
    ppl.factor(jnp.where(x == y, 0.0, -1.0))
    return x, y


@pytest.mark.parametrize("algorithm", [inference.smc, inference.discrete_smc])
def test_properly_weighted_whatever_the_advice(algorithm):
    options = {"ess_threshold": 2.0} if algorithm is inference.smc else {}
    properly_weighted(algorithm(coins, 2, **options), coins)


def test_particle_gibbs_is_invariant_whatever_the_advice():
    kernel = inference.particle_gibbs(coins, 2, ess_threshold=2.0)
    report = semantics.leaves_invariant(kernel, coins)(ADVICE[:2]).assert_holds()
    assert report.how.startswith("exact") and report.error < 1e-10


def scanned(advice):
    """Advice in a branch, in the last step of a loop too, and after it."""

    def step(x, potential):
        x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
        jax.lax.cond(x == 1, lambda: ppl.twist(potential), lambda: None)
        return x, x

    last, xs = jax.lax.scan(step, 0, advice)
    ppl.factor(0.75 * last)
    y = ppl.sample("y", dist.Bernoulli(0.25))
    ppl.factor(y * last)
    return xs, y


def test_advice_in_loops_and_branches():
    properly_weighted(inference.smc(scanned, 2, ess_threshold=0.9), scanned, jnp.array([1.0, -2.0]))


def test_members_are_chosen_by_weight_and_advice():
    """Multinomial resampling of many; what was drawn after it is not asked."""

    def program():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(0.5 * x)
        ppl.twist(1.0 - 2.0 * x)
        return x, ppl.sample("y", dist.Bernoulli(0.5))

    n = 100_000
    run = ppl.seed(inference.smc(program, n, inference.multinomial, ess_threshold=2.0))
    population = jax.jit(run)(jax.random.key(0))
    share = np.exp(-0.5) / (np.exp(1.0) + np.exp(-0.5))
    assert_mean(np.asarray(population.value[0]), share)
    left = np.asarray(population.log_weight) - 2.0 * np.asarray(population.value[0])
    np.testing.assert_allclose(left, left[0], atol=1e-5)


def test_advice_is_for_one_suspension():
    def program():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.twist(3.0 * x)
        y = ppl.sample("y", dist.Bernoulli(0.5))
        ppl.factor(-3.0 * x)
        return x, y, ppl.sample("z", dist.Bernoulli(0.5))

    trace = jax.jit(ppl.simulate(inference.smc(program, 50, ess_threshold=2.0)))(jax.random.key(0))
    x = np.asarray(trace.choices["x"])[trace.choices["resample"]["0"]]
    weight = np.exp(-6.0 * x)  # half of it is left from the resampling
    ess = np.sum(weight) ** 2 / np.sum(weight**2)
    np.testing.assert_allclose(trace.deterministic["resample"]["1 ess"], ess, rtol=1e-4)


def test_no_member_with_weight_is_given_up():
    none = jnp.zeros((), int)
    log_weight = jnp.log(jnp.array([0.5, 0.25, 0.25, 0.0]))
    log_twist = jnp.log(jnp.array([0.0, 1.0, 3.0, 100.0]))
    cloud = Cloud(log_weight, jnp.zeros(()), jnp.arange(4), none, none, log_twist=log_twist)
    mean = 0.25 + 0.75
    np.testing.assert_allclose(
        np.exp(advised(cloud).log_twist), [FLOOR, 1.0 / mean, 3.0 / mean, 1.0], rtol=1e-5
    )


@pytest.mark.parametrize("common", [-1e8, 1e8])
def test_what_all_are_advised_of_takes_no_digits(common):
    none = jnp.zeros((), int)
    log_twist = jnp.array([common, common])
    cloud = Cloud(
        jnp.log(jnp.array([0.5, 0.25])), jnp.zeros(()), jnp.arange(2), none, none, log_twist=log_twist
    )
    np.testing.assert_array_equal(advised(cloud).log_weight, cloud.log_weight)


@pytest.mark.parametrize("wrong", [jnp.inf, jnp.nan])
def test_what_is_no_number_is_no_advice(wrong):
    none = jnp.zeros((), int)
    log_twist = jnp.array([wrong, 0.0, jnp.log(3.0)])
    cloud = Cloud(jnp.zeros(3), jnp.zeros(()), jnp.arange(3), none, none, log_twist=log_twist)
    np.testing.assert_allclose(np.exp(advised(cloud).log_twist), [1.0, 0.5, 1.5], rtol=1e-5)


def test_beam_keeps_what_is_promising():
    for twist, kept, log_weight in ((0.0, 0, np.log(0.75)), (5.0, 1, np.log(0.25) + 0.5)):
        population = inference.beam(coins, 1)(jnp.array([[0.0, twist]]))
        assert np.all(population.value[0] == kept)
        np.testing.assert_allclose(
            population.log_evidence, log_weight + np.log((1 + np.exp(-1)) / 2), rtol=1e-5
        )


# ------------------------------------------------------------------ the fully adapted filter

NOISE = 0.5
OBSERVED = np.array([0.5, -1.0, 2.0, 1.5, -0.5, 0.0, 2.5, 1.0], np.float32)


def chain(ys, guided: bool, twisted: bool):
    """A Gaussian walk, seen with noise: drawn given the next observation, and chosen by its density."""
    gain = 1.0 / (1.0 + NOISE**2)

    def step(x, y):
        now, following = y
        optimal = dist.Normal(x + gain * (now - x), jnp.sqrt(1.0 - gain))
        x = ppl.sample("x", dist.Normal(x, 1.0), proposal=optimal if guided else None)
        ppl.observe("y", dist.Normal(x, NOISE), now)
        if twisted:
            ppl.twist(dist.Normal(x, jnp.sqrt(1.0 + NOISE**2)).log_prob(following))
        return x, x

    return jax.lax.scan(step, 0.0, (ys, jnp.append(ys[1:], 0.0)))[0]


@pytest.fixture(scope="module")
def filters():
    """4000 runs of the bootstrap filter, of one that draws well, and of one that chooses well too."""

    def run(guided, twisted):
        program = lambda ys: chain(ys, guided, twisted)  # noqa: E731
        runs = jax.vmap(ppl.seed(inference.smc(program, 16, ess_threshold=2.0)), (0, None))
        return jax.jit(runs)(jax.random.split(jax.random.key(0), 4000), OBSERVED)

    return {name: run(*kind) for name, kind in KINDS.items()}


KINDS = {"bootstrap": (False, False), "guided": (True, False), "adapted": (True, True)}


def test_the_evidence_is_unbiased_for_kalmans(filters):
    walk = np.tril(np.ones((len(OBSERVED), len(OBSERVED))))
    covariance = walk @ walk.T + NOISE**2 * np.eye(len(OBSERVED))
    exact = dist.MultivariateNormal(0.0, covariance).log_prob(OBSERVED)
    for population in filters.values():
        assert_mean(np.exp(np.asarray(population.log_evidence, np.float64) - float(exact)), 1.0)


def test_its_particles_have_equal_weights(filters):
    spread = {name: np.ptp(np.asarray(x.log_weight), axis=1) for name, x in filters.items()}
    assert np.max(spread["adapted"]) < 1e-4 < 1e-1 < np.median(spread["guided"])


standard_error = jax.jit(jax.vmap(lambda population: population.log_evidence_se))


def test_standard_errors_are_those_of_the_replications(filters):
    """Though systematic resampling of weights that hardly differ keeps nearly all lines of descent."""
    for name in ("guided", "adapted"):
        claimed = np.mean(np.asarray(standard_error(filters[name]), np.float64) ** 2)
        assert 0.67 < claimed / np.var(np.asarray(filters[name].log_evidence)) < 1.5


def test_its_evidence_varies_less(filters):
    """By F-tests of the variances of log evidences."""
    variance = {name: np.var(np.asarray(x.log_evidence)) for name, x in filters.items()}
    least = f.isf(FALSE_ALARM_RATE / 2, 3999, 3999)
    assert variance["guided"] / variance["adapted"] > least
    assert variance["bootstrap"] / variance["guided"] > least
