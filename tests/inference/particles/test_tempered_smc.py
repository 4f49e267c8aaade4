"""Tempered SMC against closed forms. That it is properly weighted is checked on all runs, in ``tests/checks``."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl
from borelax.inference.particles.resample_move import effective_share
from borelax.inference.particles.tempered_smc import _longest
from borelax.ppl.staging import stage


def coin():
    x = ppl.sample("x", dist.Bernoulli(0.25), proposal=dist.Bernoulli(0.375))
    ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), 1)
    return x


def redraw(program):
    return inference.mh(program, ppl.select("x"))


def gibbs(program):
    return inference.gibbs(program, ["x"])


# ------------------------------------------------------------------ closed forms

PRIOR = np.array([1.0, 2.0, 4.0])
Y, NOISE = np.array([1.0, -3.0, 2.0]), 0.5


def normal(ys):
    x = ppl.sample("x", dist.Normal(0.0, jnp.asarray(PRIOR, float)))
    ppl.observe("y", dist.Normal(x, NOISE), ys)
    return x


LOG_EVIDENCE = -0.5 * np.sum(Y**2 / (PRIOR**2 + NOISE**2) + np.log(2 * np.pi * (PRIOR**2 + NOISE**2)))
MEAN = Y * PRIOR**2 / (PRIOR**2 + NOISE**2)
VARIANCE = PRIOR**2 * NOISE**2 / (PRIOR**2 + NOISE**2)


def replicated(sampler, count: int):
    """The evidences of independent runs, in units of the exact one, and their normalised weights and values."""
    keys = jax.random.split(jax.random.key(1), count)
    ys = jnp.asarray(Y, float)
    populations = jax.jit(lambda keys: lax.map(lambda key: ppl.seed(sampler)(key, ys), keys))(keys)
    weight = np.exp(np.asarray(populations.log_weight, np.float64) - LOG_EVIDENCE)
    evidence = weight.mean(1)
    return evidence, weight / weight.sum(1, keepdims=True), np.asarray(populations.value, np.float64)


def test_the_evidence_is_unbiased_along_a_ladder():
    def nearby(choices, beta, ys):
        ppl.sample("x", dist.Normal(choices["x"], 0.7))

    kernel = lambda program: inference.mh(program, nearby)  # noqa: E731
    sampler = inference.tempered_smc(normal, 32, kernel, [0.02, 0.2, 1.0], moves=2)
    evidence, weight, value = replicated(sampler, 2000)
    assert_mean(evidence, 1.0)
    assert_mean(evidence[:, None] * np.einsum("rn,rnd->rd", weight, value), MEAN)


def hmc(program, sites=None):
    return inference.hmc(program, sites, num_steps=3)


def test_chosen_temperatures_and_tuning_find_the_posterior():
    """The bias of the evidence is of the order of 1/n, too small to be seen here."""
    evidence, weight, value = replicated(inference.tempered_smc(normal, 400, hmc, moves=3), 100)
    assert_mean(evidence, 1.0)
    assert_mean(np.einsum("rn,rnd->rd", weight, value), MEAN)
    assert_mean(np.einsum("rn,rnd->rd", weight, (value - MEAN) ** 2), VARIANCE)
    assert np.all(1 / (weight**2).sum(1) >= 0.49 * 400)


def test_joined_kernels_and_their_memories():
    """Chains that are kept as a whole, with what the kernel of some of their sites has learnt."""

    def program(ys):
        scale = ppl.sample("wide", dist.Bernoulli(0.5)) + 1.0
        ppl.observe("y", dist.Normal(ppl.sample("x", dist.Normal(0.0, scale).expand([3])), NOISE), ys)

    def kernel(target):
        return inference.cycle(hmc(target, ["x"]), inference.gibbs(target, ["wide"]))

    read = lambda trace: trace.choices  # noqa: E731
    sampler = inference.tempered_smc(program, 40, kernel, [0.5, 1.0], moves=3, waste_free=True, read=read)
    population = jax.eval_shape(ppl.seed(sampler), jax.random.key(0), jnp.asarray(Y, float))
    assert population.value["x"].shape == (40, 3) and population.value["wide"].shape == (40,)


# ------------------------------------------------------------------ temperatures


LOG_WEIGHT = np.random.default_rng(0).normal(size=200) * 30


@jax.jit
def longest(log_weight, most):
    """The next step from equal weights, and the effective sample sizes there and a little further."""
    step = _longest(jnp.zeros(200), log_weight, most, 0.5)
    return step, effective_share(step * log_weight), effective_share(1.001 * step * log_weight)


def test_the_next_temperature_keeps_the_effective_sample_size():
    step, share, further = longest(LOG_WEIGHT, 0.75)
    assert step < 0.75 and further < 0.5
    np.testing.assert_allclose(share, 0.5, rtol=1e-4)
    assert longest(0.01 * LOG_WEIGHT, 0.75)[0] == 0.75


def test_members_that_cannot_live_do_not_hold_it_up():
    some = np.where(np.arange(200) < 60, LOG_WEIGHT, -np.inf)
    np.testing.assert_allclose(longest(some, 1.0)[1], 0.15, rtol=1e-4)


def test_a_step_may_be_tiny_but_is_one():
    for scale in (1e8, 1e30):
        assert 0 < longest(scale * LOG_WEIGHT, 1.0)[0] < 1e-9


def test_the_last_stage_goes_to_the_end_however_far_that_is():
    """And the weights tell."""

    def steep():
        ppl.factor(50.0 * ppl.sample("x", dist.Uniform(0.0, 1.0)))

    sampler = inference.tempered_smc(steep, 100, redraw, ess_target=0.9, moves=1, max_stages=2)
    population = jax.jit(ppl.seed(sampler))(jax.random.key(0))
    assert int(population.generations) == 1 and population.ess < 10


def test_temperatures_are_recorded():
    sampler = inference.tempered_smc(coin, 2, redraw, moves=1, max_stages=7)
    (beta,) = stage(sampler).of_kind("deterministic")
    assert beta.address == ("stage", "beta") and beta.shape == (7,)


def test_what_cannot_be_has_no_evidence():
    impossible = partial(ppl.observe, "y", dist.Uniform(5.0, 6.0), 0.0)
    program = lambda: (ppl.sample("x", dist.Bernoulli(0.5)), impossible())  # noqa: E731
    population = jax.jit(ppl.seed(inference.tempered_smc(program, 4, gibbs, [0.5, 1.0], moves=1)))(
        jax.random.key(0)
    )
    with pytest.warns(UserWarning, match="all 4 members have weight zero"):
        assert population.log_evidence == -np.inf


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("ladder", [[], [0.5], [0.5, 0.5, 1.0], [0.0, 1.0], [[1.0]], [0.5, np.nan, 1.0]])
def test_a_ladder_that_is_none(ladder):
    with pytest.raises(ValueError, match="temperatures are increasing"):
        inference.tempered_smc(coin, 2, redraw, ladder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "number of particles"),
        ({"moves": 0}, "moves is a positive number"),
        ({"n": 10, "moves": 3, "waste_free": True}, "n is a multiple of that"),
        ({"ess_target": 1.0}, "ess_target is a fraction"),
        ({"max_stages": 0}, "max_stages is a positive number"),
    ],
)
def test_numbers_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        inference.tempered_smc(coin, **{"n": 2, "kernel": redraw, **options})


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (redraw(coin), "not one that is made"),
        (lambda program: redraw(coin), "another program"),
        (lambda program: None, "makes none"),
    ],
)
def test_kernels_are_checked(kernel, message):
    with pytest.raises(inference.KernelError, match=message):
        inference.tempered_smc(coin, 2, kernel)


def test_a_density_that_is_only_an_estimate_is_refused():
    def inner():
        z = ppl.sample("z", dist.Bernoulli(0.5))
        ppl.sample("x", dist.Normal(z, 1.0))

    def program():
        ppl.sample("x", ppl.marginal(inner, "x", partial(inference.importance, n=2))())

    with pytest.raises(ppl.UnsupportedError, match="only an estimate"):
        ppl.seed(inference.tempered_smc(program, 2, redraw))(jax.random.key(0))
