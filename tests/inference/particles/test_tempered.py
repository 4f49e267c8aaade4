"""A program whose weights count in part has the density that was written down for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl, semantics


def model(y):
    """A proposal, a factor in a branch, an observation."""
    z = ppl.sample("z", dist.Bernoulli(0.25), proposal=dist.Bernoulli(0.625))
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    lax.cond(z == 1, lambda: ppl.factor(jnp.sin(x)), lambda: None)
    ppl.deterministic("twice", 2 * x)
    ppl.observe("y", dist.Normal(x, 0.5), y)
    return z


def by_hand(z, x, y, beta):
    """The log density of the draws, and the weight to the power of beta."""
    drawn = np.log(0.625 if z else 0.375) - 0.5 * x**2 - 0.5 * np.log(2 * np.pi)
    weight = np.log(0.25 / 0.625 if z else 0.75 / 0.375) + (np.sin(x) if z else 0.0)
    weight += -2.0 * (y - x) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(0.5)
    return drawn + beta * weight


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_density(beta):
    log_density = jax.jit(ppl.log_density(inference.tempered(model)))
    for z, x in [(0, 0.5), (1, -1.5)]:
        found = log_density({"z": z, "x": x}, jnp.array(beta), jnp.array(2.0))
        np.testing.assert_allclose(found, by_hand(z, x, 2.0, beta), rtol=1e-5)


def test_at_one_it_is_the_program():
    y = jnp.array(2.0)
    choices = {"z": 1, "x": 0.25}
    tempered = ppl.log_density(inference.tempered(model))(choices, 1.0, y)
    np.testing.assert_allclose(tempered, ppl.log_density(model)(choices, y), rtol=1e-6)


def test_what_is_drawn_and_recorded():
    trace = ppl.simulate(inference.tempered(model))(jax.random.key(0), 0.5, jnp.array(2.0))
    assert set(trace.choices) == {"z", "x"} and trace.deterministic["twice"] == 2 * trace.choices["x"]
    start = by_hand(int(trace.choices["z"]), float(trace.choices["x"]), 2.0, 0.0)
    np.testing.assert_allclose(trace.log_density - trace.log_weight, start, rtol=1e-5)


def test_at_zero_a_weight_of_zero_does_not_count():
    def program():
        x = ppl.sample("x", dist.Bernoulli(0.25))
        ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf))
        return x

    start = semantics.meaning(inference.tempered(program))(0.0)
    assert start.distance(semantics.meaning(lambda: ppl.sample("x", dist.Bernoulli(0.25)))()) < 1e-10
    assert semantics.meaning(inference.tempered(program))(0.5).total == pytest.approx(0.25, abs=1e-10)
