"""Adaptation, step by step: what is learnt from given positions and acceptance rates, by the published formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from adaptation import dual_averaging, shrunk, stage
from blackjax.adaptation.window_adaptation import build_schedule

from borelax import inference, ppl
from borelax.inference import Stage
from borelax.inference.chains.chain import _schedule
from borelax.inference.kernels.tuning import Tuner, Tuning

RNG = np.random.default_rng(0)
POSITIONS = RNG.normal(size=(60, 3)) @ np.array([[1.0, 0.5, 0], [0, 2.0, 0], [0, 0, 0.1]])
RATES = RNG.uniform(size=60)
GIVEN = jnp.array([0.3, 2.0, 1.0])


def stacked(stages: list[Stage]) -> Stage:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *stages)


def learn(tuner: Tuner, stages: list[Stage], positions=POSITIONS, rates=RATES, is_new=True) -> Tuning:
    """What was learnt after each step."""

    def step(tuning, seen):
        position, rate, stage = seen
        seen = {"position": position, "acceptance_rate": rate, "is_new": jnp.array(is_new)}
        tuning = tuner.learn(Tuning(**{**vars(tuning), **seen}), stage)
        return tuning, tuning

    count = len(stages)
    inputs = jnp.asarray(positions[:count]), jnp.asarray(rates[:count]), stacked(stages)
    return jax.lax.scan(step, tuner.start(jnp.zeros(3)), inputs)[1]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_the_step_size_is_moved_by_dual_averaging():
    tuner = Tuner(None, GIVEN, False, 0.8)
    found = learn(tuner, [stage()] * 39 + [stage(ends=True)]).step_size
    sizes, averages = dual_averaging(RATES[:40], 3**-0.25, 0.8)
    np.testing.assert_allclose(found, [*sizes[:39], averages[39]], rtol=1e-9)


@pytest.mark.parametrize("dense", [True, False])
def test_the_inverse_mass_is_the_covariance_in_each_window(dense):
    window = [*[stage(True)] * 19, stage(True, True)]
    found = learn(Tuner(0.1, None, dense, 0.8), [*[stage()] * 5, *window, *window, stage()])
    first, second = (shrunk(np.cov(POSITIONS[i : i + 20].T), 20) for i in (5, 25))
    pick = (lambda x: x) if dense else np.diag
    np.testing.assert_allclose(
        found.inverse_mass[:24], np.broadcast_to(pick(np.eye(3)), (24, *pick(first).shape))
    )
    np.testing.assert_allclose(found.inverse_mass[24], pick(first), rtol=1e-9)
    np.testing.assert_allclose(found.inverse_mass[43], pick(first), rtol=1e-9)
    np.testing.assert_allclose(found.inverse_mass[44], pick(second), rtol=1e-9)
    np.testing.assert_allclose(found.inverse_mass[45], pick(second), rtol=1e-9)
    np.testing.assert_array_equal(found.step_size, 0.1)


def test_after_a_window_the_search_for_a_step_size_starts_anew():
    stages = [*[stage(True)] * 29, stage(True, True), *[stage()] * 9, stage(ends=True)]
    found = learn(Tuner(None, None, False, 0.7), stages).step_size
    _, averages = dual_averaging(RATES[:30], 3**-0.25, 0.7)
    sizes, last = dual_averaging(RATES[30:40], averages[-1], 0.7)
    np.testing.assert_allclose(found[30:], [*sizes[:-1], last[-1]], rtol=1e-9)


def test_a_step_is_learnt_from_once():
    """In a mixture of kernels, one that was not picked has nothing new to say."""
    found = learn(Tuner(None, None, False, 0.8), [*[stage(True)] * 19, stage(True, True)], is_new=False)
    np.testing.assert_array_equal(found.inverse_mass, 1.0)
    np.testing.assert_allclose(found.step_size[:-1], 3**-0.25)


def test_positions_that_are_not_finite_are_left_out():
    positions = POSITIONS.copy()
    positions[3] = np.nan
    found = learn(Tuner(0.1, None, False, 0.8), [*[stage(True)] * 19, stage(True, True)], positions)
    covariance = np.cov(np.delete(positions[:20], 3, axis=0).T)
    np.testing.assert_allclose(found.inverse_mass[-1], np.diag(shrunk(covariance, 19)), rtol=1e-9)


def test_a_window_of_a_single_step_goes_on():
    stages = [stage(True, True), *[stage(True)] * 18, stage(True, True)]
    found = learn(Tuner(0.1, None, False, 0.8), stages).inverse_mass
    np.testing.assert_array_equal(found[0], 1.0)
    np.testing.assert_allclose(found[-1], np.diag(shrunk(np.cov(POSITIONS[:20].T), 20)), rtol=1e-9)


def test_the_schedule_is_stans():
    """Stan's reference manual: 75 steps, windows of 25, 50, 100, 200 and 500, and 50 steps."""
    schedule = _schedule(1000)
    assert np.flatnonzero(schedule.in_window).tolist() == list(range(75, 950))
    assert np.diff(np.flatnonzero(schedule.ends_window), prepend=74).tolist() == [25, 50, 100, 200, 500]
    assert np.flatnonzero(schedule.ends).tolist() == [999]
    assert [len(part) for part in _schedule(0)] == [0, 0, 0]


@pytest.mark.parametrize("num_warmup", [19, 100, 149, 150, 175, 349, 350])
def test_of_a_hundred_steps_or_more_the_schedule_is_blackjaxs(num_warmup):
    schedule = _schedule(num_warmup)
    right = np.asarray(build_schedule(num_warmup)) == 1
    np.testing.assert_array_equal(np.stack([schedule.in_window, schedule.ends_window], 1), right)


@pytest.mark.parametrize("num_warmup", [20, 30, 99])
def test_the_last_search_for_a_step_size_has_ten_steps(num_warmup):
    schedule = _schedule(num_warmup)
    assert np.flatnonzero(schedule.ends_window).tolist() == [num_warmup - 11]
    assert np.flatnonzero(schedule.in_window).tolist() == list(range(int(0.15 * num_warmup), num_warmup - 10))


def model():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    return ppl.sample("y", dist.Normal(x, 1.0))


def test_what_is_given_is_not_learnt():
    assert inference.nuts(model, step_size=0.5, inverse_mass=jnp.ones(2)).adapt is None
    assert inference.nuts(model, step_size=0.5).adapt is not None


def test_kernels_that_are_joined_learn_each_on_its_own():
    """Of a mixture, each learns from its own steps, and all end their windows."""
    nuts = [inference.hmc(model, [site], num_steps=2) for site in "xy"]
    redraw = inference.mh(model, ppl.select("x"))
    joined = inference.repeat(inference.cycle(inference.mixture(nuts, [0.5, 0.5]), redraw), 2)
    assert inference.cycle(redraw, redraw).adapt is None
    state = joined.init(ppl.simulate(model)(jax.random.key(0)))
    (one, other), nothing = state.memory
    one = Tuning(**{**vars(one), "acceptance_rate": jnp.array(0.1), "is_new": jnp.array(True)})
    (learnt, still), nothing = joined.adapt(((one, other), nothing), stage())
    assert nothing == () and float(still.step_size) == float(other.step_size)
    assert float(learnt.step_size) == pytest.approx(dual_averaging([0.1], 1.0, 0.8)[0][0])
