"""Where chains start: one of several runs, picked by weight."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from thresholds import assert_mean

from borelax import ppl
from borelax.inference.chains.start import start

KEYS = jax.random.split(jax.random.key(0), 20_000)


def starts(program, **options):
    return jax.jit(jax.vmap(start(program, **options)))(KEYS)


def coin():
    x = ppl.sample("x", dist.Bernoulli(0.5))
    ppl.factor(jnp.where(x == 1, jnp.log(3.0), 0.0))


def test_runs_are_picked_by_weight():
    """Of two: both are one with probability 1/4, one of them with 1/2, and then it is picked with 3/4."""
    assert_mean(starts(coin, among=2).choices["x"], 1 / 4 + 1 / 2 * 3 / 4)
    assert_mean(starts(coin, among=1).choices["x"], 1 / 2)


def test_the_trace_is_that_of_the_run():
    traces = starts(coin)
    density = jax.vmap(lambda x: ppl.log_density(coin)({"x": x}))(traces.choices["x"])
    np.testing.assert_allclose(traces.log_density, density, rtol=1e-6)


def broken():
    """One run in ten is of use."""
    x = ppl.sample("x", dist.Categorical(jnp.array([0.3, 0.3, 0.3, 0.1])))
    ppl.factor(jnp.array([-jnp.inf, jnp.nan, jnp.inf, 0.0])[x])


def test_where_the_density_is_not_finite_no_chain_starts():
    """Unless no run is any good: then the first one is returned."""
    assert jnp.all(starts(broken, most=300).choices["x"] == 3)
    first = starts(broken, among=1, most=1).choices["x"]
    none = starts(broken, among=3, most=3)
    is_bad = ~jnp.isfinite(none.log_density)
    assert_mean(is_bad, 0.9**3)
    np.testing.assert_array_equal(none.choices["x"][is_bad], first[is_bad])
