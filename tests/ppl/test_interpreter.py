"""The walk: in which order it meets the sites, and that it leaves everything else alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl
from borelax.ppl.interpreter import Handler, interpret
from borelax.ppl.staging import stage

KEY = jax.random.key(0)


class Digits(Handler):
    """State: the decimal number whose digits are the log weights met so far. Records the state at samples."""

    def site(self, kind, site, operands, given, state):
        if kind == "factor":
            return [], 10 * state + operands[0], None
        return [state if given is None else given], state, state


def digits(program, *args, given=None):
    value, state, records = interpret(stage(program, *args), Digits(), jnp.zeros(()), given)
    return value, int(state), records


def mark(x):
    ppl.factor(x)
    return x


@jax.custom_jvp
def with_jvp(x):
    return mark(x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))


@jax.custom_vjp
def with_vjp(x):
    return mark(x)


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))


@jax.custom_batching.custom_vmap
def with_vmap(x):
    return mark(x)


with_vmap.def_vmap(lambda size, batched, x: (jax.vmap(mark)(x), batched[0]))


def scanned(reverse):
    return lambda: lax.scan(lambda c, x: (c + mark(x), mark(c)), 1.0, jnp.array([2.0, 3.0]), reverse=reverse)


def while_with_sites_everywhere():
    def going_on(i):
        mark(9.0)
        return i < 3.0

    return lax.while_loop(going_on, lambda i: mark(i) + 1.0, 1.0)


def nested():
    def step(c, x):
        c = lax.cond(
            c % 2 == 0, lambda: mark(x) + 1, lambda: lax.fori_loop(0, 2, lambda i, c: mark(c) + 1, c)
        )
        return jax.checkpoint(jax.jit(mark))(c), None

    return lax.scan(step, 0.0, jnp.array([4.0, 5.0]))


def branch(i):
    return lambda: lax.switch(i, [lambda: mark(1.0), lambda: mark(mark(2.0) + 1), lambda: 0.0])


@pytest.mark.parametrize(
    ("program", "order"),
    [
        (lambda: (mark(1.0), mark(2.0), mark(3.0)), 123),
        (lambda: (mark(1.0), jax.jit(mark)(2.0), mark(3.0)), 123),
        (lambda: (mark(1.0), jax.checkpoint(mark)(2.0), mark(3.0)), 123),
        (lambda: (mark(1.0), with_jvp(2.0), mark(3.0)), 123),
        (lambda: (mark(1.0), with_vjp(2.0), mark(3.0)), 123),
        (lambda: (mark(1.0), with_vmap(2.0), mark(3.0)), 123),
        (scanned(False), 2133),
        (scanned(True), 3124),
        (lambda: lax.fori_loop(1, 4, lambda i, c: c + mark(1.0 * i), 0.0), 123),
        (lambda: lax.fori_loop(1, jnp.array(4), lambda i, c: c + mark(1.0 * i), 0.0), 123),
        (lambda: lax.map(mark, jnp.array([3.0, 1.0, 2.0])), 312),
        (branch(jnp.array(0)), 1),
        (branch(jnp.array(1)), 23),
        (branch(jnp.array(2)), 0),
        (while_with_sites_everywhere, 91929),
        (nested, 45567),
    ],
    ids=[
        *("straight", "jit", "remat", "custom_jvp", "custom_vjp", "custom_vmap", "scan", "reverse scan"),
        *(
            "fori_loop",
            "fori_loop of traced length",
            "map",
            "switch 0",
            "switch 1",
            "switch 2",
            "while",
            "nested",
        ),
    ],
)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_sites_are_met_in_the_order_of_the_program(program, order, jit):
    run = lambda: digits_state(program)  # noqa: E731
    assert int((jax.jit(run) if jit else run)()) == order


def digits_state(program):
    return interpret(stage(program), Digits(), jnp.zeros(()))[1]


def draw(name):
    return ppl.sample(name, dist.Normal(0.0, 1.0))


def test_given_values_are_sliced_and_records_stacked():
    def program():
        def step(c, x):
            mark(x)
            return c + draw("free"), draw("given")

        total, seen = lax.scan(step, 0.0, jnp.array([1.0, 2.0, 3.0]))
        return total, seen, draw("after")

    values = jnp.array([7.0, 8.0, 9.0])
    (total, seen, after), state, records = digits(program, given={("given",): values})
    assert state == 123 and float(after) == 123 and float(total) == 1 + 12 + 123
    np.testing.assert_array_equal(seen, values)
    np.testing.assert_array_equal(records["given",], [1, 12, 123])
    assert records["after",].shape == ()


def test_a_record_of_one_branch_is_masked():
    program = lambda i: lax.switch(i, [lambda: draw("x"), lambda: draw("y")])  # noqa: E731
    for i, (here, there) in enumerate([("x", "y"), ("y", "x")]):
        _, _, records = digits(program, jnp.array(i))
        assert bool(records[here,].present) and not bool(records[there,].present)


# ------------------------------------------------------------------ what has no effects


@jax.custom_vjp
def reversed_gradient(x):
    return jnp.sin(x)


reversed_gradient.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (-7.0 * g,))


@jax.custom_jvp
def scaled_tangent(x):
    return jnp.sin(x)


scaled_tangent.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 5.0 * tangents[0]))

TRANSFORMATIONS = {
    "seed": lambda p: lambda x: ppl.seed(p)(KEY, x),
    "weigh": lambda p: lambda x: ppl.seed(ppl.weigh(p))(KEY, x)[0],
    "trace": lambda p: lambda x: ppl.simulate(p)(KEY, x).value,
    "log_density": lambda p: lambda x: ppl.log_density(lambda x: ppl.factor(p(x)))({"u": 0.0}, x),
}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
@pytest.mark.parametrize(("fun", "expected"), [(reversed_gradient, -7.0), (scaled_tangent, 5.0)])
def test_custom_derivatives_are_kept(transformation, fun, expected):
    def program(x):
        u = draw("u")
        inside = lax.scan(lambda c, _: (jax.checkpoint(jax.jit(fun))(c), None), x, None, length=1)[0]
        return inside + 0.0 * u

    assert float(jax.grad(transformation(program))(jnp.array(0.3))) == expected


def test_equations_without_effects_are_evaluated_as_they_were_traced():
    def program(x):
        with jax.default_matmul_precision("highest"):
            y = x @ x.T
        y = lax.while_loop(lambda y: jnp.sum(y) < 10, lambda y: y + 1, y)
        y = lax.scan(lambda c, r: (c + r, c), y[0], y, reverse=True, unroll=2)[1]
        return jax.jit(lambda y: lax.cond(y[0, 0] > 0, jnp.sin, jnp.cos, y), inline=False)(y)

    x = jnp.eye(3)
    plain = jax.make_jaxpr(program)(x).jaxpr.eqns
    walked = jax.make_jaxpr(ppl.weigh(program))(x).jaxpr.eqns
    kept = [eqn for eqn in walked if eqn.primitive in {eqn.primitive for eqn in plain}]
    assert list(map(described, kept)) == list(map(described, plain))


def described(eqn):
    return eqn.primitive.name, str(eqn.params), [str(v.aval) for v in eqn.outvars]


# ------------------------------------------------------------------ what is refused


def test_sites_in_a_construct_that_the_walk_does_not_know_are_refused():
    def program(b):
        matvec = lambda x: x * jnp.exp(draw("x"))  # noqa: E731
        return lax.custom_linear_solve(matvec, b, lambda mv, b: b)

    with pytest.raises(ppl.UnsupportedError, match="lies inside 'custom_linear_solve'"):
        ppl.seed(program)(KEY, jnp.ones(2))


@pytest.mark.parametrize(
    "transformation", [ppl.simulate, lambda p: lambda key: ppl.log_density(p)({"x": 0.0})]
)
def test_a_draw_in_a_while_loop_has_no_fixed_number_of_values(transformation):
    program = lambda: lax.while_loop(lambda c: c < 1.0, lambda c: c + jnp.exp(draw("x")), 0.0)  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match=r"'x'.*inside a while_loop"):
        transformation(program)(KEY)


@pytest.mark.parametrize("rule", ["jvp", "vjp"])
def test_a_custom_derivative_around_a_site_is_not_used(rule):
    if rule == "jvp":
        fun = jax.custom_jvp(lambda x: x + draw("x"))
        fun.defjvp(lambda primals, tangents: (fun(*primals), 3.0 * tangents[0]))
    else:
        fun = jax.custom_vjp(lambda x: x + draw("x"))
        fun.defvjp(lambda x: (fun(x), None), lambda _, g: (3.0 * g,))
    seeded = ppl.seed(lambda x: fun(x))
    assert np.isfinite(seeded(KEY, jnp.array(1.0)))
    with pytest.raises(ppl.UnsupportedError, match=r"custom derivative rule contains the sites 'x'"):
        jax.grad(lambda x: seeded(KEY, x))(jnp.array(1.0))


def normal(name="x"):
    return ppl.sample(name, dist.Normal(0.0, 1.0))


def half(x):
    ppl.factor(0.5 * x, "x")
    return x


FACTORS = {
    "beside": (lambda: half(normal()), {"x": 2.0}, (2.0,), 1.0),
    "in a branch": (lambda: lax.cond(normal() > 0, lambda: half(3.0), lambda: 0.0), {"x": 2.0}, (2.0,), 1.5),
    "in another branch": (
        lambda: lax.cond(normal("y") > 0, lambda: half(3.0), normal),
        {"x": ppl.Masked(9.0, False), "y": 1.0},
        (1.0,),
        1.5,
    ),
    "in a scan": (lambda: lax.map(half, normal() * jnp.arange(3.0)), {"x": 2.0}, (2.0,), 3.0),
    "in some branches of a batch": (
        lambda: jax.vmap(lambda x: lax.cond(x > 0, half, jnp.negative, x))(normal() * jnp.arange(3.0)),
        {"x": 2.0},
        (2.0,),
        3.0,
    ),
    "in another branch of a batch": (
        lambda: jax.vmap(lambda y: lax.cond(y > 0, half, lambda y: normal(), y))(
            normal("y") * jnp.arange(2.0)
        ),
        {"x": ppl.Masked(jnp.array([2.0, 9.0]), jnp.array([True, False])), "y": 1.0},
        (1.0, 2.0),
        0.5,
    ),
    "beside, in a scan in a branch": (
        lambda: lax.cond(
            True, lambda: lax.map(lambda _: half(normal()), jnp.arange(2)), lambda: jnp.zeros(2)
        ),
        {"x": ppl.Masked(jnp.array([2.0, 4.0]), jnp.array([True, True]))},
        (2.0, 4.0),
        3.0,
    ),
}


@pytest.mark.parametrize(("program", "choices", "drawn", "factors"), FACTORS.values(), ids=FACTORS)
def test_a_factor_may_be_named_like_a_site(program, choices, drawn, factors):
    """Its name is for messages, and no address."""
    shapes = jax.tree.map(jnp.shape, ppl.simulate(program)(jax.random.key(0)).choices)
    assert shapes == jax.tree.map(jnp.shape, choices)
    optional = {(name,) for name, choice in choices.items() if isinstance(choice, ppl.Masked)}
    assert stage(program).optional == optional
    expected = pytest.approx(stats.norm.logpdf(drawn).sum() + factors, rel=1e-5)
    assert float(ppl.log_density(program)(choices)) == expected
    assert float(ppl.log_density(ppl.condition(program, choices))({})) == expected
