"""What a population teaches a gradient kernel: its covariance, and its mean acceptance rate."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference.particles.tuning_together import caught_up, tuned_together

POSITIONS = np.random.default_rng(0).normal(size=(40, 3)) * [0.1, 1.0, 10.0]
RATES = np.linspace(0.2, 0.8, 40)


def model():
    ppl.sample("x", dist.Normal(0.0, 1.0).expand([3]))


def memories(kernel, moved: bool = True):
    """Those of 40 members, as a step has left them."""
    memory = jax.eval_shape(lambda: kernel.init(TRACE).memory)
    assert memory.position.shape == (3,)
    memory = kernel.init(TRACE).memory
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (40, *x.shape)), memory)
    if not moved:
        return stacked
    return replace(
        stacked,
        position=jnp.asarray(POSITIONS, float),
        acceptance_rate=jnp.asarray(RATES, float),
        is_new=jnp.ones(40, bool),
    )


TRACE = ppl.simulate(model)(jax.random.key(0))


@pytest.mark.parametrize("dense", [False, True])
def test_the_inverse_mass_is_the_covariance(dense):
    kernel = inference.hmc(model, dense=dense)
    covariance = np.cov(POSITIONS.T, bias=True)
    expected = covariance if dense else np.diag(covariance)
    before = np.eye(3) if dense else np.ones(3)
    found = tuned_together(kernel, memories(kernel)).inverse_mass
    np.testing.assert_allclose(found, (40 * expected + 5 * before) / 45, rtol=1e-5, atol=1e-5)


def test_the_step_size_follows_the_mean_acceptance_rate():
    """By the first step of dual averaging, shrunk towards where it was: sqrt(1) / 0.05 / (1 + 10) of the error."""
    for target in (0.4, 0.5, 0.6):
        kernel = inference.hmc(model, target_acceptance=target)
        before = memories(kernel)
        after = tuned_together(kernel, before)
        moved = np.log(after.step_size / before.step_size[0])
        np.testing.assert_allclose(moved, (0.5 - target) / 0.05 / 11, atol=1e-5)
        assert not after.is_new


def test_before_the_first_step_nothing_is_learnt():
    kernel = inference.hmc(model)
    before = memories(kernel, moved=False)
    after = tuned_together(kernel, before)
    assert after.step_size == before.step_size[0]
    np.testing.assert_array_equal(after.inverse_mass, np.ones(3))


def test_what_is_given_stays():
    kernel = inference.hmc(model, step_size=0.25, inverse_mass=jnp.array([1.0, 2.0, 3.0]))
    after = tuned_together(kernel, memories(kernel))
    assert after.step_size == 0.25 and after.inverse_mass.tolist() == [1.0, 2.0, 3.0]
    half = inference.hmc(model, step_size=0.25)
    learnt = tuned_together(half, memories(half))
    assert learnt.step_size == 0.25 and learnt.inverse_mass[2] > 10


def test_lost_members_teach_nothing():
    kernel = inference.hmc(model)
    lost = replace(memories(kernel), position=jnp.full((40, 3), jnp.nan))
    np.testing.assert_array_equal(tuned_together(kernel, lost).inverse_mass, np.ones(3))


def test_members_that_have_not_moved_teach_nothing():
    """The first states of chains that are kept as a whole."""
    kernel = inference.hmc(model, target_acceptance=0.5)
    before = memories(kernel)
    still = jnp.arange(40) % 2 == 0
    after = tuned_together(
        kernel, replace(before, is_new=~still, position=jnp.where(still[:, None], 0.0, before.position))
    )
    variance = POSITIONS[1::2].var(0)
    np.testing.assert_allclose(after.inverse_mass, (20 * variance + 5) / 25, rtol=1e-5)
    moved = np.log(after.step_size / before.step_size[0])
    np.testing.assert_allclose(moved, (RATES[1::2].mean() - 0.5) / 0.05 / 11, atol=1e-5)


def test_all_catch_up_with_the_newest():
    kernel = inference.hmc(model)
    before = memories(kernel)
    newest = jax.tree.map(lambda x: x[None], tuned_together(kernel, before))
    memory, nothing = caught_up((before, ()), (newest, ()))
    assert (
        nothing == () and np.all(memory.step_size == newest.step_size[0]) and memory.step_size.shape == (40,)
    )
    np.testing.assert_array_equal(memory.inverse_mass[7], newest.inverse_mass[0])
    np.testing.assert_array_equal(memory.position, before.position)
    assert np.all(memory.is_new)


def test_of_joined_kernels_each_learns_its_own():
    def two():
        ppl.sample("x", dist.Normal(0.0, 1.0).expand([3]))
        ppl.sample("z", dist.Bernoulli(0.5))

    hmc = inference.hmc(two, ["x"])
    kernel = inference.cycle(hmc, inference.gibbs(two, ["z"]))
    after, nothing = tuned_together(kernel, (memories(inference.hmc(model)), ()))
    assert nothing == () and after.inverse_mass.shape == (3,) and after.inverse_mass[2] > 10
