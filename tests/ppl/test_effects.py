from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats
from thresholds import assert_mean

from borelax import inference, ppl

KEY = jax.random.key(0)


def normal(name, mean=0.0, scale=1.0):
    return ppl.sample(name, dist.Normal(mean, scale))


# ------------------------------------------------------------------ vmap

MEANS = jnp.array([[0.0, 100.0, 200.0], [300.0, 400.0, 500.0]])
SCALES = jnp.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("batched", "shape"),
    [
        (lambda: jax.vmap(lambda m: normal("x", m))(MEANS), (2, 3)),
        (lambda: jax.vmap(lambda m: normal("x", m), in_axes=1)(MEANS), (3, 2)),
        (lambda: jax.vmap(lambda m: normal("x", m), in_axes=-1, out_axes=1)(MEANS), (2, 3)),
        (lambda: jax.vmap(jax.vmap(lambda m: normal("x", m)))(MEANS), (2, 3)),
        (lambda: jax.vmap(jax.vmap(lambda m: normal("x", m)), in_axes=1)(MEANS), (3, 2)),
        (lambda: jax.vmap(jax.vmap(lambda m, s: normal("x", m, s), (0, None)))(MEANS, SCALES), (2, 3)),
        (lambda: jax.vmap(jax.vmap(lambda m, s: normal("x", m, s)), (0, None))(MEANS.T, SCALES), (3, 2)),
        (lambda: jax.vmap(lambda _: normal("x"), axis_size=4, in_axes=None)(0.0), (4,)),
        (lambda: jax.vmap(jax.jit(lambda m: lax.map(lambda m: normal("x", m), m)))(MEANS), (2, 3)),
    ],
    ids=range(9),
)
def test_the_shape_of_a_batched_site(batched, shape):
    out = jax.eval_shape(ppl.seed(batched), KEY)
    assert out.shape == shape
    assert ppl.seed(batched)(KEY).shape == shape


def test_each_element_gets_its_own_arguments():
    """In units of the scale the draws are standard normal, whatever the nesting and the axes."""

    def program():
        inner = jax.vmap(lambda m, s: normal("x", m, s), (0, None))
        return jax.vmap(inner, in_axes=(1, None), out_axes=1)(MEANS, 0.5)

    draws = jax.jit(jax.vmap(ppl.seed(program)))(jax.random.split(KEY, 4000))
    residuals = (np.asarray(draws, np.float64) - np.asarray(MEANS)) / 0.5
    assert_mean(residuals, np.zeros((2, 3)))
    assert_mean(residuals**2, np.ones((2, 3)))


def test_an_unmapped_operand_still_means_independent_draws():
    program = lambda: jax.vmap(lambda _: normal("x"))(jnp.zeros(3))  # noqa: E731
    draws = np.asarray(jax.jit(jax.vmap(ppl.seed(program)))(jax.random.split(KEY, 4000)), np.float64)
    products = np.einsum("ni,nj->nij", draws, draws)
    assert_mean(products, np.eye(3))


def test_arguments_batched_at_different_levels():
    """FIELD bug 1: a plate inside a batch, with as many copies as the plate has members."""
    xs = jnp.array([0.0, 10.0, 20.0])

    def model(xs):
        a = normal("a")
        s = ppl.sample("s", dist.Gamma(8.0, 8.0))
        ys = jax.vmap(lambda x: ppl.sample("ys", dist.Normal(a + x, s)))(xs)
        return a, s, ys

    for copies in (3, 5):
        batch = jax.vmap(lambda _: model(xs))
        program = lambda copies=copies: batch(jnp.zeros(copies))  # noqa: E731
        trace = jax.jit(jax.vmap(ppl.simulate(program)))(jax.random.split(KEY, 4000))
        a, s, ys = trace.value
        assert a.shape == (4000, copies) and ys.shape == (4000, copies, 3)
        np.testing.assert_array_equal(trace.choices["ys"], ys)
        residuals = (ys - a[..., None] - xs) / s[..., None]
        expected = stats.norm.logpdf(np.asarray(residuals)) - np.log(np.asarray(s))[..., None]
        density = stats.norm.logpdf(np.asarray(a)) + stats.gamma.logpdf(np.asarray(s), 8.0, scale=1 / 8)
        np.testing.assert_allclose(
            trace.log_density, density.sum(1) + expected.sum((1, 2)), rtol=1e-4, atol=1e-4
        )
        assert_mean(residuals, np.zeros((copies, 3)))
        assert_mean(residuals**2, np.ones((copies, 3)))
        assert_mean(a * jnp.roll(a, 1, axis=1), np.zeros(copies))


def test_a_factor_under_vmap_counts_once_per_element():
    def program(x):
        jax.vmap(lambda _: ppl.factor(0.5))(jnp.zeros(3))
        jax.vmap(jax.vmap(lambda x: ppl.factor(x), in_axes=None, axis_size=2))(x)
        jax.vmap(lambda _: ppl.observe("y", dist.Normal(0.0, 1.0), 0.0))(jnp.zeros(4))

    x = jnp.array([0.25, 1.0])
    expected = 3 * 0.5 + 2 * (0.25 + 1.0) + 4 * stats.norm.logpdf(0.0)
    assert float(ppl.log_density(program)({}, x)) == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------ un-seeded


def sampling(x=1.0):
    return x * ppl.sample("x", dist.Normal(x, 1.0))


SAMPLING_LINE = inspect.getsourcelines(sampling)[1] + 1


@pytest.mark.parametrize(
    "run",
    [
        sampling,
        jax.jit(sampling),
        jax.vmap(sampling),
        lambda x: jax.grad(sampling)(1.0),
        lambda x: jax.grad(jax.jit(sampling))(1.0),
        lambda x: jax.jvp(sampling, (1.0,), (1.0,)),
        lambda x: jax.vjp(jax.checkpoint(sampling), 1.0),
        lambda x: jax.grad(lambda x: lax.scan(lambda c, _: (sampling(c), None), x, None, length=2)[0])(1.0),
        lambda x: lax.scan(lambda c, _: (c, sampling()), 0.0, None, length=2),
    ],
    ids=["eager", "jit", "vmap", "grad", "grad of jit", "jvp", "vjp of remat", "grad of scan", "scan"],
)
def test_an_unseeded_effect_is_refused_with_its_line(run):
    with pytest.raises(ppl.UnseededError, match=rf"'x' \(test_effects\.py:{SAMPLING_LINE}\).*ppl\.seed"):
        run(jnp.ones(2))


@pytest.mark.parametrize(
    "effect",
    [
        lambda: ppl.factor(1.0),
        lambda: ppl.observe("y", dist.Normal(0.0, 1.0), 0.5),
        lambda: ppl.deterministic("d", 1.0),
        lambda: ppl.sample("x", dist.Normal(0.0, 1.0)),
    ],
    ids=["factor", "observe", "deterministic", "sample"],
)
@pytest.mark.parametrize("transformation", [lambda f: f, jax.vmap], ids=["eager", "vmap"])
def test_an_unseeded_effect_whose_result_is_not_used_is_refused_too(effect, transformation):
    # Under jit, JAX drops an equation that nothing uses before it is lowered, and nobody can object.
    def program(x):
        effect()
        return x

    with pytest.raises(ppl.UnseededError, match="test_effects"):
        transformation(program)(jnp.ones(2))


# ------------------------------------------------------------------ what is checked when the site is met


def test_a_value_of_another_shape_cannot_be_observed():
    with pytest.raises(ValueError, match=r"shape \(5,\), but Normal has shape \(\)"):
        ppl.log_density(lambda: ppl.observe("y", dist.Normal(0.0, 1.0), jnp.zeros(5)))({})


def test_a_factor_is_a_scalar():
    with pytest.raises(ValueError, match=r"shape \(2,\).*must be a scalar"):
        ppl.log_density(lambda: ppl.factor(jnp.zeros(2)))({})


def test_a_twist_is_a_scalar():
    with pytest.raises(ValueError, match=r"twist 'twist' at test_effects.*shape \(2,\).*must be a scalar"):
        ppl.log_density(lambda: ppl.twist(jnp.zeros(2)))({})


def twisted():
    x = normal("x")
    ppl.twist(x, "of x")
    ppl.twist(2.0 * x)
    jax.vmap(ppl.twist)(jnp.arange(3.0))
    return lax.cond(x > 0, lambda: ppl.twist(x), lambda: None), x


def test_a_twist_is_no_weight():
    """In no transformation: a program with twists is one that can be run as it is."""
    assert ppl.seed(twisted)(KEY)[1] == ppl.seed(lambda: normal("x"))(KEY)
    trace = ppl.simulate(twisted)(KEY)
    assert list(trace.choices) == ["x"] and trace.log_weight == 0.0 and trace.deterministic == {}
    assert trace.log_density == ppl.log_density(lambda: normal("x"))({"x": trace.choices["x"]})
    assert list(ppl.trace_type(twisted)()) == ["x"]
    at_one = ppl.condition(twisted, {"x": 1.0})
    assert ppl.seed(ppl.weigh(at_one))(KEY)[1] == ppl.log_density(lambda: normal("x"))({"x": 1.0})
    objective = lambda p: ppl.twist(p) or ppl.sample("x", dist.Normal(p, 1.0))  # noqa: E731
    assert ppl.seed(inference.expectation_grad(objective))(KEY, 0.5) == 1.0
    law = ppl.marginal(twisted, "x", inference.enumerate)
    density = ppl.log_density(lambda: ppl.sample("y", law()))({"y": 1.0})
    assert density == ppl.log_density(lambda: normal("x"))({"x": 1.0})


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_addresses_are_non_empty_strings_without_slashes(name):
    with pytest.raises(ValueError, match="non-empty string"):
        ppl.seed(lambda: ppl.sample(name, dist.Normal(0.0, 1.0)))(KEY)


@pytest.mark.parametrize("keyword", ["d", "proposal"])
def test_only_distributions_are_sampled(keyword):
    arguments = {"d": dist.Normal(0.0, 1.0), keyword: 3.0}
    with pytest.raises(TypeError, match=rf"site 'x' at test_effects.*{keyword} must be a numpyro"):
        ppl.seed(lambda: ppl.sample("x", **arguments))(KEY)


@pytest.mark.parametrize(
    "proposal",
    [dist.Normal(jnp.zeros(3), 1.0), dist.Bernoulli(0.5), dist.Normal(jnp.zeros(1), 1.0).to_event(1)],
    ids=["shape", "discrete", "event"],
)
def test_a_proposal_of_another_type_is_refused(proposal):
    """Its density would be of another kind, and its draws of another shape."""
    program = lambda: ppl.sample("x", dist.Normal(0.0, 1.0), proposal=proposal)  # noqa: E731
    with pytest.raises((ppl.BorelaxError, ValueError, TypeError), match=r"'x'.*proposal"):
        ppl.seed(ppl.weigh(program))(KEY)


# ------------------------------------------------------------------ scopes


def test_scopes_nest_and_one_compiled_function_gets_an_address_per_scope():
    @jax.jit
    def block(x):
        with ppl.scope("in"):
            return normal("x", x)

    def program():
        with ppl.scope("a"):
            first = block(0.0)
        with ppl.scope("b"), ppl.scope("c"):
            block(first)
        with ppl.scope("vmap"):
            jax.vmap(block)(jnp.zeros(2))
        with ppl.scope("scan"):
            lax.scan(lambda c, x: (c, jax.vmap(jax.checkpoint(block))(x)), 0.0, jnp.zeros((3, 2)))
        with ppl.scope("cond"):
            jax.vmap(lambda i: lax.cond(i, lambda: block(1.0), lambda: block(2.0)))(jnp.array([True, False]))
        return first

    trace = ppl.simulate(program)(KEY)
    assert jax.tree.map(jnp.shape, trace.choices) == {
        "a": {"in": {"x": ()}},
        "b": {"c": {"in": {"x": ()}}},
        "vmap": {"in": {"x": (2,)}},
        "scan": {"in": {"x": (3, 2)}},
        "cond": {"in": {"x": (2,)}},
    }
    assert float(ppl.log_density(program)(trace.choices)) == pytest.approx(float(trace.log_density), rel=1e-5)


def test_an_exception_leaves_no_scope_behind():
    def failing():
        with ppl.scope("left"):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        ppl.simulate(failing)(KEY)
    assert list(ppl.simulate(lambda: normal("x"))(KEY).choices) == ["x"]


def test_threads_have_scopes_of_their_own():
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    barrier = Barrier(4)

    def run(i):
        def program():
            with ppl.scope(f"thread{i}"):
                barrier.wait(timeout=60)
                x = normal("x")
                barrier.wait(timeout=60)
            return x

        return ppl.trace_type(program)()

    with ThreadPoolExecutor(4) as pool:
        types = list(pool.map(run, range(4)))
    assert [list(t) for t in types] == [[f"thread{i}"] for i in range(4)]
    assert all(list(t[f"thread{i}"]) == ["x"] for i, t in enumerate(types))


def test_two_sites_of_one_address_are_refused():
    def program():
        normal("x")
        normal("x")

    with pytest.raises(ppl.AddressError, match=r"two sites have the address 'x'.*ppl\.scope"):
        ppl.seed(program)(KEY)


def test_an_address_is_not_also_a_scope():
    def program():
        normal("x")
        with ppl.scope("x"):
            normal("y")

    with pytest.raises(ppl.AddressError, match=r"'x' is a site .* and also the scope"):
        ppl.seed(program)(KEY)


def test_the_dtype_of_a_site_follows_the_precision_in_force():
    """Abstract values may be cached, but not across ``enable_x64``."""
    probs = jnp.array([0.25, 0.75], jnp.float32)

    def program():
        return ppl.sample("x", dist.Bernoulli(probs))

    def both():
        return ppl.trace_type(program)()["x"].dtype, ppl.seed(program)(KEY).dtype

    assert both() == (jnp.int32, jnp.int32)
    with jax.enable_x64(True):
        assert both() == (jnp.int64, jnp.int64)
    assert both() == (jnp.int32, jnp.int32)


def test_deterministic_keeps_the_structure_of_its_value():
    def program(x):
        out = ppl.deterministic("d", {"twice": 2 * x, "pair": (x, x + 1)})
        assert set(out) == {"twice", "pair"}
        ppl.deterministic("plain", 3 * x)
        return out

    trace = ppl.simulate(program)(KEY, jnp.array(3.0))
    assert jax.tree.map(float, trace.deterministic) == {"d": {"twice": 6.0, "pair": (3.0, 4.0)}, "plain": 9.0}
    assert jax.tree.map(float, trace.value) == {"twice": 6.0, "pair": (3.0, 4.0)}
