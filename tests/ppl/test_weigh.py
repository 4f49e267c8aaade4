from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl, semantics

KEY = jax.random.key(0)


def weight_of(program, *args) -> float:
    _, log_weight = ppl.seed(ppl.weigh(program))(KEY, *args)
    assert log_weight.shape == () and log_weight.dtype == jnp.float32
    return float(log_weight)


def weighted(x):
    ppl.factor(x)
    return x + 1.0


@jax.custom_jvp
def with_jvp(x):
    return weighted(x)


@jax.custom_vjp
def with_vjp(x):
    return weighted(x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))
with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))


def factor_in_predicate():
    def going_on(c):
        ppl.factor(10.0)
        return c < 3.0

    return lax.while_loop(going_on, weighted, 1.0)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (lambda: weighted(weighted(weighted(1.0))), 6.0),
        (lambda: jax.jit(weighted)(jax.checkpoint(weighted)(1.0)), 3.0),
        (lambda: with_jvp(with_vjp(1.0)), 3.0),
        (lambda: lax.scan(lambda c, x: (weighted(c), weighted(x)), 1.0, jnp.array([10.0, 20.0])), 33.0),
        (lambda: lax.fori_loop(0, 4, lambda i, c: weighted(c), 1.0), 10.0),
        (lambda: lax.while_loop(lambda c: c < 4.0, weighted, 1.0), 6.0),
        (factor_in_predicate, 33.0),
        (lambda: lax.switch(jnp.array(1), [lambda: weighted(1.0), lambda: weighted(2.0)]), 2.0),
        (lambda: lax.cond(jnp.array(False), lambda: weighted(1.0), lambda: 0.0), 0.0),
        (lambda: jax.vmap(weighted)(jnp.array([1.0, 2.0, 4.0])), 7.0),
        (
            lambda: jax.vmap(lambda n: lax.while_loop(lambda c: c < n, weighted, 1.0))(jnp.array([1.0, 3.0])),
            3.0,
        ),
    ],
    ids="calls jit+remat custom scan fori while predicate switch cond vmap vmap-while".split(),
)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_every_factor_counts_as_often_as_it_is_reached(program, expected, jit):
    run = ppl.seed(ppl.weigh(program))
    assert float((jax.jit(run) if jit else run)(KEY)[1]) == expected


def test_an_observation_weighs_its_density():
    program = lambda: ppl.observe("y", dist.Gamma(2.0, 3.0).expand([2]), jnp.array([0.5, 1.5]))  # noqa: E731
    assert weight_of(program) == pytest.approx(
        stats.gamma.logpdf([0.5, 1.5], 2.0, scale=1 / 3).sum(), rel=1e-5
    )


def test_an_observation_outside_the_support_has_no_weight():
    assert weight_of(lambda: ppl.observe("y", dist.Exponential(1.0), -1.0)) == -np.inf


def test_a_site_is_drawn_from_its_proposal_and_weighted():
    def program():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Normal(50.0, 0.1))
        return x, ppl.sample("y", dist.Normal(x, 1.0))

    (x, _), log_weight = ppl.seed(ppl.weigh(program))(KEY)
    assert abs(float(x) - 50.0) < 1.0
    assert float(log_weight) == pytest.approx(
        stats.norm.logpdf(float(x)) - stats.norm.logpdf(float(x), 50.0, 0.1), rel=1e-4
    )
    assert abs(float(ppl.seed(program)(KEY)[0])) < 10.0  # which seed does not use


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "scan, vmap and cond"])
def test_the_weighted_program_is_properly_weighted(nested):
    """The sum over its paths of exp(log_weight) at each value is the weight of that value."""

    def bit(name, p, q):
        return ppl.sample(name, dist.Bernoulli(p), proposal=dist.Bernoulli(q))

    def program():
        a = bit("a", 0.25, 0.5)
        ppl.factor(0.5 * a)
        if not nested:
            return a, ppl.observe("b", dist.Bernoulli(0.1 + 0.5 * a), 1)
        scan = lax.scan(lambda c, _: (c ^ bit("b", 0.2 + 0.5 * c, 0.75), None), a, None, length=2)[0]
        ppl.factor(-1.0 * scan)
        batch = jax.vmap(lambda p: bit("c", p, 0.5))(jnp.array([0.1, 0.75]))
        return a, scan, batch, lax.cond(a == 1, lambda: bit("d", 0.1, 0.9), lambda: 0)

    total: dict = {}
    for (value, log_weight), weight in semantics.meaning(ppl.weigh(program))():
        total[repr(value)] = total.get(repr(value), 0.0) + weight * np.exp(log_weight)
    expected = {repr(value): weight for value, weight in semantics.meaning(program)()}
    assert total == pytest.approx(expected, rel=1e-12)


def test_a_proposal_that_misses_the_support_has_no_weight():
    outside = lambda: ppl.sample("x", dist.Exponential(1.0), proposal=dist.Uniform(-2.0, -1.0))  # noqa: E731
    assert weight_of(outside) == -np.inf


def test_a_site_that_is_not_reached_weighs_nothing():
    def member(b):
        site = lambda: ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Normal(3.0, 1.0))  # noqa: E731
        return lax.cond(b, site, lambda: 0.0)

    (x, nothing), log_weight = ppl.seed(ppl.weigh(jax.vmap(member)))(KEY, jnp.array([True, False]))
    assert float(nothing) == 0.0
    expected = stats.norm.logpdf(float(x)) - stats.norm.logpdf(float(x), 3.0)
    assert float(log_weight) == pytest.approx(expected, rel=1e-4)


def test_the_weighted_program_has_no_factors_and_keeps_its_other_sites():
    def program():
        ppl.factor(1.0)
        ppl.observe("y", dist.Normal(0.0, 1.0), 0.0)
        ppl.deterministic("d", 2.0)
        return ppl.sample("x", dist.Normal(0.0, 1.0))

    types = ppl.trace_type(ppl.weigh(program))()
    assert {name: t.kind for name, t in types.items()} == {"d": "deterministic", "x": "sample"}
    assert weight_of(ppl.weigh(program)) == 0.0
