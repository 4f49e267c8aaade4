"""Which values bear on later weights: by paths that end at sites, through calls, branches and loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.ppl.bearing import bearing


def bears(program, *args, outs: bool = False) -> list[bool]:
    """Of each argument, whether it bears on the weight of the program, or by its outputs if ``outs``."""
    jaxpr = jax.make_jaxpr(program)(*args).jaxpr
    last = bearing(jaxpr, jaxpr.outvars, [outs for _ in jaxpr.outvars])
    return [v in last for v in jaxpr.invars]


def site(x):
    return ppl.sample("x", dist.Normal(x, 1.0))


def returned(a, b):
    ppl.factor(2 * a)
    return a + b


def through_a_site(a, b):
    ppl.factor(site(a))
    return b


def recorded_only(a, b):
    ppl.factor(a)
    ppl.deterministic("b", b)
    ppl.twist(b)


def called(a, b):
    return jax.jit(returned)(a, b)


def predicate(a, b):
    lax.cond(a > 0, lambda: ppl.factor(1.0), lambda: None)
    return lax.cond(b > 0, lambda: 1.0, lambda: 2.0)


def around_a_loop(a, b):
    """What is carried into one step bears on the next but one, by another place of the carry."""

    def step(carry, _):
        one, two, total = carry
        ppl.factor(one)
        return (two, a, total + b), one

    return lax.scan(step, (a, a, b), None, length=3)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (returned, [True, False]),
        (through_a_site, [True, False]),
        (recorded_only, [True, False]),
        (called, [True, False]),
        (predicate, [True, False]),
        (around_a_loop, [True, False]),
    ],
)
def test_a_path_leads_to_a_weight(program, expected):
    assert bears(program, 1.0, 1.0) == expected


def test_what_comes_after_may_weigh_outputs():
    assert bears(returned, 1.0, 1.0, outs=True) == [True, True]
    assert bears(lambda a, b: site(a) + 0 * b, 1.0, 1.0, outs=True) == [True, True]
    assert bears(lambda a, b: (site(a), b)[0], 1.0, 1.0, outs=True) == [True, False]


def test_how_long_it_does():
    def program(a, b):
        c = a + b
        ppl.factor(c)
        ppl.factor(a)
        return jnp.sin(c)

    jaxpr = jax.make_jaxpr(program)(1.0, 1.0).jaxpr
    last = bearing(jaxpr, jaxpr.outvars, [False])
    a, b = jaxpr.invars
    (c,) = jaxpr.eqns[0].outvars
    assert last[b] == 0 < last[c] < last[a]
