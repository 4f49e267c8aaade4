"""The bound and its gradient, added up exactly, and against a conjugate posterior."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl import UnsupportedError


def bit(name, p, grad=None):
    return ppl.sample(name, dist.Bernoulli(p), grad=grad)


# ------------------------------------------------------------------------- finite programs, added up


def markov(ys):
    def step(x, y):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.observe("y", dist.Bernoulli(0.125 + 0.75 * x), y)
        return x, None

    lax.scan(step, 0, ys)
    ppl.factor(0.5 * bit("z", 0.25))


def markov_guide(params, ys, grad=None):
    lax.scan(lambda x, p: (bit("x", jax.nn.sigmoid(p + x), grad), None), 0, params["x"])
    bit("z", jax.nn.sigmoid(params["z"]), grad)


def branching(ys):
    x = bit("x", 0.25)
    y = lax.cond(x == 1, lambda: bit("y", 0.75), lambda: 0)
    ppl.factor(ys[0] - 2.0 * x * y)


def branching_guide(params, ys, grad=None):
    x = bit("x", jax.nn.sigmoid(params["z"]), grad)
    lax.cond(x == 1, lambda: bit("y", jax.nn.sigmoid(params["x"][0]), grad), lambda: 0)


PARAMS = {"x": jnp.array([0.5, -0.25]), "z": jnp.array(0.75)}
YS = jnp.array([1, 0])


def bound(program, guide, ys):
    """``params -> sum_x q(x) (log p(x) - log q(x))``, over the choices that the guide can make."""
    runs = semantics.meaning(ppl.trace(guide))(PARAMS, ys)
    choices = jax.tree.map(lambda *xs: jnp.stack(xs), *(run.choices for run in runs.values))

    def total(params):
        log_p = jax.vmap(lambda x: ppl.log_density(program)(x, ys))(choices)
        log_q = jax.vmap(lambda x: ppl.log_density(guide)(x, params, ys))(choices)
        return jnp.exp(log_q) @ (log_p - log_q)

    return total


PAIRS = pytest.mark.parametrize(
    "pair", [(markov, markov_guide), (branching, branching_guide)], ids=["scan", "branch"]
)


@pytest.mark.parametrize("grad", [None, "enumerate"])
@PAIRS
def test_value_and_gradient(pair, grad):
    program, guide = pair
    estimator = inference.expectation_value_and_grad(inference.elbo(program, partial(guide, grad=grad)))

    def expectation(params):
        population = inference.enumerate(estimator)(params, YS)
        weight = jnp.exp(population.log_weight) / population.size
        return jax.tree.map(lambda x: jnp.tensordot(weight, x, 1), population.value)

    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, float), PARAMS)
        found = jax.jit(expectation)(params)
        right = jax.jit(jax.value_and_grad(bound(program, guide, YS)))(params)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right)):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-10)


@PAIRS
def test_it_is_a_bound(pair):
    program, guide = pair
    assert bound(program, guide, YS)(PARAMS) < np.log(semantics.meaning(program)(YS).total)


def test_what_the_program_cannot_make():
    """Where the program has no probability, the bound is minus infinity."""
    certain = lambda: ppl.sample("x", dist.Delta(0))  # noqa: E731
    value = ppl.seed(inference.elbo(certain, lambda p: bit("x", p), check=False))
    assert value(jax.random.key(0), 1.0) == -jnp.inf


# ------------------------------------------------------------------------- a conjugate posterior


def model(mean=0.0):
    x = ppl.sample("x", dist.Normal(mean, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0), 2.0)


def guide(params, grad=None):
    ppl.sample("x", dist.Normal(params["loc"], jnp.exp(params["log_scale"])), grad=grad)


def test_the_posterior_has_no_gap():
    """With the posterior N(1, 1/2) as its guide, every run gives the log evidence, that of N(0, 2) at 2."""
    params = {"loc": jnp.array(1.0), "log_scale": -0.5 * jnp.log(2.0)}
    run = jax.vmap(ppl.seed(inference.elbo(model, guide)), (0, None))
    values = run(jax.random.split(jax.random.key(0), 100), params)
    np.testing.assert_allclose(values, -0.5 * np.log(4 * np.pi) - 1.0, rtol=1e-5)


@pytest.mark.parametrize("grad", ["pathwise", "score"])
def test_gradients_of_a_gaussian_guide(grad):
    """The bound is -(loc^2 + s^2) / 2 - ((2 - loc)^2 + s^2) / 2 + log s, up to a constant."""
    params = {"loc": jnp.array(0.5), "log_scale": jnp.array(-0.25)}
    estimator = ppl.seed(inference.expectation_grad(inference.elbo(model, partial(guide, grad=grad))))
    grads = jax.jit(jax.vmap(estimator, (0, None)))(jax.random.split(jax.random.key(0), 10_000), params)
    assert_mean(grads["loc"], 2.0 - 2 * 0.5)
    assert_mean(grads["log_scale"], 1.0 - 2 * np.exp(-0.5))


def test_a_program_with_parameters_of_its_own():
    """d/dmean E[log N(x; mean, 1)] = loc - mean."""

    def objective(params):
        return inference.elbo(partial(model, params["mean"]), guide)(params["guide"])

    params = {"mean": jnp.array(0.25), "guide": {"loc": jnp.array(0.5), "log_scale": jnp.array(-1.0)}}
    run = jax.jit(jax.vmap(ppl.seed(inference.expectation_grad(objective)), (0, None)))
    assert_mean(run(jax.random.split(jax.random.key(0), 5_000), params)["mean"], 0.25)


# ------------------------------------------------------------------------- what is refused


def run(program, guide):
    return ppl.seed(inference.elbo(program, guide))(jax.random.key(0), jnp.array(0.5))


def test_sites_must_agree():
    named = lambda name: lambda p: ppl.sample(name, dist.Normal(p, 1.0))  # noqa: E731
    with pytest.raises(
        ppl.AddressError, match="the guide must have the sites.*no site 'xx' .did you mean 'x'"
    ):
        run(model, named("xx"))
    with pytest.raises(ppl.AddressError, match=r"no value given for 'x' \(test_elbo.py:\d+\)"):
        run(model, lambda p: None)
    with pytest.raises(
        ppl.ChoiceError, match=r"the guide must have.*'x' \(test_elbo.py:\d+\) has shape \(\)"
    ):
        run(model, lambda p: ppl.sample("x", dist.Normal(p, 1.0).expand([2])))
    with pytest.raises(ppl.ChoiceError, match="has dtype int32"):
        run(lambda: bit("x", 0.5), named("x"))


def test_a_guide_is_a_distribution():
    with pytest.raises(ppl.UnsupportedError, match=r"guide carries weights \('y' \(test_elbo.py"):
        run(model, lambda p: model(p))
    with pytest.raises(ppl.UnsupportedError, match=r"'x' \(test_elbo.py:\d+\) of the guide has a proposal"):
        run(model, lambda p: ppl.sample("x", dist.Normal(p, 1.0), proposal=dist.Normal(0.0, 1.0)))

    def noisy():
        ppl.sample("x", dist.Normal(ppl.sample("hidden", dist.Normal(0.0, 1.0)), 1.0))

    estimated = ppl.marginal(noisy, "x", partial(inference.importance, n=2))
    with pytest.raises(ppl.UnsupportedError, match="the density of 'x' .* is only an estimate"):
        run(model, lambda p: ppl.sample("x", estimated()))


def test_a_guide_that_goes_where_the_program_has_no_mass_is_refused():
    program = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    guide = lambda loc: ppl.sample("x", dist.Normal(loc, 1.0))  # noqa: E731
    with pytest.raises(UnsupportedError, match=r"minus infinity.*'x' \(test_elbo.py.*check=False"):
        ppl.seed(inference.elbo(program, guide))(jax.random.key(0), 1.0)
    bound = ppl.seed(inference.elbo(program, guide, check=False))(jax.random.key(0), 10.0)
    assert jnp.isfinite(bound)
