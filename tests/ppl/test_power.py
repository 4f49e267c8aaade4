from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from borelax import ppl
from borelax.ppl.power import Power


def test_each_element_has_its_power():
    values, powers = np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.5, 0.0])
    program = lambda: ppl.observe("y", Power(dist.Exponential(jnp.full(3, 2.0)), powers), values)  # noqa: E731
    expected = (powers * stats.expon.logpdf(values, scale=0.5)).sum()
    assert float(ppl.log_density(program)({})) == pytest.approx(expected, rel=1e-6)


def test_to_the_power_zero_everything_is_one():
    impossible = Power(dist.Categorical(probs=jnp.array([1.0, 0.0])).expand([2]), jnp.array([0.0, 1.0]))
    assert impossible.log_prob(jnp.array([1, 0])).tolist() == [0.0, 0.0]


def test_the_support_is_that_of_the_base():
    program = lambda: ppl.observe("y", Power(dist.Exponential(1.0), jnp.array(0.5)), -1.0)  # noqa: E731
    assert float(ppl.log_density(program)({})) == -np.inf


def test_events_have_one_power():
    d = Power(dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1), jnp.array([1.0, 2.0]))
    assert (d.batch_shape, d.event_shape) == ((2,), (3,))
    copied = jax.tree.map(jnp.asarray, d)  # it goes through jaxprs as a pytree
    expected = 3 * stats.norm.logpdf(0.0) * np.array([1.0, 2.0])
    np.testing.assert_allclose(copied.log_prob(jnp.zeros((2, 3))), expected, rtol=1e-6)
