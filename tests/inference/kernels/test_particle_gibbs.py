"""Particle Gibbs leaves the normalised measure of a program invariant: exactly, by adding up every run."""

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
from borelax.inference.particles.smc import Resample, ResampleOthers

KEY = jax.random.key(0)
RESAMPLERS = [inference.systematic, inference.multinomial, inference.residual, inference.killing]


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def chain(ys):
    def step(state, y):
        state = bit("state", 0.25 + 0.5 * state)
        ppl.observe("y", dist.Bernoulli(0.125 + 0.625 * state), y)
        return state, state

    return lax.scan(step, 0, ys)[1]


def branching():
    """A branch with a proposal, a scan, a deterministic site."""
    a = bit("a", 0.25)
    b = lax.cond(a == 1, lambda: bit("b", 0.75, proposal=dist.Bernoulli(0.5)), lambda: 2)
    ppl.factor(-0.5 * ppl.deterministic("twice", 2 * b))

    def step(total, _):
        total = total + bit("c", 0.375, proposal=dist.Bernoulli(0.25))
        ppl.factor(0.25 * total)
        return total, None

    return lax.scan(step, b, None, length=1)[0]


YS = jnp.array([1, 0])


def invariant(kernel, *args) -> bool:
    """To 1e-10, of traces as a whole."""
    return semantics.leaves_invariant(kernel, kernel.program)(*args).holds


@pytest.mark.parametrize("resampler", family(RESAMPLERS, every=2), ids=lambda r: r.__name__)
def test_whatever_the_resampler(resampler):
    assert invariant(inference.particle_gibbs(chain, 2, resampler=resampler, ess_threshold=2.0), YS)


@pytest.mark.parametrize("threshold", family([0.8, 0.0, 0.95]))
def test_whatever_the_threshold(threshold):
    """With the higher ones it depends on the run, the retained one included, where it is resampled."""
    assert invariant(inference.particle_gibbs(chain, 2, ess_threshold=threshold), YS)


def test_three_particles():
    assert invariant(inference.particle_gibbs(chain, 3, ess_threshold=2.0), YS)


def test_branches_and_proposals():
    assert invariant(inference.particle_gibbs(branching, 2, ess_threshold=2.0))


def test_some_of_the_sites():
    assert invariant(inference.particle_gibbs(branching, 2, ppl.select("c"), ess_threshold=2.0))


@pytest.mark.parametrize("site", ["b", "c"])
def test_the_other_sites_stay(site):
    kernel = inference.particle_gibbs(branching, 3, ppl.select(site))

    @jax.jit
    @jax.vmap
    def move(key):
        old = ppl.simulate(branching)(key)
        return old.choices, ppl.seed(kernel)(key, kernel.init(old)).trace.choices

    old, new = move(jax.random.split(KEY, 50))
    others = ~ppl.select(site)
    jax.tree.map(np.testing.assert_array_equal, others.of(old), others.of(new))
    assert any(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), old, new)))


def test_the_state_is_a_trace_of_the_program():
    kernel = inference.particle_gibbs(branching, 3)
    state = kernel.init(ppl.simulate(branching)(KEY))
    new = jax.jit(ppl.seed(kernel))(jax.random.key(1), state).trace
    assert jax.tree.structure(new) == jax.tree.structure(state.trace)
    assert float(new.log_density) == pytest.approx(float(ppl.log_density(branching)(new.choices)), rel=1e-5)
    value, log_weight = ppl.reweigh(branching)(new.choices)
    assert float(new.log_weight) == pytest.approx(float(log_weight), rel=1e-5)
    assert int(new.value) == int(value) and int(new.deterministic["twice"]) in (0, 2, 4)


def test_it_needs_particles_to_move_to():
    with pytest.raises(ValueError, match="at least 2 particles"):
        inference.particle_gibbs(chain, 1)


def test_the_selection_is_checked():
    kernel = inference.particle_gibbs(chain, 2, ppl.select("stat"))
    with pytest.raises(ppl.AddressError, match=r"'stat'.*did you mean 'state'\?"):
        ppl.seed(kernel)(KEY, kernel.init(ppl.simulate(chain)(KEY, YS), YS), YS)


# ------------------------------------------------------------------ mutants


def not_reset(self, address, cloud, final):
    return Resample.reduce(self, address, cloud, final)._replace(cloud=cloud)


@pytest.mark.parametrize(
    ("name", "mutant"), [("law", Resample.law), ("reduce", not_reset)], ids=["not retained", "not reset"]
)
def test_mutants_are_caught(monkeypatch, name, mutant):
    monkeypatch.setattr(ResampleOthers, name, mutant)
    assert not invariant(inference.particle_gibbs(chain, 2, ess_threshold=2.0), YS)


def test_smc_that_forgets_where_it_was_is_caught():
    """Without a retained particle, few particles are far from the target."""

    def step(state, *args):
        population = inference.smc(lambda *args: ppl.trace(chain)(*args), 2)(*args)
        member = ppl.sample("member", dist.Categorical(logits=population.value.log_weight))
        return inference.State(jax.tree.map(lambda x: x[member], population.value))

    assert not invariant(inference.Kernel(chain, lambda trace, *args: inference.State(trace), step), YS)


# ------------------------------------------------------------------ Kalman


def linear_gaussian(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(0.75 * x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, x

    return lax.scan(step, 0.0, ys)[1]


def smoothed(ys):
    """The mean and the covariance of the states given all observations."""
    size = len(ys)
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    response = np.where(lag >= 0, 0.75 ** np.maximum(lag, 0), 0.0)
    prior = response @ response.T
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(size))
    return gain @ ys, prior - gain @ prior


def test_the_moments_of_a_smoother():
    """Chains that start in the posterior are still there after some steps: Kalman's mean and covariance."""
    ys = np.sin(np.arange(8.0))
    mean, covariance = smoothed(ys)
    kernel = inference.particle_gibbs(linear_gaussian, 4, ess_threshold=0.75)
    rng = np.random.default_rng(0)
    starts = rng.multivariate_normal(mean, covariance, size=20_000).astype(np.float32)

    @jax.jit
    @jax.vmap
    def run(key, start):
        observed = jnp.asarray(ys, jnp.float32)
        trace = ppl.update(linear_gaussian, {"x": start})(
            ppl.simulate(linear_gaussian)(key, observed), observed
        ).trace
        step = lambda state, key: (ppl.seed(kernel)(key, state, observed), None)  # noqa: E731
        return lax.scan(step, kernel.init(trace, observed), jax.random.split(key, 3))[0].trace.value

    paths = np.asarray(run(jax.random.split(KEY, len(starts)), jnp.asarray(starts)), np.float64)
    moved = (paths != starts).mean(0)
    assert moved[-1] > 0.5 and moved[0] > 0.1
    centred = paths - mean
    assert_mean(centred, 0.0 * mean)
    assert_mean(centred[:, :, None] * centred[:, None, :], covariance)
