"""log_likelihood and log_predictive_density: element by element, they add up to what the program weighs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from jax import lax
from scipy import stats

from borelax import inference, ppl
from borelax.ppl.power import Power

KEY = jax.random.key(0)


def everything(ys, last, pairs):
    """Data in a scan, in a branch, in vmap of a branch, under a scope, multivariate, and censored."""
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Bernoulli(0.5))
    z = lax.cond(b == 1, lambda: ppl.sample("z", dist.Normal(5.0, 1.0)), lambda: 0.0)

    def step(before, y):
        y = ppl.observe("y", dist.Normal(before + z, 1.0).expand([2]).to_event(1), y)
        return y.sum(), None

    lax.scan(step, m, ys)
    lax.cond(b == 1, lambda: ppl.observe("last", dist.Exponential(jnp.exp(m)), last), lambda: last)
    ppl.observe("pairs", dist.MultivariateNormal(jnp.stack([m, z]), jnp.eye(2)).expand([3]), pairs)
    with ppl.scope("each"):

        def one(pair):
            seen = lambda: ppl.observe("y", dist.Normal(m, 1.0).expand([2]), pair)  # noqa: E731
            return lax.cond(pair[0] > 0, seen, lambda: pair)

        jax.vmap(one)(pairs)
    bounds = dist.RightCensoredDistribution(dist.Normal(m * jnp.ones(3), 1.0), jnp.array([0, 1, 1]))
    ppl.observe("bounds", bounds, jnp.ones(3))


ARGS = (jnp.ones((3, 2)), jnp.array(0.5), jnp.arange(6.0).reshape(3, 2) - 2)
TRACES = jax.jit(jax.vmap(jax.vmap(lambda key: ppl.simulate(everything)(key, *ARGS))))(
    jax.random.split(KEY, (2, 8))
)


def total(x):
    """The sum over the elements that are there."""
    if isinstance(x, ppl.Masked):
        x = jnp.where(ppl.choices.align(x.present, x.value), x.value, 0.0)
    return x.reshape(2, 8, -1).sum(-1)


def test_the_elements_add_up_to_the_weight():
    found = inference.log_likelihood(everything, TRACES.choices)(*ARGS)
    sites = {"y": found["y"], "pairs": found["pairs"], "bounds": found["bounds"]}
    assert {name: x.shape[2:] for name, x in sites.items()} == {"y": (3, 2), "pairs": (3,), "bounds": (3,)}
    assert found["each"]["y"].value.shape == (2, 8, 3, 2) and found["last"].present.shape == (2, 8)
    np.testing.assert_array_equal(found["last"].present, TRACES.choices["b"] == 1)
    is_masked = lambda x: isinstance(x, ppl.Masked)  # noqa: E731
    together = sum(map(total, jax.tree.leaves(found, is_leaf=is_masked)))
    np.testing.assert_allclose(together, TRACES.log_weight, rtol=1e-5)


def test_each_element_has_its_own_density():
    found = inference.log_likelihood(everything, TRACES.choices)(*ARGS)
    m, z = TRACES.choices["m"], jnp.where(TRACES.choices["z"].present, TRACES.choices["z"].value, 0.0)
    before = jnp.stack([m, jnp.full_like(m, 2.0), jnp.full_like(m, 2.0)], axis=-1)
    normal = stats.norm((before + z[..., None])[..., None])
    np.testing.assert_allclose(found["y"], normal.logpdf(ARGS[0]), rtol=2e-5)
    bounds = np.stack([stats.norm(m).logpdf(1.0), *[stats.norm(m).logsf(1.0)] * 2], axis=-1)
    np.testing.assert_allclose(found["bounds"], bounds, rtol=2e-5)
    outside = inference.log_likelihood(everything, TRACES.choices)(ARGS[0], jnp.array(-1.0), ARGS[2])["last"]
    assert np.all(outside.value[outside.present] == -np.inf)


def place(ys):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(x)
    ppl.observe("y", dist.Normal(x, 1.0).expand(ys.shape), ys)


YS = jnp.array([0.5, 2.0, -1.0])


def test_at_other_data_it_is_that_of_the_other_data():
    x = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
    found = inference.log_likelihood(place, {"x": x})(YS[:2])
    np.testing.assert_allclose(found["y"], stats.norm(x[..., None]).logpdf(YS[:2]), rtol=1e-5)


def test_the_predictive_density_of_a_conjugate_posterior():
    """Draws are the quantiles of the posterior given the first two, so that the means are integrals."""
    posterior = stats.norm(0.6, np.sqrt(1 / 3))
    x = posterior.ppf((np.arange(4000) + 0.5) / 4000).reshape(4, 1000)
    new = jnp.array([2.0, -1.0])
    each = inference.log_predictive_density(place, {"x": x})(new)["y"]
    np.testing.assert_allclose(each, stats.norm(0.6, np.sqrt(4 / 3)).logpdf(new), rtol=1e-3)
    joint = inference.log_predictive_density(place, {"x": x}, joint=True)(new)
    right = stats.multivariate_normal([0.6, 0.6], np.eye(2) + 1 / 3).logpdf(new)
    np.testing.assert_allclose(joint, right, rtol=1e-3)


def test_a_branch_for_which_there_are_no_draws_is_nan():
    def program(which):
        z = lax.cond(which == 1, lambda: ppl.sample("z", dist.Normal(5.0, 1.0)), lambda: 0.0)
        ppl.observe("y", dist.Normal(z, 1.0), 0.0)

    draws = {"z": ppl.Masked(jnp.array([4.0, 7.0]), jnp.array([True, False]))}
    found = inference.log_likelihood(program, draws)(jnp.array(1))["y"]
    np.testing.assert_allclose(found, [stats.norm.logpdf(4.0), np.nan], rtol=1e-6)


def test_it_is_that_of_numpyro():
    def schools(effects, errors):
        m = numpyro.sample("m", dist.Normal(0.0, 5.0))
        with numpyro.plate("schools", 4):
            z = numpyro.sample("z", dist.StudentT(4.0))
            numpyro.sample("effect", dist.Normal(m + z, errors), obs=effects)

    data = jnp.array([28.0, 8, -3, 7]), jnp.array([15.0, 10, 16, 11])
    draws = {"m": jnp.linspace(-1, 1, 5), "z": jnp.linspace(-1, 1, 20).reshape(5, 4)}
    found = inference.log_likelihood(ppl.from_numpyro(schools), draws)(*data)
    right = numpyro.infer.log_likelihood(schools, draws, *data)
    np.testing.assert_allclose(found["effect"], right["effect"], rtol=1e-6)


def test_it_is_compiled_once_for_data_of_one_shape():
    traced = []

    def program(ys):
        traced.append(None)
        place(ys)

    score = inference.log_likelihood(program, {"x": jnp.zeros(5)})
    score(YS)
    once = len(traced)
    assert score(YS + 1)["y"].shape == (5, 3) and len(traced) == once


# ------------------------------------------------------------------------------ what is refused


def inner():
    ppl.sample("b", dist.Bernoulli(0.25 + 0.5 * ppl.sample("a", dist.Bernoulli(0.5))))


REFUSED = {
    "estimated": (
        lambda: ppl.marginal(inner, "b", partial(inference.importance, n=2))(),
        1,
        "only an estimate",
    ),
    "power": (lambda: Power(dist.Normal(0.0, 1.0), jnp.array(2.0)), 0.5, "more or less than once"),
    "masked": (
        lambda: dist.Normal(0.0, jnp.ones(2)).mask(jnp.array([True, False])),
        YS[:2],
        "more or less than once",
    ),
}


@pytest.mark.parametrize(("d", "value", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_density_of_the_data_is_refused(d, value, match):
    def program():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.observe("y", d(), value)

    with pytest.raises(ppl.UnsupportedError, match=f"'y'.*{match}"):
        inference.log_likelihood(program, {"x": jnp.zeros(2)})()


def test_all_sites_are_to_be_given():
    with pytest.raises(ppl.AddressError, match="no value given for 'b'"):
        inference.log_likelihood(everything, {"m": jnp.zeros(3)})(*ARGS)
    with pytest.raises(ppl.UnsupportedError, match="only some branches have 'each/y'"):
        inference.log_predictive_density(everything, TRACES.choices)(*ARGS)
