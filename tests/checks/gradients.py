"""Checks of gradient estimators: unbiased, by enumeration or by sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from .check import check, near


def _gradient(lib, objective):
    """The check of an estimator against the derivative of the enumerated expectation."""

    def value(p):
        def expected(p):
            return lib.inference.enumerate(objective)(p).expectation()

        return jax.grad(expected)(p)

    return lib.semantics.unbiased(lib.inference.expectation_grad(objective), value)(jnp.array(0.375))


@check("inference.expectation_grad")
def gradient_by_the_score(lib):
    def objective(p):
        x = lib.ppl.sample("x", dist.Bernoulli(p), grad="score")
        y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * p * x), grad="score")
        return (1.0 + x) * (2.0 - y) * p

    return _gradient(lib, objective)


@check("inference.expectation_grad")
def gradient_in_a_scan(lib):
    def objective(p):
        def step(x, t):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * p * x), grad="score")
            return x, x * t

        return jax.lax.scan(step, 1, jnp.array([1.0, 2.0]))[1].sum()

    return _gradient(lib, objective)


@check("inference.expectation_grad")
def gradient_by_enumeration(lib):
    def objective(p):
        x = lib.ppl.sample("x", dist.Bernoulli(p), grad="enumerate")
        y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * p * x), grad="score")
        return (1.0 + x) * (2.0 - y) * p

    return _gradient(lib, objective)


@check("inference.expectation_grad")
def gradient_along_paths(lib):
    def objective(params):
        x = lib.ppl.sample("x", dist.Normal(params["loc"], params["scale"]), grad="pathwise")
        return x**2

    params = {"loc": jnp.array(0.5), "scale": jnp.array(1.5)}
    exact = {"loc": jnp.array(1.0), "scale": jnp.array(3.0)}
    return lib.semantics.unbiased(lib.inference.expectation_grad(objective), exact)(params)


@check("inference.expectation_value_and_grad")
def value_beside_the_gradient(lib):
    def objective(p):
        return 3.0 * lib.ppl.sample("x", dist.Bernoulli(p), grad="score")

    estimator = lib.inference.expectation_value_and_grad(objective)
    return lib.semantics.unbiased(estimator, (0.75, 3.0))(jnp.array(0.25))


@check("inference.elbo")
def bound_is_the_evidence_at_the_posterior(lib):
    """And below it by the divergence elsewhere."""

    def coin():
        x = lib.ppl.sample("x", dist.Bernoulli(0.5))
        lib.ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)

    def guide(p):
        lib.ppl.sample("x", dist.Bernoulli(p))

    def value(p):
        divergence = p * jnp.log(p / 0.75) + (1 - p) * jnp.log((1 - p) / 0.25)
        return jnp.log(0.5) - divergence

    return lib.semantics.unbiased(lib.inference.elbo(coin, guide), value)(jnp.array(0.375))


@check("inference.fit")
def fit_finds_the_posterior(lib):
    """The guide that is the posterior maximises the bound; the bound is summed up, so that nothing is drawn."""

    def coin():
        x = lib.ppl.sample("x", dist.Bernoulli(0.5))
        lib.ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)

    def guide(logit):
        lib.ppl.sample("x", dist.Bernoulli(logits=logit), grad="enumerate")

    found = lib.inference.fit(lib.inference.elbo(coin, guide), optax.sgd(1.0), 100)(jax.random.key(0), 0.0)
    values = [found.params, found.average, found.values[0], found.values[-1]]
    right = np.log([3.0, 3.0, 0.1875**0.5, 0.5])
    return near(lib, "the fit is the posterior", values, right, 1e-4)


@check("inference.fit")
def steps_of_a_fit_know_nothing_of_each_other(lib):
    """A gradient that is noise alone: the steps are a random walk, of a variance that grows with their number."""

    def objective(p):
        return p * jax.lax.stop_gradient(lib.ppl.sample("x", dist.Normal(0.0, 1.0)))

    run = lib.inference.fit(objective, optax.sgd(0.5), 8)
    walked = lib.semantics.keyed(lambda key: run(key, 0.0).params ** 2)
    return lib.semantics.unbiased(walked, 8 * 0.5**2)()
