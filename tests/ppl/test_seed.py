from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from thresholds import assert_mean

from borelax import ppl

KEY = jax.random.key(0)


def uniform(name="u"):
    return ppl.sample(name, dist.Uniform(0.0, 1.0))


@jax.custom_jvp
def with_jvp(x):
    return x + uniform()


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))


@jax.custom_vjp
def with_vjp(x):
    return x + uniform()


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))


@jax.custom_batching.custom_vmap
def with_vmap(x):
    return x + uniform()


with_vmap.def_vmap(lambda size, batched, x: (jax.vmap(lambda x: x + uniform())(x), batched[0]))


def straight():
    return jnp.stack([uniform("a"), uniform("b"), uniform("c")])


def scan():
    return lax.scan(lambda c, _: (c, jnp.stack([uniform("a"), uniform("b")])), 0.0, None, length=4)[1]


def scan_of_scan():
    inner = lambda c, _: (c, uniform("inner"))  # noqa: E731
    step = lambda c, _: (c, (uniform("x"), lax.scan(inner, 0.0, None, length=3)[1]))  # noqa: E731
    return lax.scan(step, 0.0, None, length=2)[1]


def fori_loop():
    return lax.fori_loop(0, 4, lambda i, path: path.at[i].set(uniform()), jnp.zeros(4))


def while_loop():
    """Draws in the predicate and in the body."""

    def going_on(carry):
        i, _ = carry
        return (i < 3) & (uniform("predicate") < 2.0)

    body = lambda carry: (carry[0] + 1, carry[1].at[carry[0]].set(jnp.stack([uniform("x"), uniform("y")])))  # noqa: E731
    return uniform("before"), lax.while_loop(going_on, body, (0, jnp.zeros((3, 2))))[1], uniform("after")


def while_in_scan():
    def step(c, _):
        body = lambda carry: (carry[0] + 1, carry[1].at[carry[0]].set(uniform("x")))  # noqa: E731
        return c, lax.while_loop(lambda carry: carry[0] < 2, body, (0, jnp.zeros(2)))[1]

    return lax.scan(step, 0.0, None, length=2)[1]


def cond():
    pair = lambda: jnp.stack([uniform("y"), uniform("z")])  # noqa: E731
    return uniform("x"), lax.cond(uniform("coin") < 0.5, pair, pair), uniform("last")


def switch():
    branch = lambda i: lambda: uniform(f"x{i}")  # noqa: E731
    return lax.map(lambda i: lax.switch(i, [branch(0), branch(1), branch(2)]), jnp.arange(3))


def calls():
    with ppl.scope("vmap"):
        batch = jax.vmap(lambda _: uniform())(jnp.zeros(3))
    with ppl.scope("remat"):
        remat = jax.checkpoint(uniform)()
    with ppl.scope("jit"):
        jit = jax.jit(jax.jit(uniform))()
    customs = []
    for fun in (with_jvp, with_vjp, with_vmap):
        with ppl.scope(f"custom{len(customs)}"):
            customs.append(fun(jnp.array(0.0)))
    return batch, remat, jit, customs


PROGRAMS = [straight, scan, scan_of_scan, fori_loop, while_loop, while_in_scan, cond, switch, calls]


def draws(value) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_one_key_gives_the_same_draws_with_and_without_jit_and_vmap(program):
    seeded = ppl.seed(program)
    keys = jax.random.split(KEY, 3)
    eager = draws(seeded(keys[1]))
    np.testing.assert_array_equal(draws(jax.jit(seeded)(keys[1])), eager)
    batch = jax.jit(jax.vmap(seeded))(keys)
    np.testing.assert_array_equal(draws(jax.tree.map(lambda x: x[1], batch)), eager)
    assert not np.any(draws(seeded(keys[0])) == eager)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_no_key_is_used_twice(program):
    values = draws(ppl.seed(program)(KEY))
    assert np.all((0 < values) & (values < 1)) and len(np.unique(values)) == len(values)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_draws_are_uniform_and_uncorrelated(program):
    seeded = ppl.seed(program)
    flat = jax.jit(jax.vmap(lambda key: jnp.concatenate(list(map(jnp.ravel, jax.tree.leaves(seeded(key)))))))
    centred = np.asarray(flat(jax.random.split(KEY, 3000)), np.float64) - 0.5
    assert_mean(centred, np.zeros(centred.shape[1]))
    assert_mean(np.einsum("ni,nj->nij", centred, centred), np.eye(centred.shape[1]) / 12)


def test_the_number_of_rounds_of_a_while_loop_is_geometric():
    def tosses():
        toss = lambda n: ppl.sample("heads", dist.Bernoulli(0.25)) == 0  # noqa: E731
        return lax.while_loop(toss, lambda n: n + 1, 1)

    counts = np.asarray(jax.jit(jax.vmap(ppl.seed(tosses)))(jax.random.split(KEY, 4000)), np.float64)
    assert_mean(counts, 4.0)
    assert_mean(counts == 1, 0.25)
    assert_mean(counts == 3, 0.25 * 0.75**2)


def test_draws_can_be_differentiated():
    program = lambda mean, scale: ppl.sample("x", dist.Normal(mean, scale))  # noqa: E731
    seeded = ppl.seed(jax.checkpoint(program))
    mean, scale = jnp.array(1.0), jnp.array(2.0)
    value, (by_mean, by_scale) = jax.value_and_grad(seeded, argnums=(1, 2))(KEY, mean, scale)
    assert float(by_mean) == 1.0
    assert float(by_scale) == pytest.approx((float(value) - 1.0) / 2.0, rel=1e-5)


def test_arguments_are_passed_on():
    def program(n, xs, *, scale):
        assert isinstance(n, int)
        return xs["x"] + scale * ppl.sample("zero", dist.Delta(jnp.zeros(n)))

    out = ppl.seed(program)(KEY, 3, {"x": jnp.array(2.0)}, scale=jnp.array(5.0))
    np.testing.assert_array_equal(out, [2.0, 2.0, 2.0])


def test_a_program_without_draws():
    assert ppl.seed(lambda: (ppl.deterministic("d", 1.5), 2))(KEY) == (1.5, 2)
    empty = lambda: lax.scan(lambda c, _: (c, uniform()), 0.0, None, length=0)  # noqa: E731
    assert ppl.seed(empty)(KEY)[1].shape == (0,)


def test_old_style_keys_are_keys():
    old = jax.random.PRNGKey(3)
    assert float(ppl.seed(uniform)(old)) == float(ppl.seed(uniform)(jax.random.wrap_key_data(old)))
    np.testing.assert_array_equal(jax.jit(ppl.seed(uniform))(old), ppl.seed(uniform)(old))


@pytest.mark.parametrize("key", [0, jnp.zeros(2), "key", None])
def test_anything_else_is_not_a_key(key):
    with pytest.raises(TypeError, match="first argument of a seeded program is a PRNG key"):
        ppl.seed(uniform)(key)


def factor_in_a_loop():
    return lax.fori_loop(0, 2, lambda i, c: (ppl.factor(c, "deep"), c)[1], 0.0)


@pytest.mark.parametrize(
    ("effect", "name"),
    [
        (lambda: ppl.factor(1.0, "penalty"), "penalty"),
        (lambda: ppl.observe("y", dist.Normal(0.0, 1.0), 0.5), "y"),
        (factor_in_a_loop, "deep"),
    ],
    ids=["factor", "observe", "loop"],
)
def test_weights_are_refused(effect, name):
    def program():
        with ppl.scope("s"):
            effect()
        return uniform()

    with pytest.raises(ppl.UnsupportedError, match=rf"'s/{name}' \(test_seed\.py:\d+\).*ppl\.weigh"):
        ppl.seed(program)(KEY)
