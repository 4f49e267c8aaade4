from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics
from borelax.ppl import AddressError, UnsupportedError

DESIGN = np.random.default_rng(0).normal(size=(5, 2))
YS = np.random.default_rng(1).normal(size=5)


def line(shown=lambda weights: None):
    def program():
        scale = ppl.sample("scale", dist.HalfNormal(1.0))
        weights = ppl.sample("weights", dist.Normal(0.0, 2.0).expand([2]))
        ppl.observe("y", dist.Normal(DESIGN @ weights, scale).to_event(1), YS)
        return scale, shown(weights)

    return program


def marginal_line():
    """The observations of a line are jointly Gaussian."""
    scale = ppl.sample("scale", dist.HalfNormal(1.0))
    covariance = 4.0 * DESIGN @ DESIGN.T + scale**2 * jnp.eye(5)
    ppl.observe("y", dist.MultivariateNormal(jnp.zeros(5), covariance), YS)
    return scale, None


def test_what_is_left_is_the_marginal_with_its_gradients():
    def density(program):
        return jax.jit(jax.vmap(jax.value_and_grad(lambda scale: ppl.log_density(program)({"scale": scale}))))

    scales = np.array([0.3, 1.0, 2.5])
    with jax.enable_x64(True):
        expected = density(marginal_line)(scales)
        found = density(inference.collapse(line(), "weights"))(scales)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_site_is_gone_and_all_else_is_returned():
    trace = ppl.simulate(inference.collapse(line(), "weights"))(jax.random.key(0))
    assert list(trace.choices) == ["scale"]
    assert trace.value == (trace.choices["scale"], None)


def test_all_sites_can_go():
    def program():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Gamma(2.0, 1.0))
        ppl.observe("x", dist.Normal(a, 1.0), 1.0)
        ppl.observe("y", dist.Exponential(b), 2.0)

    nothing = inference.collapse(inference.collapse(program, "a"), "b")
    expected = np.log(2 * 1.0**2 / 3.0**3) + dist.Normal(0.0, np.sqrt(2.0)).log_prob(1.0)
    np.testing.assert_allclose(ppl.log_density(nothing)({}), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shown", "what"),
    [
        (lambda weights: weights**2, "what the program returns"),
        (
            lambda weights: ppl.deterministic("first", weights[0]) * 0,
            r"deterministic 'first' \(test_collapse.py:",
        ),
    ],
)
def test_a_value_that_is_shown_is_refused(shown, what):
    with pytest.raises(UnsupportedError, match=f"'weights'.*cannot be integrated out, because {what}"):
        ppl.trace_type(inference.collapse(line(shown), "weights"))()


def test_what_has_no_closed_form_is_refused():
    with pytest.raises(UnsupportedError, match="'scale'.*has a HalfNormal"):
        ppl.trace_type(inference.collapse(line(), "scale"))()
    with pytest.raises(AddressError, match="did you mean 'weights'"):
        ppl.trace_type(inference.collapse(line(), "weight"))()


def emissions(ys):
    """A chain with unknown emission probabilities: which of them a symbol comes from is drawn."""
    rate = ppl.sample("rate", dist.Beta(2.0, 1.5).expand([2]))

    def step(state, y):
        state = ppl.sample("state", dist.Bernoulli(jnp.array([0.25, 0.625])[state]))
        ppl.observe("y", dist.Bernoulli(rate[state]), y)
        return state, state

    return jax.lax.scan(step, 0, ys)[1]


def test_it_is_the_sum_by_quadrature():
    ys = jnp.array([1, 0])
    expected = semantics.meaning(emissions, quadrature={"rate": 33})(ys)
    found = semantics.meaning(inference.collapse(emissions, "rate"))(ys)
    assert len(found) == 4
    for value, weight in found:
        np.testing.assert_allclose(weight, expected.expectation(lambda x, v=value: np.all(x == v)), rtol=1e-9)
