"""What is known of values: bounds hold in every run, and equal numbers mean equal values."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.ppl.staging import stage
from borelax.semantics.static.abstract import Abstract, Terms


def straight(x):
    a = ppl.sample("a", dist.Exponential(1.0))
    b = ppl.sample("b", dist.Uniform(a, a + 1.0))
    k = ppl.sample("k", dist.Categorical(jnp.ones(4) / 4))
    return jnp.exp(-a), b - a, jnp.log1p(b), k * 2 + 1, jnp.where(k > 1, b, -a), x + k


def loops(x):
    def step(c, y):
        total, last, n = c
        z = ppl.sample("z", dist.Beta(2.0, 2.0))
        return (total + z * y, z, n + 1), (z, total, n)

    (total, last, n), out = lax.scan(step, (0.0, 0.5, 0), jnp.abs(x) + jnp.arange(6.0))
    return total, last, n, out


def branches(x):
    k = ppl.sample("k", dist.Categorical(jnp.ones(3) / 3))
    y = lax.switch(k, [lambda: 1.0, lambda: ppl.sample("u", dist.Uniform(2.0, 3.0)), lambda: -x * x])
    z = lax.cond(x * x >= 0.0, lambda: 1.0, lambda: 5.0)
    return y, z


def vmapped(x):
    draws = jax.vmap(lambda s: ppl.sample("x", dist.Uniform(-s, s)))(jnp.arange(1.0, 4.0))
    chosen = jax.vmap(lambda d: lax.cond(d > 0, lambda: ppl.sample("y", dist.Beta(1.0, 1.0)), lambda: -1.0))(
        draws
    )
    return draws, chosen, draws.sum(), jnp.max(draws), draws[1]


def until(x):
    return lax.while_loop(lambda c: c < 2.0, lambda c: c + ppl.sample("x", dist.Beta(1.0, 1.0)), 0.0 * x)


def nested(x):
    def outer(c, _):
        c, ys = lax.scan(lambda c, i: (0.5 * c + i, jnp.tanh(c)), c, jnp.arange(3.0))
        return -c, ys

    return lax.scan(outer, ppl.sample("a", dist.HalfNormal(1.0)), None, length=4)


@pytest.mark.parametrize("program", [straight, loops, branches, vmapped, until, nested])
@pytest.mark.parametrize("known", [True, False], ids=["known", "traced"])
def test_bounds_hold_in_every_run(program, known):
    x = jnp.array(0.75)
    found = []
    if known:
        found.append(Abstract(stage(program, x)).outputs)
    else:
        jax.jit(lambda x: (found.append(Abstract(stage(program, x)).outputs), x)[1])(x)
    run = jax.jit(jax.vmap(ppl.seed(program), (0, None)))
    values = jax.tree.leaves(run(jax.random.split(jax.random.key(0), 200), x))
    for value, b in zip(values, (out.bounds for out in found[0]), strict=True):
        value = np.asarray(value, np.float64)
        assert np.all(value >= b.lower - 1e-5) and np.all(value <= b.upper + 1e-5), (program, b)


def outputs(program, *args):
    return Abstract(stage(program, *args)).outputs


def test_bounds_are_as_tight_as_they_can_be():
    x = jnp.array(0.75)
    a, width, _, k, _, shifted = (out.bounds for out in outputs(straight, x))
    assert (a.lower, a.upper, a.positive) == (0.0, 1.0, True)
    assert (k.lower, k.upper) == (1.0, 7.0) and (shifted.lower, shifted.upper) == (0.75, 3.75)
    _, last, _, z, *_ = (out.bounds for out in outputs(loops, x))
    assert (last.lower, last.upper) == (z.lower, z.upper) == (0.0, 1.0)
    y = outputs(branches, x)[0].bounds
    assert (y.lower, y.upper) == (-0.5625, 3.0)


def test_equal_numbers_mean_equal_values():
    def program(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        same = jnp.exp(a) + x, jnp.exp(a) + x
        branch = lax.cond(a > 0, lambda: 1.0, lambda: 2.0), lax.cond(a > 0, lambda: 2.0, lambda: 1.0)
        steps = lax.scan(lambda c, _: (-c, c), a, None, length=3)
        return *same, jnp.exp(a) - x, *branch, a, *steps, lax.stop_gradient(a)

    numbers = [out.number for out in outputs(program, jnp.array(1.0))]
    assert numbers[0] == numbers[1]
    assert len(set(numbers[1:])) == len(numbers) - 1
    values = [np.asarray(v) for v in ppl.seed(program)(jax.random.key(0), jnp.array(1.0))]
    for i, j in itertools.combinations(range(len(numbers)), 2):
        assert numbers[i] != numbers[j] or np.array_equal(values[i], values[j])


def test_programs_that_share_terms_agree_on_what_they_share():
    def one(x):
        return 2.0 * ppl.sample("a", dist.Normal(0.0, 1.0)) + x

    def other(x):
        ppl.sample("b", dist.Exponential(1.0))
        return 2.0 * ppl.sample("a", dist.Cauchy(0.0, 1.0)) + x, 2.0 * ppl.sample(
            "c", dist.Normal(0.0, 1.0)
        ) + x

    terms, x = Terms(), jnp.array(1.0)
    (a,), (b, c) = (Abstract(stage(program, x), terms).outputs for program in (one, other))
    assert a.number == b.number != c.number


def test_what_every_run_reaches():
    def beta(name):
        return ppl.sample(name, dist.Beta(1.0, 1.0))

    def program(k):
        beta("always")
        drawn = ppl.sample("drawn", dist.Bernoulli(0.5))
        lax.cond(drawn == 1, lambda: beta("maybe"), lambda: 0.0)
        lax.cond(k == 1, lambda: beta("known"), lambda: beta("unreached"))
        lax.scan(lambda c, _: (c, beta("none")), 0.0, jnp.zeros(0))
        jax.vmap(lambda k: lax.cond(k == 1, lambda: beta("some"), lambda: 0.0))(jnp.arange(2))

    visits = Abstract(stage(program, jnp.array(1))).visits
    certain = {visit.site.name[0]: visit.certain for visit in visits}
    assert certain == {
        "always": True,
        "drawn": True,
        "maybe": False,
        "known": True,
        "none": False,
        "some": False,
    }


def test_long_programs_do_not_exhaust_the_stack():
    def program():
        x = ppl.sample("x", dist.Uniform(0.0, 1.0))
        for _ in range(3000):
            x = 0.5 * x
        return x

    (out,) = outputs(program)
    assert 0.0 <= out.bounds.lower <= out.bounds.upper <= 1.0
