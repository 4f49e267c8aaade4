"""mcmc: exact answers, how chains start, adapt and are compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from thresholds import standard_errors, z_threshold

from borelax import inference, ppl

KEY = jax.random.key(0)


def assert_agrees(x, mean: float, sd: float) -> None:
    """Mean and standard deviation are those of the reference, within what the draws let one see."""
    x = np.asarray(x, float)
    own = standard_errors(x)
    z = [abs(found - right) / error for found, right, error in zip((x.mean(), x.std()), (mean, sd), own)]
    assert max(z) < z_threshold(20), (z, x.mean(), x.std(), mean, sd)


# ------------------------------------------------------------------------------ a funnel


EFFECTS = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools(theta):
    def program(effects, errors):
        mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        tau = ppl.sample("tau", dist.HalfCauchy(5.0))
        ppl.observe("effect", dist.Normal(theta(mu, tau), errors), effects)

    return program


centred = schools(lambda mu, tau: ppl.sample("theta", dist.Normal(mu, tau).expand([8])))
non_centred = schools(lambda mu, tau: mu + tau * ppl.sample("z", dist.Normal(0.0, 1.0).expand([8])))


def test_eight_schools():
    """A funnel: the sampler gets stuck in its neck, and says so; written otherwise there is none."""
    options = {"num_samples": 500, "num_warmup": 500}
    narrow = inference.mcmc(inference.nuts(centred), **options)(KEY, EFFECTS, ERRORS).summary().warnings
    assert any("trajectories diverged" in warning for warning in narrow)
    assert any("R-hat" in warning for warning in narrow) or any("worth only" in warning for warning in narrow)
    kernel = inference.nuts(non_centred, target_acceptance=0.95)
    assert inference.mcmc(kernel, **options)(KEY, EFFECTS, ERRORS).summary().warnings == ()


# ------------------------------------------------------------------------------ exact answers

YS = jnp.array([-1.2, 0.3, 2.5, 2.0])
CENTRES = (-1.0, 2.0)
SPREAD = 1.5  # of the centres about these


def mixture(ys):
    """Two components whose centres are drawn; the labels of the data are sites."""
    centres = ppl.sample("centres", dist.Normal(jnp.array(CENTRES), SPREAD))
    z = ppl.sample("z", dist.Bernoulli(0.4).expand([len(ys)]))
    ppl.observe("y", dist.Normal(centres[z], 1.0), ys)
    return z


def test_labels_and_centres_in_turn():
    """All 16 labellings are summed over: given one, centres are normal, and so is the evidence."""
    labels = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    weights, means = [], []
    for z in labels:
        weight, mean = np.prod(np.where(z == 1, 0.4, 0.6)), []
        for k in range(2):
            y = np.asarray(YS, float)[z == k]
            covariance = np.eye(len(y)) + SPREAD**2
            weight *= stats.multivariate_normal.pdf(y, [CENTRES[k]] * len(y), covariance) if len(y) else 1.0
            precision = 1 / SPREAD**2 + len(y)
            mean.append((CENTRES[k] / SPREAD**2 + y.sum()) / precision)
        weights.append(weight)
        means.append(mean)
    weights = np.array(weights) / np.sum(weights)

    kernel = inference.cycle(inference.nuts(mixture, ["centres"]), inference.gibbs(mixture, ["z"]))
    draws = inference.mcmc(kernel, num_samples=2000, num_warmup=300)(KEY, YS)
    assert draws.summary().warnings == ()
    for i in range(4):
        p = float(weights @ labels[:, i])
        assert_agrees(draws.value[..., i], p, np.sqrt(p * (1 - p)))
        np.testing.assert_array_equal(draws.value, draws.choices["z"])
    for k in range(2):
        x = draws.choices["centres"][..., k]
        assert abs(x.mean() - weights @ np.array(means)[:, k]) < z_threshold(20) * standard_errors(x)[0]


def rates(ys):
    rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
    ppl.observe("y", dist.Poisson(rate).expand(ys.shape), ys)
    return rate


COUNTS = jnp.array([3, 1, 4])


@pytest.mark.parametrize("name", ["nuts", "hmc", "mala"])
def test_a_conjugate_posterior_with_all_that_is_learnt_frozen(name):
    draws = inference.mcmc(getattr(inference, name)(rates), num_samples=1000, num_warmup=500)(KEY, COUNTS)
    assert_agrees(draws.value, 10 / 4, np.sqrt(10) / 4)
    step_size = np.asarray(draws.info.step_size)
    assert np.all(step_size == step_size[:, :1]) and np.all(step_size[:, 0] == draws.state.memory.step_size)
    assert len(set(step_size[:, 0].tolist())) == 4 and 1.0 not in step_size  # learnt by each chain
    assert len(np.unique(draws.value)) > 1000  # no two chains have one key


# ------------------------------------------------------------------------------ starts


def bounded(ys):
    """Prior draws seldom give the data a density."""
    width = ppl.sample("width", dist.Exponential(1.0))
    ppl.observe("y", dist.Uniform(0.0, width).expand([len(ys)]), ys)
    return width


def test_a_start_without_a_density_is_drawn_anew():
    draws = inference.mcmc(inference.slice(bounded, ["width"]), num_samples=4, num_warmup=0)(
        KEY, jnp.array([3.0])
    )
    assert np.all(draws.started) and np.all(draws.value > 3.0)


def test_a_chain_that_finds_no_start_is_reported():
    run = inference.mcmc(inference.nuts(bounded), num_samples=10, num_warmup=10, num_chains=2)
    with pytest.warns(UserWarning, match="not finite where chains 0 and 1 started"):
        draws = run(KEY, jnp.array([50.0]))
    assert not np.any(draws.started)
    found = draws.summary().warnings
    assert "not finite where chains 0 and 1 started" in found[0]
    assert any("All draws of chains 0 and 1 are the same" in warning for warning in found)
    assert any("20 of 20 draws have a log density that is not finite" in warning for warning in found)


def place(ys):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0).expand([len(ys)]), ys)
    return x


PLACES = jnp.array([0.5, 1.0, 0.0])
STAY = inference.mh(place, lambda choices, ys: None)


@jax.jit
@jax.vmap
def at(x) -> ppl.Trace:
    """Traces at other data than those of the chains."""
    return ppl.update(place, {"x": x})(ppl.simulate(place)(KEY, PLACES + 1), PLACES + 1).trace


def test_given_starts():
    run = inference.mcmc(STAY, num_samples=1, num_warmup=0, num_chains=2)
    draws = run(KEY, PLACES, init=at(jnp.array([3.0, -2.0])))
    assert draws.value.tolist() == [[3.0], [-2.0]] and np.all(draws.started)
    density = jax.vmap(lambda x: ppl.log_density(place)({"x": x}, PLACES))(draws.value[:, 0])
    np.testing.assert_allclose(draws.log_density[:, 0], density, rtol=1e-6)  # at the data that is given
    with pytest.warns(UserWarning, match="not finite where chain 1 started"):
        run(KEY, PLACES, init=at(jnp.array([0.0, 1e30])))
    with pytest.raises(ValueError, match=r"2 chains start from.*\(3,\)"):
        run(KEY, PLACES, init=at(jnp.arange(3.0)))
    with pytest.raises(TypeError, match="2 chains"):
        run(KEY, PLACES, init={"x": jnp.ones(2)})


def test_a_chain_goes_on_where_it_was():
    first = inference.mcmc(inference.mh(place, ppl.select("x")), 5, 0, 3)(KEY, PLACES)
    again = inference.mcmc(STAY, 1, 0, 3)(KEY, PLACES, init=first.state.trace)
    np.testing.assert_array_equal(again.value[:, 0], first.value[:, -1])


# ------------------------------------------------------------------------------ the driver


def test_thinning_and_warmup_leave_steps_out():
    kernel = inference.mh(place, ppl.select("x"))
    all_of_them, every_third, later = (
        inference.mcmc(kernel, number, warmup, 3, thin)(KEY, PLACES).value
        for number, warmup, thin in ((30, 0, 1), (10, 0, 3), (25, 5, 1))
    )
    np.testing.assert_array_equal(all_of_them[:, 2::3], every_third)
    np.testing.assert_array_equal(all_of_them[:, 5:], later)


def test_it_is_compiled_once_for_data_of_one_shape():
    traced = []

    def program(ys, kind):
        traced.append(kind)
        return place(ys)

    run = inference.mcmc(inference.mh(program, ppl.select("x")), num_samples=2, num_warmup=2)
    run(KEY, PLACES, 1)
    once = len(traced)
    draws = run(jax.random.key(1), PLACES + 1, 1)
    assert len(traced) == once and draws.value.shape == (4, 2)
    run(KEY, PLACES[:2], 1)
    assert len(traced) == 2 * once
    for kind in (1.0, True):
        run(KEY, PLACES, kind)
    assert len(traced) == 4 * once and [type(kind) for kind in traced[::once]] == [int, int, float, bool]


def test_it_can_be_jitted_and_mapped():
    run = inference.mcmc(inference.mh(place, ppl.select("x")), num_samples=3, num_warmup=1, num_chains=2)
    keys = jax.random.split(KEY, 5)
    mapped = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, PLACES)
    assert mapped.value.shape == (5, 2, 3)
    np.testing.assert_array_equal(mapped.value[3], run(keys[3], PLACES).value)
    with pytest.raises(ValueError, match=r"leading axes \[chain, draw\]"):
        mapped.summary()


def test_every_chain_of_a_mixture_of_kernels_adapts():
    """The kernel that is picked in few steps ends its windows all the same."""
    kernels = [inference.hmc(rates, num_steps=3), inference.hmc(rates, num_steps=4)]
    kernel = inference.mixture(kernels, [0.9, 0.1])
    draws = inference.mcmc(kernel, num_samples=2000, num_warmup=400)(KEY, COUNTS)
    assert_agrees(draws.value, 10 / 4, np.sqrt(10) / 4)
    for memory in draws.state.memory:
        variance = np.asarray(memory.inverse_mass)[:, 0]
        assert np.all((0.02 < variance) & (variance < 0.4))  # of the log rate it is about a tenth


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_samples": 0}, ValueError, "num_samples is a positive integer"),
        ({"num_chains": 2.0}, ValueError, "num_chains is a positive integer"),
        ({"num_warmup": -1}, ValueError, "num_warmup"),
        ({"thin": 0}, ValueError, "thin"),
    ],
)
def test_options_that_make_no_sense(options, error, match):
    with pytest.raises(error, match=match):
        inference.mcmc(inference.nuts(rates), **options)


def test_a_program_is_no_kernel():
    with pytest.raises(TypeError, match="takes a kernel"):
        inference.mcmc(rates)
