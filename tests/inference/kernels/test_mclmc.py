"""Adjusted microcanonical trajectories: a posterior with all that is learnt, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import z_threshold

from borelax import inference, ppl
from borelax.inference.chains.diagnostics import ess_mean

SCALES = jnp.array([1.0, 10.0, 0.1])


def regression(ys):
    """Conjugate: a posteriori the sites are independent and normal, of very different scales."""
    x = ppl.sample("x", dist.Normal(0.0, SCALES))
    ppl.observe("y", dist.Normal(x, SCALES), ys)
    return x


def test_a_conjugate_posterior_with_all_that_is_learnt_frozen():
    ys = jnp.array([1.0, -5.0, 0.2])
    draws = inference.mcmc(inference.mclmc(regression), num_samples=1000, num_warmup=500)(
        jax.random.key(0), ys
    )
    mean, sd = np.asarray(ys) / 2, np.asarray(SCALES) / np.sqrt(2)
    for i in range(3):
        x = np.asarray(draws.value[..., i], float)
        square = (x - mean[i]) ** 2
        assert abs(x.mean() - mean[i]) < z_threshold(6) * sd[i] / np.sqrt(ess_mean(x))
        assert abs(square.mean() - sd[i] ** 2) < z_threshold(6) * square.std() / np.sqrt(ess_mean(square))
        assert ess_mean(x) > 400
    memory = draws.state.memory
    np.testing.assert_array_equal(draws.info.step_size, np.tile(memory.step_size[:, None], 1000))
    assert np.all(np.abs(np.log(np.asarray(memory.inverse_mass) / sd**2)) < 1)
    assert abs(np.mean(draws.info.num_steps) - 2.0) < 0.1 and np.min(draws.info.num_steps) == 1
    assert 0.5 < np.mean(draws.info.acceptance_rate) < 0.85
    assert draws.summary().warnings == ()


def single():
    return ppl.sample("x", dist.Normal(0.0, 1.0))


def test_a_line_has_no_directions():
    kernel = inference.mclmc(single)
    state = kernel.init(ppl.simulate(single)(jax.random.key(0)))
    with pytest.raises(ppl.UnsupportedError, match="one coordinate in all.*inference.nuts"):
        ppl.seed(kernel)(jax.random.key(1), state)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0.5}, "at least one step on average"),
        ({"num_steps": np.inf}, "at least one step on average"),
        ({"inverse_mass": jnp.eye(3)}, "diagonal"),
        ({"step_size": -1.0}, "step size is a positive number"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        inference.mclmc(regression, **options)
