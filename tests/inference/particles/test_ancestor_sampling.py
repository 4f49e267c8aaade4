"""Ancestor sampling keeps the measure, exactly, and renews the beginning of a run; scans with memory are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
YS = jnp.array([1, 0, 1])


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def kernel(program, n=2, **options):
    return inference.particle_gibbs(program, n, **{"ess_threshold": 2.0, "check": False} | options)


def invariant(program, n=2, **options) -> bool:
    """To 1e-10, of traces as a whole."""
    return semantics.leaves_invariant(kernel(program, n, ancestor_sampling=True, **options), program)().holds


# ------------------------------------------------------------------ exactly


def pair():
    def step(x, weight):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(weight * x)
        return x, x

    return lax.scan(step, 0, jnp.array([2.0, -1.0]))[1]


def guided():
    """Proposals; three steps, in reverse."""

    def step(x, weight):
        x = bit("x", 0.25 + 0.5 * x, proposal=dist.Bernoulli(0.375))
        ppl.factor(weight * x)
        return x, x

    return lax.scan(step, 0, jnp.array([2.0, -1.0, 0.5]), reverse=True)[1]


def masked():
    """A site that only one branch has, which branch is drawn; a first state; a sum that is only returned."""
    first = bit("first", 0.25)

    def step(carry, _):
        z, total = carry
        z = bit("z", jnp.array([0.25, 0.5])[z])
        y = lax.cond(z == 1, lambda: bit("y", 0.25), lambda: 0)
        ppl.factor(0.75 * z + 0.5 * y)
        return (z, total + y), None

    (_, total), _ = lax.scan(step, (first, 0), None, length=2)
    return first, total


def around():
    """Straight-line code before and after, a function that is called, a second scan."""
    start = bit("start", 0.25)
    ppl.factor(0.5 * start)

    def step(x, weight):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(weight * x)
        return x, x

    x, xs = jax.jit(lambda start: lax.scan(step, start, jnp.array([1.0, -0.5])))(start)
    with ppl.scope("again"):
        x, _ = lax.scan(step, x, jnp.array([0.5, 0.25]))
    ppl.factor(0.25 * x)
    return start, xs


SCHEMES = [inference.systematic, inference.multinomial, inference.residual, inference.killing]


@pytest.mark.parametrize("resampler", family(SCHEMES, every=4), ids=lambda r: r.__name__)
def test_whatever_the_resampler(resampler):
    assert invariant(pair, resampler=resampler)


@pytest.mark.thorough
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_whatever_the_threshold(threshold):
    """Members take places where nothing is resampled, too."""
    assert invariant(pair, ess_threshold=threshold)


@pytest.mark.thorough
@pytest.mark.parametrize("program", [guided, masked, around], ids=lambda p: p.__name__)
def test_whatever_the_program(program):
    assert invariant(program)


@pytest.mark.thorough
def test_three_particles():
    assert invariant(pair, 3)


# ------------------------------------------------------------------ the retained run


@pytest.mark.parametrize("length", [0, 1])
def test_a_scan_that_no_step_follows(length):
    def closing_over(ys):
        p = bit("p")
        return lax.scan(lambda x, y: (bit("x", 0.25 + 0.25 * x + 0.25 * p), None), 0, ys)[0]

    choices = {"p": jnp.array(1), "x": jnp.ones(length, int)}
    run = ppl.seed(inference.conditional_smc(closing_over, 3, ancestor_sampling=True))
    assert run(jax.random.key(0), choices, jnp.zeros(length)).value.shape == (3,)


def test_member_0_ends_as_the_retained_run_does():
    algorithm = inference.conditional_smc(guided, 5, ess_threshold=2.0, ancestor_sampling=True)
    run = jax.jit(jax.vmap(ppl.seed(algorithm), in_axes=(0, None)))
    population = run(jax.random.split(KEY, 50), {"x": jnp.array([1, 0, 1])})
    assert (population.value[:, 0, 0] == 1).all()  # the scan is in reverse: this is its last step
    assert len(np.unique(population.value[:, 0, -1])) == 2


def test_a_run_that_cannot_be_has_no_weight():
    run = jax.jit(ppl.seed(inference.conditional_smc(masked, 3, ancestor_sampling=True)))
    absent = ppl.Masked(jnp.array([0, 1]), jnp.array([False, True]))
    at = lambda z: {"first": 0, "z": jnp.array(z), "y": absent}  # noqa: E731
    assert float(run(KEY, at([0, 1])).log_weight[0]) > -np.inf
    assert float(run(KEY, at([0, 0])).log_weight[0]) == -np.inf  # it must not be there
    assert float(run(KEY, at([1, 1])).log_weight[0]) == -np.inf  # it must be there


# ------------------------------------------------------------------ what it is for


def linear_gaussian(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(0.75 * x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, x

    return lax.scan(step, 0.0, ys)[1]


def smoothed(ys):
    """The mean and the covariance of the states given all observations."""
    lag = np.subtract.outer(np.arange(len(ys)), np.arange(len(ys)))
    response = np.where(lag >= 0, 0.75 ** np.maximum(lag, 0), 0.0)
    prior = response @ response.T
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(len(ys)))
    return gain @ ys, prior - gain @ prior


def test_the_moments_of_a_smoother():
    """Chains that start in the posterior are still there after some steps, and their first states have moved."""
    ys = np.sin(np.arange(40.0))
    mean, covariance = smoothed(ys)
    starts = np.random.default_rng(0).multivariate_normal(mean, covariance, size=4_000).astype(np.float32)
    sampled = kernel(linear_gaussian, 4, ancestor_sampling=True)

    @jax.jit
    @jax.vmap
    def run(key, start):
        observed = jnp.asarray(ys, jnp.float32)
        trace = ppl.simulate(linear_gaussian)(KEY, observed)
        trace = ppl.update(linear_gaussian, {"x": start})(trace, observed).trace
        step = lambda state, key: (ppl.seed(sampled)(key, state, observed), None)  # noqa: E731
        return lax.scan(step, sampled.init(trace, observed), jax.random.split(key, 3))[0].trace.value

    paths = np.asarray(run(jax.random.split(KEY, len(starts)), jnp.asarray(starts)), np.float64)
    assert (paths != starts).mean(0).min() > 0.5
    centred = paths - mean
    assert_mean(centred, 0.0 * mean)
    assert_mean(centred[:, :, None] * centred[:, None, :], covariance)


# ------------------------------------------------------------------ what is refused


def parameter(ys):
    p = bit("p")
    return lax.scan(lambda x, y: (_seen(bit("x", 0.25 + 0.5 * x), 0.25 * p, y), None), 0, ys)


def accumulated(ys):
    def step(carry, y):
        x, total = carry
        x = _seen(bit("x", 0.25 + 0.5 * x), 0.125 * total, y)
        return (x, total + x), None

    return lax.scan(step, (0, 0), ys)


def stacked(ys):
    xs = lax.scan(lambda x, y: (_seen(bit("x", 0.25 + 0.5 * x), 0.25, y),) * 2, 0, ys)[1]
    ppl.factor(0.5 * xs.sum())


def beside(ys):
    p = bit("p")
    lax.scan(lambda x, y: (_seen(bit("x", 0.25 + 0.5 * x), 0.25, y), None), p, ys)
    bit("q", 0.25 + 0.5 * p)


def inputs(ys):
    ps = bit("p", jnp.full(3, 0.5))
    lax.scan(lambda x, p: (_seen(bit("x", 0.25 + 0.5 * x), 0.25 * p, 1), None), 0, ps)


def start_and_parameter(ys):
    """One value in both parts."""
    p = bit("p")
    return lax.scan(lambda x, y: (_seen(bit("x", 0.25 + 0.5 * x), 0.25 * p, y), None), p, ys)


def _seen(x, bias, y):
    ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x + bias), y)
    return x


@pytest.mark.parametrize(
    "program",
    [parameter, start_and_parameter, accumulated, stacked, beside, inputs],
    ids=lambda p: p.__name__,
)
def test_scans_with_memory_are_refused(program):
    message = r"the scan of 'x' \(test_ancestor_sampling.py:\d+\) is not seen to be a Markov chain.*int32"
    choices = ppl.simulate(program)(KEY, YS).choices
    algorithm = inference.conditional_smc(program, 2, check=False, ancestor_sampling=True)
    with pytest.raises(ppl.UnsupportedError, match=message):
        jax.eval_shape(ppl.seed(algorithm), KEY, choices, YS)


def test_given_the_parameter_it_is_one():
    one = kernel(parameter, 2, sites=ppl.select("x"), ancestor_sampling=True)
    trace = ppl.simulate(parameter)(KEY, YS)
    state = jax.eval_shape(ppl.seed(one), KEY, one.init(trace, YS), YS)
    assert state.trace.choices["x"].shape == (3,)
