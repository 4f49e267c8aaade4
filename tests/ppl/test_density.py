from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


def step(x):
    """One step of a walk: what it returns depends on the order in which steps are taken."""
    return 2.0 * x + normal("z", x)


@jax.custom_jvp
def with_jvp(x):
    return step(x)


@jax.custom_vjp
def with_vjp(x):
    return step(x)


@jax.custom_batching.custom_vmap
def with_vmap(x):
    return step(x)


with_vmap.def_vmap(lambda size, batched, x: (jax.vmap(step)(x), batched[0]))


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0]))
with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))

ZS = np.array([0.5, -1.0, 2.0])


def walk_density(zs) -> float:
    total, x = 0.0, 1.0
    for z in zs:
        total += stats.norm.logpdf(z, x)
        x = 2.0 * x + z
    return total + stats.norm.logpdf(0.0, x)


def one_by_one(*funs):
    def program():
        x = 1.0
        for i, fun in enumerate(funs):
            with ppl.scope(f"s{i}"):
                x = fun(x)
        ppl.observe("end", dist.Normal(x, 1.0), 0.0)

    return program, {f"s{i}": {"z": z} for i, z in enumerate(ZS[: len(funs)])}


def looped(loop):
    def program():
        ppl.observe("end", dist.Normal(loop(1.0), 1.0), 0.0)

    return program, {"z": ZS}


WALKS = {
    "straight": one_by_one(step, step, step),
    "calls": one_by_one(jax.jit(step), jax.checkpoint(step), jax.jit(jax.checkpoint(step))),
    "custom": one_by_one(with_jvp, with_vjp, with_vmap),
    "scan": looped(lambda x: lax.scan(lambda x, _: (step(x), None), x, None, length=3)[0]),
    "fori_loop": looped(lambda x: lax.fori_loop(0, 3, lambda i, x: step(x), x)),
    "cond": one_by_one(
        lambda x: lax.cond(x > 0, step, lambda x: x, x),
        lambda x: lax.switch(jnp.array(2), [lambda x: x, lambda x: x, step], x),
    ),
    "cond in scan": looped(
        lambda x: lax.scan(
            lambda x, _: (lax.cond(x > 99, lambda x: step(-x), step, x), None), x, None, length=3
        )[0]
    ),
}


@pytest.mark.parametrize(("program", "choices"), WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_the_density_of_a_walk(program, choices, jit):
    density = ppl.log_density(program)
    expected = walk_density(ZS[: len(jax.tree.leaves(choices)) if "z" not in choices else 3])
    assert float((jax.jit(density) if jit else density)(choices)) == pytest.approx(expected, rel=1e-5)


def test_a_reversed_scan_reads_its_choices_backwards():
    def program():
        x, _ = lax.scan(lambda x, _: (step(x), None), 1.0, None, length=3, reverse=True)
        ppl.observe("end", dist.Normal(x, 1.0), 0.0)

    assert float(ppl.log_density(program)({"z": ZS[::-1].copy()})) == pytest.approx(
        walk_density(ZS), rel=1e-5
    )


def test_a_while_loop_of_factors():
    def program():
        n = ppl.sample("n", dist.Poisson(2.0))
        body = lambda i: (ppl.factor(0.25 * i), i + 1)[1]  # noqa: E731
        return lax.while_loop(lambda i: i < n, body, 0)

    for n in range(5):
        expected = stats.poisson.logpmf(n, 2.0) + 0.25 * sum(range(n))
        assert float(ppl.log_density(program)({"n": n})) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("program", ["straight", "calls", "scan", "fori_loop", "cond in scan"])
def test_the_gradient_of_a_density(program):
    program, choices = WALKS[program]
    gradient = jax.grad(ppl.log_density(program))(
        jax.tree.map(lambda z: jnp.asarray(z, jnp.float32), choices)
    )
    expected = []
    for i in range(3):
        shift = 1e-5 * np.eye(3)[i]
        expected.append((walk_density(ZS + shift) - walk_density(ZS - shift)) / 2e-5)
    np.testing.assert_allclose(np.ravel(jax.tree.leaves(gradient)), expected, rtol=1e-4)


def test_proposals_and_deterministic_values_do_not_count():
    def program():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Normal(9.0, 1.0))
        ppl.deterministic("d", x)

    assert float(ppl.log_density(program)({"x": 1.0})) == pytest.approx(stats.norm.logpdf(1.0), rel=1e-6)


@pytest.mark.parametrize(
    ("d", "value"),
    [
        (dist.Exponential(1.0), -1.0),
        (dist.Uniform(2.0, 3.0), 1.0),
        (dist.Bernoulli(0.5), 2),
        (dist.Categorical(jnp.ones(3) / 3), 3),
        (dist.Categorical(jnp.ones(3) / 3), -1),
        (dist.Dirichlet(jnp.ones(2)), jnp.array([0.5, 0.75])),
        (dist.Exponential(jnp.ones(2)), jnp.array([1.0, -1.0])),
    ],
    ids=["exponential", "uniform", "bernoulli", "above", "below", "simplex", "one of two"],
)
def test_outside_the_support(d, value):
    """An error where the value is known, density zero where it is traced."""
    program = lambda: ppl.sample("x", d)  # noqa: E731
    with pytest.raises(ppl.ChoiceError, match=r"'x' \(test_density.*outside the support"):
        ppl.log_density(program)({"x": value})
    assert float(jax.jit(ppl.log_density(program))({"x": value})) == -np.inf


def test_the_support_may_depend_on_other_choices():
    def program():
        a = ppl.sample("a", dist.Uniform(0.0, 1.0))
        return ppl.sample("b", dist.Uniform(0.0, a))

    density = jax.jit(ppl.log_density(program))
    assert float(density({"a": 0.5, "b": 0.25})) == pytest.approx(np.log(2.0), rel=1e-6)
    assert float(density({"a": 0.25, "b": 0.5})) == -np.inf


def test_densities_can_be_batched():
    program = lambda s: ppl.sample("x", dist.Normal(0.0, s))  # noqa: E731
    xs, scales = np.linspace(-1, 1, 4), np.linspace(1, 2, 4)
    batch = jax.vmap(ppl.log_density(program))({"x": jnp.asarray(xs)}, jnp.asarray(scales))
    np.testing.assert_allclose(batch, stats.norm.logpdf(xs, 0.0, scales), rtol=1e-5)
    together = ppl.log_density(jax.vmap(program))({"x": jnp.asarray(xs)}, jnp.asarray(scales))
    np.testing.assert_allclose(together, stats.norm.logpdf(xs, 0.0, scales).sum(), rtol=1e-5)


def test_an_observed_literal_against_bounds_that_are_drawn():
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.observe("y", dist.Uniform(0.0, jnp.exp(x)), 1.0)

    trace = ppl.simulate(model)(jax.random.key(0))
    inside = trace.choices["x"] >= 0
    assert (trace.log_density > -jnp.inf) == inside
    assert ppl.log_density(model)({"x": 0.5}) > -jnp.inf
    assert ppl.log_density(model)({"x": -0.5}) == -jnp.inf
