"""Data that arrive bit by bit weigh as much in all as at once, and each bit as much as it does by hand."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy.stats import norm

from borelax import inference, ppl
from borelax.inference.particles.arriving import Arriving

YS = np.array([0.5, -1.0, 2.0], np.float32)


def walk(scale):
    """Each observation depends on the one before; a factor weighs from the start."""
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))
    ppl.factor(-drift)

    def step(last, _):
        y = ppl.sample("y", dist.Normal(last + drift, scale))
        return y, y

    return lax.scan(step, 0.0, None, length=3)[1]


def terms(drift: float, scale: float):
    return norm.logpdf(YS, np.append(0.0, YS[:-1]) + drift, scale)


SCALE, CHOICES = jnp.array(0.5), {"drift": 0.25}
ARRIVING = Arriving(walk, {"y": YS})


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_target_observes_what_has_arrived(count):
    found = jax.jit(ppl.log_density(ARRIVING.target))(CHOICES, jnp.array(count), SCALE)
    start = norm.logpdf(0.25) - 0.25
    np.testing.assert_allclose(found, start + terms(0.25, 0.5)[:count].sum(), rtol=1e-5)


def test_what_has_not_arrived_is_there_nevertheless():
    trace = ppl.simulate(ARRIVING.target)(jax.random.key(0), 1, SCALE)
    assert trace.value.tolist() == YS.tolist() and list(trace.choices) == ["drift"]


@pytest.mark.parametrize(("before", "after"), [(0, 3), (0, 1), (1, 3), (2, 2)])
def test_what_arrives_weighs_by_itself(before, after):
    found = jax.jit(ARRIVING.log_weight)(CHOICES, jnp.array(before), jnp.array(after), SCALE)
    np.testing.assert_allclose(found, terms(0.25, 0.5)[before:after].sum(), rtol=1e-5)


def copies():
    ppl.sample("y", dist.Normal(ppl.sample("drift", dist.Normal(0.0, 1.0)), 1.0).expand([3]).to_event(1))


def mapped():
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))
    jax.vmap(lambda scale: ppl.sample("y", dist.Normal(drift, scale)))(jnp.ones(3))


def events():
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))
    jax.vmap(lambda _: ppl.sample("y", dist.MultivariateNormal(drift * jnp.ones(2), jnp.eye(2))))(
        jnp.arange(3)
    )


@pytest.mark.parametrize("program", [copies, mapped, events])
def test_wherever_the_first_axis_comes_from(program):
    y = np.stack([YS, YS], 1) if program is events else YS
    found = Arriving(program, {"y": y}).log_weight(CHOICES, 0, 2)
    expected = norm.logpdf(YS[:2], 0.25).sum() * (2 if program is events else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("data", [{}, {"y": 1.0}, {"y": np.zeros(0)}, {"x": np.zeros(2), "y": np.zeros(3)}])
def test_data_of_no_or_of_several_lengths(data):
    with pytest.raises(ppl.ChoiceError, match="data arrive along their first axis"):
        _ = Arriving(walk, data).length


def test_data_of_another_shape():
    with pytest.raises(ppl.ChoiceError, match="'y'.*shape"):
        ppl.log_density(Arriving(walk, {"y": YS[:2]}).target)(CHOICES, 0, SCALE)


def test_data_of_no_site():
    with pytest.raises(ppl.AddressError, match="no site 'z'"):
        ppl.log_density(Arriving(walk, {"z": YS}).target)(CHOICES, 0, SCALE)


def test_one_event_cannot_arrive_in_part():
    program = lambda: ppl.sample("y", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="cannot arrive in part"):
        ppl.log_density(Arriving(program, {"y": YS}).target)({}, 0)


def test_a_density_that_is_only_an_estimate_is_refused():
    def inner():
        ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0))

    def program():
        law = ppl.marginal(inner, "y", partial(inference.importance, n=2))
        jax.vmap(lambda _: ppl.sample("y", law()))(jnp.arange(3))

    with pytest.raises(ppl.UnsupportedError, match="only an estimate"):
        ppl.log_density(Arriving(program, {"y": YS}).target)({}, 0)


def test_data_of_a_branch():
    def program():
        seen = ppl.sample("seen", dist.Bernoulli(0.5))
        draw = lambda: ppl.sample("y", dist.Normal(0.0, 1.0).expand([3]))  # noqa: E731
        lax.cond(seen == 1, draw, lambda: jnp.zeros(3))

    with pytest.raises(ppl.UnsupportedError, match="in some branches only"):
        ppl.log_density(Arriving(program, {"y": YS}).target)({"seen": 1}, 0)
