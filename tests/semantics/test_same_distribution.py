from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import ppl, semantics


def test_exactly():
    two = lambda: ppl.sample("a", dist.Bernoulli(0.5)) + ppl.sample("b", dist.Bernoulli(0.5))  # noqa: E731
    one = lambda: ppl.sample("x", dist.Categorical(jnp.array([0.25, 0.5, 0.25])))  # noqa: E731
    assert semantics.same_distribution(two, one)().holds
    report = semantics.same_distribution(two, lambda: 2 * ppl.sample("x", dist.Bernoulli(0.5)))()
    assert not report.holds and report.error == 0.5


def test_by_sampling():
    beta = lambda a, b: ppl.sample("x", dist.Beta(a, b))  # noqa: E731

    def of_gammas(a, b):
        x, y = (ppl.sample(name, dist.Gamma(c, 1.0)) for name, c in (("x", a), ("y", b)))
        return x / (x + y)

    a, b = jnp.array(2.0), jnp.array(3.0)
    assert semantics.same_distribution(beta, of_gammas)(a, b).holds
    assert not semantics.same_distribution(beta, lambda a, b: of_gammas(b, a))(a, b).holds


def test_functions_of_a_key():
    normal = lambda: ppl.sample("x", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))  # noqa: E731
    shared = semantics.keyed(lambda key: jnp.broadcast_to(jax.random.normal(key), (2,)))
    assert semantics.same_distribution(
        normal, semantics.keyed(lambda key: jax.random.normal(key, (2,)))
    )().holds
    assert not semantics.same_distribution(normal, shared)().holds


def test_the_form_that_raises():
    coin = lambda p: ppl.sample("x", dist.Bernoulli(p))  # noqa: E731
    with pytest.raises(semantics.CheckFailed):
        semantics.assert_same_distribution(lambda: coin(0.5), lambda: coin(0.75))()
