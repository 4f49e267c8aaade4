from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.distributions import constraints

from borelax import ppl


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


def shapes(program, *args):
    types = ppl.trace_type(program)(*args)
    is_type = lambda x: isinstance(x, ppl.SiteType)  # noqa: E731
    return jax.tree.map(lambda t: (t.shape, t.optional), types, is_leaf=is_type)


@jax.custom_jvp
def with_jvp(x):
    return normal("x", x)


@jax.custom_vjp
def with_vjp(x):
    return normal("x", x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))
with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))


def scoped(fun):
    def program():
        with ppl.scope("s"):
            return fun(0.0)

    return program


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (lambda: normal("x"), {"x": ((), False)}),
        (lambda: jax.jit(normal, static_argnums=0)("x"), {"x": ((), False)}),
        (scoped(with_jvp), {"s": {"x": ((), False)}}),
        (scoped(with_vjp), {"s": {"x": ((), False)}}),
        (scoped(jax.checkpoint(with_jvp)), {"s": {"x": ((), False)}}),
        (lambda: jax.vmap(with_jvp)(jnp.zeros(3)), {"x": ((3,), False)}),
        (lambda: lax.map(lambda m: normal("x", m), jnp.zeros((4, 2))), {"x": ((4, 2), False)}),
        (lambda: lax.fori_loop(0, 5, lambda i, c: normal("x", c), 0.0), {"x": ((5,), False)}),
        (lambda: lax.map(jax.vmap(lambda m: normal("x", m)), jnp.zeros((4, 2))), {"x": ((4, 2), False)}),
        (lambda: jax.vmap(lambda xs: lax.map(with_jvp, xs))(jnp.zeros((4, 2))), {"x": ((2, 4), False)}),
        (
            lambda: lax.switch(jnp.array(0), [lambda: normal("x") + normal("y"), lambda: normal("x")]),
            {"x": ((), False), "y": ((), True)},
        ),
        (
            lambda: jax.vmap(lambda b: lax.cond(b, lambda: normal("x"), lambda: 0.0))(jnp.ones(3, bool)),
            {"x": ((3,), True)},
        ),
        (lambda: 1.0, {}),
    ],
    ids=(
        "plain jit custom_jvp custom_vjp remat vmap map fori scan-of-vmap vmap-of-scan switch vmap-of-cond none"
    ).split(),
)
def test_shapes_under_every_construct(program, expected):
    assert shapes(program) == expected


def test_the_shapes_are_those_of_a_run():
    def program(xs):
        batch = jax.vmap(jax.vmap(lambda x: ppl.sample("b", dist.Dirichlet(jnp.ones(3)).expand([2]))))(xs)
        return batch, lax.scan(
            lambda c, x: (c, ppl.sample("c", dist.MultivariateNormal(x, jnp.eye(3)))), 0.0, xs
        )

    xs = jnp.zeros((4, 3))
    choices = ppl.simulate(program)(jax.random.key(0), xs).choices
    types = ppl.trace_type(program)(xs)
    assert {n: (t.shape, t.dtype) for n, t in types.items()} == {
        n: (x.shape, x.dtype) for n, x in choices.items()
    }


def test_kinds_dtypes_and_sources():
    def program():
        ppl.sample("a", dist.Poisson(1.0))
        ppl.observe("b", dist.Normal(0.0, 1.0), 0.5)
        ppl.deterministic("c", jnp.zeros(2, bool))
        ppl.factor(1.0)

    first = program.__code__.co_firstlineno
    types = ppl.trace_type(program)()
    assert {n: (t.kind, t.dtype, t.source) for n, t in types.items()} == {
        "a": ("sample", jnp.int32, f"test_types.py:{first + 1}"),
        "b": ("observe", jnp.float32, f"test_types.py:{first + 2}"),
        "c": ("deterministic", bool, f"test_types.py:{first + 3}"),
    }
    assert types["c"].support is None


def test_a_site_in_a_while_loop_has_no_type():
    program = lambda: lax.while_loop(lambda c: c < 1.0, lambda c: c + normal("x"), 0.0)  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match=r"'x' \(test_types.*while_loop: .*no type.*ppl.loop"):
        ppl.trace_type(program)()


def test_nothing_is_run():
    def program():
        jax.debug.callback(lambda: pytest.fail("it was run"))
        return normal("x") + lax.while_loop(lambda c: True, lambda c: c, 0.0)

    assert list(ppl.trace_type(program)()) == ["x"]


@pytest.mark.parametrize(
    ("d", "support"),
    [
        (dist.Normal(0.0, 1.0), constraints.real),
        (dist.Exponential(1.0), constraints.positive),
        (dist.Bernoulli(0.5), constraints.boolean),
        (dist.Poisson(1.0), constraints.nonnegative_integer),
        (dist.Dirichlet(jnp.ones(3)), constraints.simplex),
        (dist.LKJCholesky(2), constraints.corr_cholesky),
        (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), constraints.real_vector),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("batched", [False, True], ids=["plain", "vmap"])
def test_supports(d, support, batched):
    site = lambda _: ppl.sample("x", d)  # noqa: E731
    program = (lambda: jax.vmap(site)(jnp.zeros(2))) if batched else lambda: site(0.0)
    found = ppl.trace_type(program)()["x"].support
    assert type(found) is type(support)


@pytest.mark.parametrize("batched", [False, True], ids=["plain", "vmap"])
def test_bounds_that_are_computed_are_abstract(batched):
    def member(high):
        low = normal("low")
        ppl.sample("x", dist.Uniform(low, high))
        ppl.sample("n", dist.Binomial(high.astype(int), 0.5))

    program = jax.vmap(member) if batched else member
    types = ppl.trace_type(program)(jnp.ones(3) if batched else jnp.array(1.0))
    interval, counts = types["x"].support, types["n"].support
    bounds = [interval.lower_bound, interval.upper_bound, counts.upper_bound]
    assert all(isinstance(bound, jax.ShapeDtypeStruct) and bound.shape == () for bound in bounds)
    assert np.issubdtype(counts.upper_bound.dtype, np.integer) and interval.lower_bound.dtype == np.float32
