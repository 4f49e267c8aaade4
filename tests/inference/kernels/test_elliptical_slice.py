"""Elliptical slice sampling: conjugate posteriors that have to stay as they are, and a chain that has to get there."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean, z_threshold

from borelax import inference, ppl
from borelax.inference.unguided import unguided

module = importlib.import_module("borelax.inference.kernels.elliptical_slice")
KEYS = jax.random.split(jax.random.key(0), 10_000)
COVARIANCE = jnp.array([[1.0, 0.5], [0.5, 2.0]])


def model(scale):
    """Gaussian sites of several kinds, with means that are not zero; what is observed of them is their sum."""
    mean = ppl.sample("mean", dist.Normal(1.0, 0.5))
    with ppl.scope("block"):
        f = ppl.sample("f", dist.MultivariateNormal(jnp.stack([mean, -mean]), COVARIANCE))
    g = jax.vmap(lambda m: ppl.sample("g", dist.Normal(m, 0.5)))(jnp.array([0.5, 1.0]))
    h = ppl.sample(
        "h",
        dist.Normal(-1.0, 1.0).expand([2]).to_event(1),
        proposal=dist.Normal(0.0, 3.0).expand([2]).to_event(1),
    )
    ppl.sample("y", dist.Normal(f.sum() + g.sum() + h[0] - h[1], scale))


SITES = ["block/f", "g", "h"]


def statistics(choices):
    x = jnp.concatenate(
        [choices["block"]["f"], choices["g"], choices["h"], jnp.stack([choices["mean"], choices["y"]])]
    )
    return jnp.concatenate([x, jnp.outer(x, x)[jnp.triu_indices(8)], x**3])


def change(kernel):
    """What some steps change of draws from the joint distribution of choices and data, and whether f has moved."""
    kernel = inference.repeat(kernel, 2)

    def run(key):
        start, go = jax.random.split(key)
        scale = jnp.array(0.5)
        before = ppl.simulate(unguided(model))(start, scale)
        after = ppl.seed(kernel)(go, kernel.init(before, scale), scale).trace
        moved = jnp.any(after.choices["block"]["f"] != before.choices["block"]["f"])
        return statistics(after.choices) - statistics(before.choices), moved

    return map(np.asarray, jax.jit(jax.vmap(run))(KEYS))


def test_the_joint_distribution_is_kept():
    difference, moved = change(inference.elliptical_slice(model, SITES))
    assert_mean(difference, np.zeros(difference.shape[1]))
    assert np.all(moved)


@pytest.mark.parametrize("mutant", ["not centred", "height ignored"])
def test_mutants_are_caught(mutant, monkeypatch):
    draw_prior, draw_angle = module._draw_prior, module._draw_angle

    def off_centre(*args):
        mean, spread = draw_prior(*args)
        return jax.tree.map(jnp.zeros_like, mean), spread

    if mutant == "not centred":
        monkeypatch.setattr(module, "_draw_prior", off_centre)
    else:
        monkeypatch.setattr(
            module, "_draw_angle", lambda log_likelihood: draw_angle(lambda angle: 0.0 * angle)
        )
    difference, _ = change(inference.elliptical_slice(model, SITES))
    z = np.abs(difference.mean(0)) / (difference.std(0, ddof=1) / np.sqrt(len(difference)) + 1e-300)
    assert z.max() > z_threshold(difference.shape[1])


def test_it_gets_to_a_conjugate_posterior():
    """From one point: given y, f is N(y / 5, 1 / 5), for a standard normal f seen with variance 1/4."""

    def seen(y):
        ppl.observe("y", dist.Normal(ppl.sample("f", dist.Normal(0.0, 1.0)), 0.5), y)

    kernel = inference.repeat(inference.elliptical_slice(seen, ["f"]), 40)
    y = jnp.array(2.0)
    start = kernel.init(ppl.simulate(seen)(jax.random.key(3), y), y)
    f = jax.jit(jax.vmap(lambda key: ppl.seed(kernel)(key, start, y).trace.choices["f"]))(KEYS)
    assert_mean(jnp.stack([f, f**2], -1), [1.6, 1.6**2 + 0.2])


def test_where_there_is_no_density():
    """It leaves a point of density zero, and ends where there is nowhere to go."""

    def half(wall):
        f = ppl.sample("f", dist.Normal(0.0, 1.0))
        ppl.factor(jnp.where(f > wall, 0.0, jnp.nan))

    kernel = inference.repeat(inference.elliptical_slice(half, ["f"]), 8)

    def run(key, wall):
        trace = ppl.update(half, {"f": -1.0})(ppl.simulate(half)(key, wall), wall).trace
        return ppl.seed(kernel)(key, kernel.init(trace, wall), wall).trace.choices["f"]

    run = jax.jit(jax.vmap(run, in_axes=(0, None)))
    assert np.all(np.asarray(run(KEYS[:100], jnp.array(0.0))) > 0)
    np.testing.assert_allclose(run(KEYS[:100], jnp.array(jnp.inf)), -1.0, rtol=1e-5)


# ------------------------------------------------------------------------- what is refused


def walk():
    step = lambda x, _: (ppl.sample("x", dist.Normal(x, 1.0)),) * 2  # noqa: E731
    jax.lax.scan(step, 0.0, None, length=3)


def through_a_record():
    m = ppl.deterministic("twice", 2 * ppl.sample("m", dist.Normal(0.0, 1.0)))
    ppl.sample("x", dist.Normal(m, 1.0))


def other_kinds():
    ppl.sample("t", dist.StudentT(3.0))
    flag = ppl.sample("flag", dist.Bernoulli(0.5))
    jax.lax.cond(flag == 1, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), lambda: 0.0)


REFUSED = {
    "a walk": (walk, ["x"], ppl.UnsupportedError, r"'x' \(.*\) depends on site 'x'"),
    "a parent": (through_a_record, ["m", "x"], ppl.UnsupportedError, r"'x' \(.*\) depends on site 'm'"),
    "not Gaussian": (
        other_kinds,
        ["t"],
        ppl.UnsupportedError,
        r"'t' \(test_elliptical.*py:\d+\) has a StudentT",
    ),
    "in a branch": (other_kinds, ["x"], ppl.UnsupportedError, r"'x' \(.*\) is missing from some branch"),
    "unknown": (walk, ["y"], ppl.AddressError, "names 'y'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    program, sites, error, match = REFUSED[name]
    kernel = inference.elliptical_slice(program, sites)
    with pytest.raises(error, match=match):
        ppl.seed(kernel)(jax.random.key(1), kernel.init(ppl.simulate(program)(jax.random.key(0))))


def test_a_child_moves_given_its_parent():
    kernel = inference.elliptical_slice(through_a_record, ["x"])
    state = kernel.init(ppl.simulate(through_a_record)(jax.random.key(0)))
    after = ppl.seed(kernel)(jax.random.key(1), state).trace.choices
    assert after["m"] == state.trace.choices["m"] and after["x"] != state.trace.choices["x"]
