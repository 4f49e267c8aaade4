"""Kernels as algorithms of BlackJAX, under its own loop."""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import z_threshold

from borelax import inference, ppl
from borelax.inference.chains.diagnostics import ess_mean

KEY = jax.random.key(0)
Y = jnp.array(1.5)


def program(y):
    """A posteriori x is normal: z has no say in it."""
    ppl.sample("z", dist.Bernoulli(0.25))
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0), y)


def test_its_steps_are_those_of_the_kernel():
    kernel = inference.cycle(inference.mh(program, ppl.select("x")), inference.gibbs(program, ["z"]))
    algorithm = inference.to_blackjax(kernel, Y)
    state = jax.jit(algorithm.init)({"x": 0.3, "z": 1})
    trace = state.state.trace
    assert state.position == {"x": jnp.float32(0.3), "z": 1}
    np.testing.assert_allclose(trace.log_density, ppl.log_density(program)(state.position, Y), rtol=1e-6)
    step = jax.jit(algorithm.step)
    own = jax.jit(lambda key, state: ppl.seed(kernel)(jax.random.split(key)[0], state, Y))
    expected = state.state
    for key in jax.random.split(KEY, 5):
        state, info = step(key, state)
        expected = own(key, expected)
        jax.tree.map(np.testing.assert_array_equal, (state.state, info), (expected, expected.info))
        jax.tree.map(np.testing.assert_array_equal, state.position, expected.trace.choices)


def test_blackjax_draws_with_it():
    kernel = inference.nuts(program, ["x"], step_size=0.8, max_doublings=3)
    algorithm = inference.to_blackjax(kernel, Y)
    run = blackjax.util.run_inference_algorithm
    _, (states, infos) = run(KEY, algorithm, 4000, initial_position={"x": jnp.array(0.0), "z": jnp.array(1)})
    x = np.asarray(states.position["x"], float)
    assert abs(x.mean() - 0.75) < z_threshold(2) * np.sqrt(0.5 / ess_mean(x[None]))
    square = (x - 0.75) ** 2
    assert abs(square.mean() - 0.5) < z_threshold(2) * square.std() / np.sqrt(ess_mean(square[None]))
    assert np.all(np.asarray(states.position["z"]) == 1) and infos.num_steps.shape == (4000,)


@pytest.mark.parametrize("position", [{"x": 0.0}, {"x": 0.0, "zz": 1, "z": 1}])
def test_a_position_is_all_choices_and_nothing_else(position):
    algorithm = inference.to_blackjax(inference.gibbs(program, ["z"]), Y)
    with pytest.raises(ppl.AddressError):
        algorithm.init(position)
