"""Slice sampling: a joint distribution that has to stay as it is, and chains that have to get there."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean, z_threshold

from borelax import inference, ppl

module = importlib.import_module("borelax.inference.kernels.slice")
KEYS = jax.random.split(jax.random.key(0), 10_000)


def model():
    """A bounded site, a skew vector, and a site that only one branch has."""
    a = ppl.sample("a", dist.Gamma(2.0, 1.0))
    b = ppl.sample("b", dist.Uniform(0.0, a).expand([2]).to_event(1))
    flag = ppl.sample("flag", dist.Bernoulli(jax.nn.sigmoid(b[0] - 2 * b[1])))
    jax.lax.cond(flag == 1, lambda: ppl.sample("c", dist.Normal(b[0], 1.0)), lambda: 0.0)


def statistics(choices):
    c = jnp.where(choices["c"].present, choices["c"].value, 0.0)
    x = jnp.stack([choices["a"], *choices["b"], 1.0 * choices["flag"], c])
    return jnp.concatenate([x, jnp.outer(x, x)[jnp.triu_indices(5)]])


def change(**options):
    kernel = inference.slice(model, ["a", "b", "c"], **options)

    def run(key):
        start, go = jax.random.split(key)
        trace = ppl.simulate(model)(start)
        after = ppl.seed(kernel)(go, kernel.init(trace)).trace
        moved = after.choices["b"] != trace.choices["b"]
        return statistics(after.choices) - statistics(trace.choices), moved

    return map(np.asarray, jax.jit(jax.vmap(run))(KEYS))


@pytest.mark.parametrize("options", [{}, {"width": 0.25, "most": 2}], ids=["default", "narrow"])
def test_the_joint_distribution_is_kept(options):
    difference, moved = change(**options)
    assert_mean(difference, np.zeros(difference.shape[1]))
    assert np.all(moved)


def test_a_wrong_density_is_caught(monkeypatch):
    right = module._draw
    monkeypatch.setattr(module, "_draw", lambda x, f, *options: right(x, lambda x: 0.5 * f(x), *options))
    difference, _ = change()
    z = np.abs(difference.mean(0)) / (difference.std(0, ddof=1) / np.sqrt(len(difference)) + 1e-300)
    assert z.max() > z_threshold(difference.shape[1])


def test_it_gets_to_a_conjugate_posterior():
    def seen(ys):
        rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
        jax.vmap(lambda y: ppl.observe("y", dist.Poisson(rate), y))(ys)

    kernel = inference.repeat(inference.slice(seen, ["rate"]), 30)
    ys = jnp.array([3, 1, 4])
    start = kernel.init(ppl.simulate(seen)(jax.random.key(1), ys), ys)
    rate = jax.jit(jax.vmap(lambda key: ppl.seed(kernel)(key, start, ys).trace.choices["rate"]))(KEYS)
    assert_mean(jnp.stack([rate, rate**2], -1), [10 / 4, 10 * 11 / 16])


def test_where_there_is_no_density():
    def walled(wall):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor(jnp.where(x > wall, 0.0, jnp.nan))

    kernel = inference.slice(walled, ["x"])

    def run(key, wall):
        trace = ppl.update(walled, {"x": -0.25})(ppl.simulate(walled)(key, wall), wall).trace
        return ppl.seed(inference.repeat(kernel, 8))(key, kernel.init(trace, wall), wall).trace.choices["x"]

    run = jax.jit(jax.vmap(run, in_axes=(0, None)))
    assert np.all(np.asarray(run(KEYS[:100], jnp.array(0.0))) > 0)
    assert np.all(np.asarray(run(KEYS[:100], jnp.array(jnp.inf))) == -0.25)


def other_kinds():
    ppl.sample("z", dist.Bernoulli(0.5))
    ppl.sample("p", dist.Dirichlet(jnp.ones(3)))


@pytest.mark.parametrize(
    ("sites", "error", "match"),
    [
        (["z"], ppl.UnsupportedError, r"'z' \(test_slice.py:\d+\) is discrete"),
        (["p"], ppl.UnsupportedError, r"'p' .*fewer dimensions than numbers"),
        (["y"], ppl.AddressError, "names 'y'"),
    ],
    ids=["discrete", "simplex", "unknown"],
)
def test_what_is_refused(sites, error, match):
    kernel = inference.slice(other_kinds, sites)
    with pytest.raises(error, match=match):
        ppl.seed(kernel)(jax.random.key(1), kernel.init(ppl.simulate(other_kinds)(jax.random.key(0))))


@pytest.mark.parametrize("options", [{"width": 0.0}, {"width": float("nan")}, {"most": 0}, {"most": 1.5}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="positive"):
        inference.slice(other_kinds, ["z"], **options)
