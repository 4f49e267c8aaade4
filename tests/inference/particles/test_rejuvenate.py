"""SMC with moves is properly weighted, exactly, and finds parameters that it would lose without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from thresholds import assert_mean, z_threshold

from borelax import inference, ppl, semantics


def bit(name, p, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def redraw(*sites):
    return lambda program: inference.mh(program, ppl.select(*sites))


def straight():
    """With a site after all factors."""
    x = bit("x", 0.25)
    ppl.factor(0.75 * x)
    return x, bit("y", 0.25 + 0.5 * x)


def chain():
    """Backwards, with proposals."""

    def step(x, y):
        x = bit("x", 0.25 + 0.25 * x, proposal=dist.Bernoulli(0.375 + 0.25 * y))
        ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), y)
        return x, x

    return jax.lax.scan(step, 0, jnp.array([1, 0]), reverse=True)[1]


def branching():
    """With a site and a factor that are in one branch only."""
    x = bit("x", 0.25)
    ppl.factor(0.75 * x)

    def more():
        y = bit("y", 0.25)
        ppl.factor(0.5 * y)
        return y + 2

    return x, jax.lax.cond(x == 1, more, lambda: 0)


CASES = [(straight, redraw("x")), (chain, redraw("x")), (branching, redraw("x", "y"))]


@pytest.mark.parametrize(("program", "kernel"), family(CASES), ids=["straight", "chain", "branching"])
def test_every_run_adds_up_to_the_program(program, kernel):
    algorithm = inference.smc(program, 2, ess_threshold=2.0, rejuvenate=kernel)
    report = semantics.properly_weighted(algorithm, program)()
    assert report.holds and report.error < 1e-10, report


def everything():
    """A parameter; a scan with proposals, observations, and a branch with a site and a factor; and a last site."""
    p = bit("p", 0.25)

    def more(x):
        z = bit("z", 0.25 + 0.5 * p)
        ppl.factor(0.5 * z)
        return z

    def step(x, y):
        x = bit("x", 0.25 + 0.25 * x + 0.25 * p, proposal=dist.Bernoulli(0.375 + 0.25 * y))
        ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), y)
        return jax.lax.cond(x == 1, more, lambda x: x, x), x

    last, xs = jax.lax.scan(step, 0, jnp.array([1, 0, 1]))
    return p, xs, bit("last", 0.25 + 0.5 * last)


def test_the_mean_of_many_runs_is_the_program():
    """The same of a larger one, by a test; the kernel has two parts."""

    def kernel(program):
        return inference.cycle(inference.gibbs(program, ["p"]), inference.mh(program, ppl.select("x", "z")))

    exact = list(semantics.meaning(everything)())
    sampler = inference.smc(everything, 4, ess_threshold=2.0, rejuvenate=kernel)
    populations = jax.jit(jax.vmap(ppl.seed(sampler)))(jax.random.split(jax.random.key(0), 20_000))
    weight = np.exp(np.asarray(populations.log_weight, np.float64))
    members = _codes(*map(np.asarray, populations.value))
    found = [(weight * (members == _codes(*map(np.asarray, value)))).mean(1) for value, _ in exact]
    assert_mean(np.stack(found, 1), np.array([mass for _, mass in exact]))


def _codes(p, xs, last):
    """A number for each value of the program."""
    return p + 2 * last + 4 * (xs @ np.array([1, 2, 4]))


# ------------------------------------------------------------------------- a parameter before a scan


YS = np.array([0.1, 1.4, 1.1, 1.9, 2.2, 0.4, 0.9, 0.6, 1.5, 1.8, 0.9, 1.2])


def autoregression(ys):
    a = ppl.sample("a", dist.Normal(0.0, 1.0))

    def step(x, y):
        x = ppl.sample("x", dist.Normal(a * x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, None

    jax.lax.scan(step, 0.0, ys)
    return a


def nearby(choices, point, ys):
    return ppl.sample("a", dist.Normal(choices["a"], 0.5))


def filtered(ys):
    """The evidence, and the posterior mean and standard deviation of the coefficient: on a grid, by Kalman filters."""
    a = np.linspace(-5.0, 5.0, 4001)
    log_density, mean, variance = -0.5 * (a**2 + np.log(2 * np.pi)), np.zeros_like(a), np.zeros_like(a)
    for y in ys:
        mean, variance = a * mean, a**2 * variance + 1.0
        spread = variance + 0.25
        log_density -= 0.5 * ((y - mean) ** 2 / spread + np.log(2 * np.pi * spread))
        mean, variance = mean + variance / spread * (y - mean), variance * 0.25 / spread
    weight = np.exp(log_density)
    center = weight @ a / weight.sum()
    return weight.sum() * (a[1] - a[0]), center, np.sqrt(weight @ (a - center) ** 2 / weight.sum())


def runs(**options):
    sampler = inference.smc(autoregression, 32, **options)
    keys = jax.random.split(jax.random.key(0), 1000)
    populations = jax.jit(jax.vmap(ppl.seed(sampler), (0, None)))(keys, jnp.asarray(YS))
    return np.asarray(populations.log_weight, np.float64), np.asarray(populations.value, np.float64)


def test_a_parameter_is_found_that_is_lost_without_moves():
    evidence, mean, spread = filtered(YS)
    squared_errors = []
    for options in ({}, {"rejuvenate": lambda program: inference.mh(program, nearby), "ess_threshold": 2.0}):
        log_weight, a = runs(**options)
        weight = np.exp(log_weight) / evidence
        assert_mean(weight.mean(1), 1.0)
        assert_mean((weight * a).mean(1), mean)
        estimate = (weight * a).sum(1) / weight.sum(1)
        squared_errors.append(((estimate - mean) / spread) ** 2)
    gain = squared_errors[0] - squared_errors[1]
    assert gain.mean() > z_threshold() * gain.std() / np.sqrt(len(gain))


def test_the_error_of_the_evidence_is_that_of_the_replications():
    """Counted as if systematic resampling were multinomial, lines of descent would claim a quarter of the variance."""

    def walk(ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, None

        return jax.lax.scan(step, 0.0, ys)[0]

    sampler = inference.smc(walk, 64, ess_threshold=2.0, rejuvenate=redraw("x"))

    def run(key):
        population = ppl.seed(sampler)(key, jnp.asarray(YS[:8]))
        return population.log_evidence, population.log_evidence_se

    found, claimed = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 300))
    assert 0.5 < np.mean(np.asarray(claimed) ** 2) / np.var(np.asarray(found)) < 1.5


# ------------------------------------------------------------------------- what is refused


def test_what_cannot_be_moved_is_refused():
    with pytest.raises(inference.KernelError, match="not one that is made"):
        inference.smc(straight, 2, rejuvenate=inference.mh(straight, ppl.select("x")))
    with pytest.raises(TypeError, match="retained run cannot be moved"):
        inference.smc(straight, 2, retained={}, rejuvenate=redraw("x"))
    with pytest.raises(ValueError, match="ess_threshold is a fraction"):
        inference.smc(straight, 2, ess_threshold=-1.0, rejuvenate=redraw("x"))
    with pytest.raises(ValueError, match="moves is a positive number"):
        inference.smc(straight, 2, rejuvenate=redraw("x"), moves=0)
