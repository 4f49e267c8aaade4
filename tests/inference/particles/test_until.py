"""A program that ends at a suspension point has drawn what comes before it, and weighs as much."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl


def program():
    """A parameter, a scan backwards, a vmap, a branch, and a site after all factors. The factors count in digits."""
    p = ppl.sample("p", dist.Bernoulli(0.5))

    def step(x, weight):
        x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
        ppl.factor(weight)
        return x, None

    x, _ = jax.lax.scan(step, p, jnp.array([100.0, 10.0, 1.0]), reverse=True)
    jax.vmap(lambda a: ppl.sample("v", dist.Bernoulli(a), proposal=dist.Bernoulli(a)))(jnp.array([0.5, 0.25]))

    def more():
        ppl.sample("z", dist.Bernoulli(0.5))
        ppl.factor(1000.0)

    jax.lax.cond(jnp.array(True), more, lambda: None)
    ppl.sample("last", dist.Bernoulli(0.5))
    return x


# The steps of x that are there, whether v, z and the last site are, and the weight, at each point.
THERE = [
    ([0, 0, 1], 0, 0, 0, 1.0),
    ([0, 1, 1], 0, 0, 0, 11.0),
    ([1, 1, 1], 0, 0, 0, 111.0),
    ([1, 1, 1], 1, 0, 0, 111.0),
    ([1, 1, 1], 1, 1, 0, 1111.0),
    ([1, 1, 1], 1, 1, 1, 1111.0),
]


@pytest.mark.parametrize("point", range(1, 7))
def test_what_comes_after_the_point_is_not_reached(point):
    run = traced(jnp.array(point))
    x, v, z, last, weight = THERE[point - 1]
    assert not isinstance(run.choices["p"], ppl.Masked)
    assert np.array_equal(run.choices["x"].present, x)
    assert np.array_equal(run.choices["v"].present, [v, v])
    assert bool(run.choices["z"].present) == z and bool(run.choices["last"].present) == last
    assert run.log_weight == weight


traced = jax.jit(lambda point: ppl.simulate(inference.until(program))(jax.random.key(0), point))


def test_at_the_end_it_is_the_program():
    choices = ppl.simulate(program)(jax.random.key(1)).choices
    whole = {**choices, "z": choices["z"].value}
    until_the_end = ppl.log_density(inference.until(program))(whole, 6)
    assert until_the_end == ppl.log_density(program)(choices)


def test_it_goes_on_from_where_it_ended():
    """By ``update``, which draws what is lacking and keeps the rest."""
    before = traced(2)
    after = ppl.seed(ppl.update(inference.until(program)))(jax.random.key(1), before, 3).trace
    assert np.array_equal(after.choices["x"].present, [1, 1, 1])
    assert np.array_equal(after.choices["x"].value[1:], before.choices["x"].value[1:])
    assert after.log_weight - before.log_weight == 100.0
