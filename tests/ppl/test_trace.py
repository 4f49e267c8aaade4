from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl

KEY = jax.random.key(0)


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


@jax.custom_jvp
def with_jvp(x):
    return normal("x", x)


@jax.custom_vjp
def with_vjp(x):
    return normal("x", x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))
with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))


def scan():
    def step(c, x):
        with ppl.scope("in"):
            z = ppl.deterministic("z", normal("x", c + x))
        ppl.observe("y", dist.Normal(z, 1.0), x)
        return z, (z, jax.vmap(lambda m: normal("v", m))(jnp.arange(2.0)))

    return lax.scan(step, 0.0, jnp.arange(3.0))


def branches():
    coin = ppl.sample("coin", dist.Bernoulli(0.5))
    one = lambda: ppl.deterministic("d", normal("x", 5.0))  # noqa: E731
    return lax.cond(coin == 1, one, lambda: normal("y", -5.0) + normal("w")), normal("last")


def batch_of_branches():
    site = lambda i: lambda: normal(f"x{i}", 10.0 * i)  # noqa: E731
    return jax.vmap(lambda i: lax.switch(i, [site(0), site(1), lambda: 0.0]))(jnp.arange(3))


def calls():
    outs = []
    for fun in (with_jvp, with_vjp, jax.checkpoint(with_jvp), jax.jit(lambda x: normal("x", x))):
        with ppl.scope(f"s{len(outs)}"):
            outs.append(fun(1.0))
    return outs


def weights():
    x = ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Normal(1.0, 2.0))
    ppl.factor(0.5 * x)
    lax.while_loop(lambda i: i < 3, lambda i: (ppl.factor(0.25), i + 1)[1], 0)
    return ppl.observe("y", dist.Normal(x, 1.0), 2.0)


def fori_loop():
    return lax.fori_loop(0, 3, lambda i, c: normal("x", c), 0.0)


SHAPES = {
    scan: {"in": {"x": (3,)}, "v": (3, 2)},
    branches: {
        "coin": (),
        "x": ppl.Masked((), ()),
        "y": ppl.Masked((), ()),
        "w": ppl.Masked((), ()),
        "last": (),
    },
    batch_of_branches: {"x0": ppl.Masked((3,), (3,)), "x1": ppl.Masked((3,), (3,))},
    calls: {f"s{i}": {"x": ()} for i in range(4)},
    weights: {"x": ()},
    fori_loop: {"x": (3,)},
}


@pytest.mark.parametrize(("program", "shapes"), SHAPES.items(), ids=lambda p: getattr(p, "__name__", ""))
def test_a_run_is_what_its_choices_say(program, shapes):
    trace = ppl.simulate(program)(KEY)
    assert jax.tree.map(jnp.shape, trace.choices) == shapes
    density = ppl.log_density(program)(trace.choices)
    np.testing.assert_allclose(density, trace.log_density, rtol=1e-5, atol=1e-5)
    again = ppl.simulate(ppl.condition(program, trace.choices))(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, again.value, trace.value)


@pytest.mark.parametrize("program", SHAPES, ids=lambda p: p.__name__)
def test_tracing_does_not_change_the_run(program):
    trace = ppl.simulate(program)(KEY)
    value, log_weight = ppl.seed(ppl.weigh(program))(KEY)
    jax.tree.map(np.testing.assert_array_equal, trace.value, value)
    np.testing.assert_allclose(trace.log_weight, log_weight, rtol=1e-6)
    jitted = jax.jit(ppl.simulate(program))(KEY)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), jitted, trace)
    keys = jnp.stack([jax.random.key(1), KEY])
    batch = jax.tree.map(lambda x: x[1], jax.vmap(ppl.simulate(program))(keys))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), batch, trace)


def test_choices_are_the_values_that_were_drawn():
    last, (zs, vs) = (trace := ppl.simulate(scan)(KEY)).value
    np.testing.assert_array_equal(trace.choices["in"]["x"], zs)
    np.testing.assert_array_equal(trace.choices["v"], vs)
    np.testing.assert_array_equal(trace.deterministic["in"]["z"], zs)
    assert float(last) == float(zs[-1])


@pytest.mark.parametrize("seed", range(4))
def test_only_the_sites_of_the_branch_that_was_taken_are_present(seed):
    trace = ppl.simulate(branches)(jax.random.key(seed))
    coin = bool(trace.choices["coin"])
    present = {name: bool(trace.choices[name].present) for name in ("x", "y", "w")}
    assert present == {"x": coin, "y": not coin, "w": not coin}
    assert bool(trace.deterministic["d"].present) == coin
    taken = ["x"] if coin else ["y", "w"]
    assert float(trace.value[0]) == pytest.approx(sum(float(trace.choices[n].value) for n in taken), rel=1e-6)


def test_both_branches_are_met():
    coins = jax.vmap(lambda key: ppl.simulate(branches)(key).choices["coin"])(
        jax.vmap(jax.random.key)(jnp.arange(4))
    )
    assert set(np.asarray(coins).tolist()) == {0, 1}


def test_weight_and_density_of_a_proposed_site_differ():
    trace = ppl.simulate(weights)(KEY)
    x = trace.choices["x"]
    proposal = dist.Normal(1.0, 2.0).log_prob(x)
    np.testing.assert_allclose(trace.log_density - trace.log_weight, proposal, rtol=1e-5)
    expected = dist.Normal(0.0, 1.0).log_prob(x) + dist.Normal(x, 1.0).log_prob(2.0) + 0.5 * x + 0.75
    np.testing.assert_allclose(trace.log_density, expected, rtol=1e-5)


def test_a_trace_is_a_program_that_can_be_traced():
    outer = ppl.simulate(ppl.trace(weights))(KEY)
    assert float(outer.choices["x"]) == float(outer.value.choices["x"])
    assert float(outer.log_weight) == 0.0
    expected = dist.Normal(1.0, 2.0).log_prob(outer.choices["x"])
    np.testing.assert_allclose(outer.log_density, expected, rtol=1e-5)


def test_a_program_without_sites():
    trace = ppl.simulate(lambda x: x + 1)(KEY, jnp.array(1))
    assert (int(trace.value), trace.choices, trace.deterministic) == (2, {}, {})
    assert float(trace.log_density) == float(trace.log_weight) == 0.0
