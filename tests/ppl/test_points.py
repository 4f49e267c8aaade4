"""Suspension points are where the population walk suspends, and are counted alike on all branches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.ppl.points import count_points
from borelax.ppl.staging import stage


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def straight():
    x = bit("x")
    ppl.factor(1.0 * x)
    ppl.factor(2.0 * x)
    return bit("y", proposal=dist.Bernoulli(0.25)) + bit("z")


def weighed_at_the_end():
    ppl.factor(1.0 * bit("x") * bit("y"))


def chain(steps=3):
    def step(x, _):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)
        return x, None

    return jax.lax.scan(step, 0, None, length=steps)[0]


def two_points_a_step():
    def step(x, _):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(1.0 * x)
        y = bit("y", 0.25 + 0.5 * x)
        ppl.factor(1.0 * y)
        return y, None

    return jax.lax.scan(step, 0, None, length=3)[0]


def none_at_the_end_of_a_step():
    def step(x, _):
        ppl.factor(1.0 * x)
        return bit("x", 0.25 + 0.5 * x), None

    return jax.lax.scan(step, bit("start"), None, length=3)[0]


def only_weights():
    p = bit("p")
    jax.lax.map(lambda y: ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * p), y), jnp.array([1, 0, 1]))
    return p


def nested():
    jax.lax.map(lambda _: jax.jit(chain)(), jnp.arange(2))
    return bit("last")


def branching():
    def more(x):
        ppl.factor(1.0 * x)
        return bit("y")

    x = bit("x")
    y = jax.lax.cond(x == 1, more, lambda x: x, x)
    ppl.factor(1.0 * y)
    return bit("z")


COUNTS = {
    lambda: bit("x"): 0,
    straight: 2,
    weighed_at_the_end: 1,
    chain: 3,
    two_points_a_step: 6,
    none_at_the_end_of_a_step: 3,
    only_weights: 3,
    nested: 6,
    branching: 2,
    lambda: chain(0) + bit("last"): 0,
}


@pytest.mark.parametrize(("program", "count"), COUNTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_points_are_counted(program, count):
    assert count_points(stage(program)) == count


@pytest.mark.parametrize("program", [straight, chain, two_points_a_step, only_weights, branching])
def test_the_population_walk_suspends_there(program):
    sites = stage(inference.smc(program, 2)).of_kind("sample")
    ancestors = [info.shape for info in sites if info.address[0] == "resample"]
    assert sum(math.prod(steps) for *steps, _ in ancestors) == count_points(stage(program))
