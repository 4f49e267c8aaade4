"""fit: closed forms, a loop written out, and what is said of fits that went wrong."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from thresholds import assert_mean

from borelax import inference, ppl
from borelax.inference import CheckpointError, Fit

matplotlib.use("Agg")

KEY = jax.random.key(0)


# ------------------------------------------------------------------------------ what it finds


def model(y):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0), y)


def guide(params, y):
    ppl.sample("x", dist.Normal(params["loc"], jnp.exp(params["log_scale"])))


def test_the_best_gaussian_is_the_posterior_if_that_is_one():
    """Of many fits, by a z-test; there the bound is the evidence in every draw."""
    optimizer = optax.sgd(optax.polynomial_schedule(0.2, 0.002, 1, 400))
    run = inference.fit(inference.elbo(model, guide), optimizer, num_steps=800)
    start = {"loc": jnp.array(0.0), "log_scale": jnp.array(0.0)}
    found = jax.jit(jax.vmap(run, (0, None, None)))(jax.random.split(KEY, 100), start, jnp.array(3.0))
    assert_mean(found.average["loc"], 1.5)
    assert_mean(np.exp(2 * np.asarray(found.average["log_scale"])), 0.5)
    evidence = dist.Normal(0.0, np.sqrt(2.0)).log_prob(3.0)
    assert_mean(found.values[:, -1], evidence)
    assert np.std(found.values[:, -1]) < 0.1 * np.std(found.values[:, 0])


def noisy(params, target):
    """Has its maximum at the target."""
    noise = ppl.sample("noise", dist.Normal(0.0, 1.0).expand([2]))
    return -jnp.sum((params["x"] + 0.1 * noise - target) ** 2) - params["rest"]["y"] ** 2


START = {"x": jnp.zeros(2), "rest": {"y": 1.0}}
TARGET = jnp.array([1.0, -2.0])
STEPS = 10
OPTIMIZER = optax.chain(optax.clip_by_global_norm(3.0), optax.adam(0.1))
RUN = inference.fit(noisy, OPTIMIZER, STEPS)


def test_it_is_the_loop_written_out():
    estimate = jax.jit(ppl.seed(inference.expectation_value_and_grad(noisy)))
    params, values, path = START, [], []
    state = OPTIMIZER.init(params)
    for number in range(STEPS):
        value, grads = estimate(jax.random.fold_in(KEY, number), params, TARGET)
        updates, state = OPTIMIZER.update(jax.tree.map(jnp.negative, grads), state, params)
        params = optax.apply_updates(params, updates)
        values.append(value)
        path.append(params)
    found = RUN(KEY, START, TARGET)
    average = jax.tree.map(lambda *x: np.mean(x, axis=0), *path[STEPS // 2 :])
    for here, there in ((found.params, params), (found.average, average), (found.state, state)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), here, there)
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    assert found.steps == STEPS and not any(jax.tree.leaves(found.fault)) and found.warnings == ()
    assert len(set(np.asarray(found.values).tolist())) == STEPS


def test_the_optimizer_is_told_the_value():
    """One that makes its steps smaller when the objective does not rise any more."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    found = inference.fit(lambda p: 0.0 * p, optax.chain(optax.sgd(1.0), plateau), 4)(KEY, 0.25)
    assert found.state[-1].scale == 0.5**3


def test_it_goes_on_with_what_the_optimizer_remembers():
    run = inference.fit(lambda p, target: -jnp.sum((p - target) ** 2), optax.sgd(0.05, momentum=0.9), 4)
    first = run(KEY, jnp.zeros(2), TARGET)
    second = run(KEY, first.params, TARGET, state=first.state)
    at_once = inference.fit(lambda p: -jnp.sum((p - TARGET) ** 2), optax.sgd(0.05, momentum=0.9), 8)(
        KEY, jnp.zeros(2)
    )
    np.testing.assert_allclose(second.params, at_once.params, rtol=1e-5)
    assert np.all(np.abs(run(KEY, first.params, TARGET).params - at_once.params) > 0.01)


# ------------------------------------------------------------------------------ how it is run


def test_it_is_compiled_once_for_data_of_one_shape():
    traced = []

    def objective(params, target, power):
        traced.append(power)
        return -jnp.sum(jnp.abs(params - target) ** power)

    run = inference.fit(objective, optax.sgd(0.1), 3)
    first = run(KEY, jnp.zeros(2), TARGET, 2)
    once = len(traced)
    second = run(jax.random.key(1), jnp.ones(2), TARGET + 1, 2)
    assert len(traced) == once and not np.any(first.params == second.params)
    run(KEY, jnp.zeros(2), TARGET, 4)
    assert len(traced) == 2 * once


def test_many_starts_side_by_side():
    keys = jax.random.split(KEY, 3)
    starts = {"x": jnp.arange(6.0).reshape(3, 2), "rest": {"y": jnp.ones(3)}}
    found = jax.jit(jax.vmap(RUN, (0, 0, None)))(keys, starts, TARGET)
    one = RUN(keys[1], jax.tree.map(lambda x: x[1], starts), TARGET)
    np.testing.assert_allclose(found.values[1], one.values, rtol=1e-5)
    np.testing.assert_allclose(found.params["x"][1], one.params["x"], rtol=1e-5)
    assert "Fits, (3,) of them, each of 10 steps" in repr(found)
    for question in (lambda: found.warnings, found.plot):
        with pytest.raises(ValueError, match=r"several fits.*\(3, 10\): pick one"):
            question()


def test_it_says_how_far_it_is(capsys):
    found = inference.fit(noisy, OPTIMIZER, STEPS, progress=True)(KEY, START, TARGET)
    assert "steps  [########################] 10/10" in capsys.readouterr().err
    np.testing.assert_allclose(found.values, RUN(KEY, START, TARGET).values, rtol=1e-6)


@pytest.mark.parametrize(
    ("objective", "optimizer", "options", "error", "match"),
    [
        (noisy, OPTIMIZER, {"num_steps": 0}, ValueError, "num_steps is a positive integer"),
        (noisy, OPTIMIZER, {"every": 1.5}, ValueError, "every is a positive integer"),
        (noisy, 0.1, {}, TypeError, "an optimizer of optax, such as optax.adam"),
        ("elbo", OPTIMIZER, {}, TypeError, "takes an objective"),
    ],
)
def test_what_makes_no_sense(objective, optimizer, options, error, match):
    with pytest.raises(error, match=match):
        inference.fit(objective, optimizer, **options)


def test_an_optimizer_that_evaluates_the_objective_is_refused():
    with pytest.raises(ppl.UnsupportedError, match="searches along a line"):
        inference.fit(lambda p: -(p**2), optax.lbfgs(), 3)(KEY, 1.0)


@pytest.mark.parametrize(
    "state", [optax.sgd(0.1, momentum=0.9).init(1.0), optax.adam(0.1).init(np.ones(2)), 3]
)
def test_the_state_of_another_optimizer_is_refused(state):
    with pytest.raises(TypeError, match="state is not what this optimizer remembers of such params"):
        inference.fit(lambda p: -(p**2), optax.adam(0.1), 3)(KEY, 1.0, state=state)


def test_params_that_are_no_numbers_to_move_along():
    with pytest.raises(ppl.UnsupportedError, match=r"params\['x'\] has dtype int32"):
        inference.fit(lambda params: 1.0 * params["x"], optax.sgd(0.1), 3)(KEY, {"x": 3})


# ------------------------------------------------------------------------------ checkpoints


def kept(folder, every=3, key=KEY, start=START, num_steps=STEPS) -> Fit:
    return inference.fit(noisy, OPTIMIZER, num_steps, checkpoint=folder, every=every)(key, start, TARGET)


def assert_same(one, other) -> None:
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_fit_that_is_stopped_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """In four parts, of which the last is not full; stopped as the third is written."""
    whole = kept(tmp_path / "whole")
    replace_file = os.replace

    def stop_at_the_third(source, target):
        if target.name == "part-00002.npz":
            raise KeyboardInterrupt
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "parts")
    monkeypatch.undo()
    resumed = kept(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("part-*.npz"))) == 4
    assert_same(resumed, whole)
    plain = RUN(KEY, START, TARGET)
    assert jax.tree.structure(plain) == jax.tree.structure(whole) and whole.values.shape == (STEPS,)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), whole, plain)


def test_the_folder_is_of_one_fit(tmp_path):
    kept(tmp_path)
    for options, what in (
        ({"key": jax.random.key(1)}, "not the same key"),
        ({"start": jax.tree.map(lambda x: x + 1.0, START)}, "not the same arguments"),
        ({"every": 4}, "not the same options"),
    ):
        with pytest.raises(CheckpointError, match=what):
            kept(tmp_path, **options)
    with pytest.raises(ppl.UnsupportedError, match="outside jit and vmap"):
        jax.jit(lambda key: kept(tmp_path, key=key))(KEY)


def test_an_optimizer_that_differs_later_is_another(tmp_path):
    def late(rate):
        optimizer = optax.sgd(lambda number: jnp.where(number < 3, 0.1, rate))
        inference.fit(lambda p: -(p**2), optimizer, 6, checkpoint=tmp_path, every=2)(KEY, 1.0)

    late(0.2)
    (tmp_path / "part-00002.npz").unlink()
    with pytest.raises(CheckpointError, match="not the same program"):
        late(0.3)
    late(0.2)


# ------------------------------------------------------------------------------ fits that went wrong


def test_a_step_into_nowhere_is_not_taken():
    """From 1 to 0.6, and to below zero, where the logarithm ends."""
    run = inference.fit(lambda params: -jnp.log(params["x"]), optax.sgd(0.4), 5)
    with pytest.warns(UserWarning, match=r"stopped after 2 of 5 steps.*not finite: the objective.*was nan"):
        found = run(KEY, {"x": 1.0})
    at = 0.6 - 0.4 / 0.6
    assert found.params["x"] == found.average["x"] == pytest.approx(at, rel=1e-6) and found.steps == 2
    np.testing.assert_allclose(found.values[:2], [0.0, -np.log(0.6)], atol=1e-7)
    assert np.isnan(found.values[2:]).all() and found.fault["objective"] and not found.fault["gradient"]["x"]
    assert "WARNING: The fit stopped after 2 of 5 steps" in repr(found) and repr(found).startswith(
        "Fit of 2 steps"
    )


def test_a_gradient_or_a_parameter_that_is_not_finite_is_named():
    steep = inference.fit(lambda params: jnp.sqrt(params["a"]) + params["b"], optax.sgd(0.1), 5)
    with pytest.warns(
        UserWarning, match=r"after 0 of 5.*its gradient along params\['a'\], what comes of params\['a'\]"
    ):
        found = steep(KEY, {"a": 0.0, "b": 0.0})
    assert found.params == {"a": 0.0, "b": 0.0}
    far = inference.fit(lambda params: 1e30 * params, optax.sgd(1e30), 5)
    with pytest.warns(UserWarning, match=r"not finite: what comes of params; the objective was 0"):
        assert far(KEY, 0.0).params == 0.0


def test_of_many_fits_one_stops_alone():
    run = inference.fit(lambda p: -jnp.log(p) - 0.0 * p, optax.sgd(0.4), 4)
    found = jax.jit(jax.vmap(run, (None, 0)))(KEY, jnp.array([1.0, 10.0]))
    assert found.steps.tolist() == [2, 4] and found.params[1] < 10 - 4 * 0.4 / 10
    one, other = (jax.tree.map(lambda x, i=i: x[i], found) for i in range(2))
    assert "stopped after 2 of 4 steps" in one.warnings[0] and other.warnings == ()


def of(values) -> Fit:
    """A fit with these estimates."""
    nothing = {"objective": np.array(False), "gradient": (), "params": ()}
    return Fit(np.zeros(2), np.zeros(2), np.asarray(values, np.float32), np.int32(len(values)), nothing, ())


NOISE = np.random.default_rng(0).normal(size=1000)
PLACE = np.linspace(0, 1, 1000)
SAID = {
    "settled": (-50 * np.exp(-15 * PLACE) + NOISE, None),
    "settled, without noise": (-50 * np.exp(-15 * PLACE), None),
    "noise alone": (NOISE, None),
    "after a bad start, settled": (-1e6 * np.exp(-80 * PLACE) + NOISE, None),
    "after a bad start, still rising": (-1e6 * np.exp(-80 * PLACE) + 50 * PLACE, "still rising"),
    "after a bad start, fallen": (-1e6 * np.exp(-80 * PLACE) - 50 * PLACE, "fell from"),
    "few steps": (PLACE[:40], None),
    "still rising": (20 * PLACE + NOISE, "still rising"),
    "still rising, without noise": (PLACE, "still rising"),
    "fallen": (20 * PLACE * (1 - PLACE) + NOISE, r"fell from 4\.\d+, .* to 1\.9\d+ over the last"),
    "fallen from the start": (-20 * PLACE + NOISE, "fell from"),
}


@pytest.mark.parametrize(("values", "match"), SAID.values(), ids=SAID)
def test_what_is_wrong_is_said_in_words(values, match):
    found = of(values).warnings
    assert len(found) == (match is not None)
    if match is not None:
        with pytest.raises(AssertionError, match=match):
            raise AssertionError(found[0])


def test_false_alarms_are_rare():
    """Of noise alone, in 200 steps: of 3,000 other fits, 13 were warned about.

    At that rate, more than six of 400 are with a probability of 0.002.
    """
    alarms = sum(bool(of(x).warnings) for x in np.random.default_rng(2).normal(size=(400, 200)))
    assert alarms <= 6


def test_a_fit_shows_itself():
    found = of(-50 * np.exp(-15 * PLACE) + NOISE)
    assert "Fit of 1000 steps: objective -0.098" in repr(found) and "float64[2]" in repr(found)
    assert "<table>" in found._repr_html_()
    (panel,) = found.plot().axes
    estimates, means = panel.lines
    np.testing.assert_array_equal(estimates.get_ydata(), found.values)
    x, y = means.get_data()
    assert x[-1] == 999 and y[-1] == pytest.approx(found.values[-50:].mean(), rel=1e-4)
    stopped = of(np.append(NOISE[:300], np.full(100, np.nan)))
    assert stopped.plot().axes[0].lines[2].get_xdata()[0] == 300
