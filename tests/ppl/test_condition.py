from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl

KEY = jax.random.key(0)


def scoped():
    a = ppl.sample("a", dist.Bernoulli(0.5))
    with ppl.scope("block"):
        return lax.cond(a == 1, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), lambda: 0.0)


def test_an_optional_site_under_a_scope_can_be_observed():
    posterior = ppl.condition(scoped, {"block": {"x": 0.5}})
    density = ppl.log_density(posterior)
    assert float(density({"a": 1})) == pytest.approx(np.log(0.5) + stats.norm.logpdf(0.5), rel=1e-5)
    assert float(density({"a": 0})) == -np.inf


def test_the_factor_of_an_optional_observation_names_the_users_line():
    posterior = ppl.condition(lambda b: lax.cond(b, optional, lambda: 0.0), {"x": 0.5})
    with pytest.raises(ppl.UnsupportedError, match=r"'x' \(test_condition\.py:\d+\)"):
        ppl.seed(posterior)(KEY, jnp.array(True))


def optional():
    return ppl.sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("present", [True, False])
def test_a_masked_observation_of_one_address_in_some_batched_branches(present):
    def member(i):
        site = lambda mean: lambda: ppl.sample("x", dist.Normal(mean, 1.0))  # noqa: E731
        return lax.switch(i, [site(0.0), site(5.0), lambda: 0.0])

    masked = ppl.Masked(jnp.full(3, 2.0), jnp.array([True, True, not present]))
    density = ppl.log_density(ppl.condition(jax.vmap(member), {"x": masked}))
    expected = stats.norm.logpdf(2.0) + stats.norm.logpdf(2.0, 5.0) if present else -np.inf
    assert float(density({}, jnp.arange(3))) == pytest.approx(expected, rel=1e-5)


def test_do_leaves_a_site_alone_where_the_given_value_is_absent():
    """Either the site is still drawn there, or the question is refused: the masked value is meaningless."""
    program = lambda b: lax.cond(b, optional, lambda: 0.0)  # noqa: E731
    nothing = {"x": ppl.Masked(jnp.array(1e9), jnp.array(False))}
    try:
        value = ppl.seed(ppl.do(program, nothing))(KEY, jnp.array(True))
    except ppl.BorelaxError:
        return
    assert abs(float(value)) < 1e6


@pytest.mark.parametrize(
    "value", [0.5, np.array(0.5), 0.5 * jnp.ones((), jnp.float32)], ids=["float", "numpy", "jax"]
)
@pytest.mark.parametrize("jit", [False, True])
def test_values_may_be_of_any_kind_of_array(value, jit):
    """Also while JAX is tracing, when what is computed from known values is not known."""
    program = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    expected = pytest.approx(stats.norm.logpdf(0.5), rel=1e-6)
    assert float(ppl.simulate(ppl.condition(program, {"x": value}))(KEY).log_weight) == expected
    density = lambda: ppl.log_density(program)({"x": value})  # noqa: E731
    assert float((jax.jit(density) if jit else density)()) == expected


def test_condition_observes_and_do_sets():
    def model():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        return ppl.sample("b", dist.Normal(a, 1.0))

    observed = ppl.simulate(ppl.condition(model, {"b": 2.0}))(KEY)
    assert list(observed.choices) == ["a"] and float(observed.value) == 2.0
    a = float(observed.choices["a"])
    assert float(observed.log_weight) == pytest.approx(stats.norm.logpdf(2.0, a), rel=1e-5)
    assert float(observed.log_density) == pytest.approx(
        stats.norm.logpdf(2.0, a) + stats.norm.logpdf(a), rel=1e-5
    )
    done = ppl.simulate(ppl.do(model, {"a": 3.0}))(KEY)
    assert list(done.choices) == ["b"] and float(done.log_weight) == 0.0
    assert float(done.log_density) == pytest.approx(
        stats.norm.logpdf(float(done.choices["b"]), 3.0), rel=1e-5
    )


def test_conditioning_on_a_runs_own_choices_reproduces_it():
    def model(xs):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ys = jax.vmap(lambda x: ppl.sample("y", dist.Normal(a * x, 1.0)))(xs)
        zs = lax.scan(lambda c, y: (ppl.sample("z", dist.Normal(c + y, 1.0)),) * 2, a, ys)[1]
        bits = jax.vmap(lambda z: lax.cond(z > 0, optional, lambda: 0.0))(zs)
        return a, ys, zs, bits

    xs = jnp.arange(4.0)
    trace = ppl.simulate(model)(KEY, xs)
    again = ppl.simulate(ppl.condition(model, trace.choices))(jax.random.key(1), xs)
    assert again.choices == {}  # so nothing was drawn
    jax.tree.map(np.testing.assert_array_equal, again.value, trace.value)
    assert float(again.log_density) == pytest.approx(float(trace.log_density), rel=1e-5)
    assert float(again.log_weight) == pytest.approx(float(trace.log_density), rel=1e-5)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"slop": 1.0}, ppl.AddressError, "no site 'slop' .did you mean 'slope'"),
        ({"slope": jnp.zeros(5)}, ppl.ChoiceError, r"'slope' .* has shape \(\).*shape \(5,\)"),
        ({"rate": -1.0}, ppl.ChoiceError, "outside the support of Exponential"),
        ({"count": 1.5}, ppl.ChoiceError, "dtype int32"),
        ({"slope": {"x": 1.0}}, ppl.AddressError, "no site 'slope/x'"),
        ({"seen": 1.0}, ppl.AddressError, "already observed"),
        ({"known": 1.0}, ppl.AddressError, "computed, not sampled"),
    ],
    ids=["mistyped", "shape", "support", "dtype", "scope", "observed", "computed"],
)
@pytest.mark.parametrize("transformation", [ppl.condition, ppl.do], ids=["condition", "do"])
def test_what_does_not_fit_is_refused(transformation, choices, error, message):
    def model():
        ppl.sample("slope", dist.Normal(0.0, 1.0))
        ppl.sample("rate", dist.Exponential(1.0))
        ppl.sample("count", dist.Poisson(1.0))
        ppl.observe("seen", dist.Normal(0.0, 1.0), 0.0)
        ppl.deterministic("known", 1.0)

    if transformation is ppl.do and "rate" in choices:
        pytest.skip("an intervention may set anything")
    with pytest.raises(error, match=message):
        ppl.trace_type(transformation(model, choices))()
