"""Checks of gradient estimators: unbiased, by enumeration or by sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from .check import check


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
