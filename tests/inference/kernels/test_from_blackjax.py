"""Algorithms of BlackJAX as kernels: the same transitions, and the same faults."""

from __future__ import annotations

from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)


def program(y):
    x = ppl.sample("x", dist.Gamma(2.0, 1.0))
    z = ppl.sample("z", dist.Bernoulli(0.5))
    p = ppl.sample("p", dist.Dirichlet(jnp.ones(3)))
    ppl.observe("y", dist.Normal(x + z + p[0], 1.0), y)
    return x


Y = jnp.array(2.0)


class Walk(NamedTuple):
    """A state of an algorithm that goes the same way at each step, and of which all can be said."""

    position: dict
    log_density: jax.Array
    age: jax.Array


def walking(log_density) -> blackjax.base.SamplingAlgorithm:
    def init(position, rng_key):
        return Walk(position, log_density(position), jnp.array(0))

    def step(rng_key, state):
        position = {"p": state.position["p"] + 0.125, "x": state.position["x"] - 0.25}
        return Walk(position, log_density(position), state.age + 1), state.age

    return blackjax.base.SamplingAlgorithm(init, step)


def test_the_algorithm_moves_the_positions_of_the_sites_given_the_others():
    kernel = inference.from_blackjax(program, walking, ["x", "p"])
    trace = jax.jit(ppl.simulate(program))(KEY, Y)
    steps = inference.repeat(kernel, 3)
    after = jax.jit(ppl.seed(steps))(KEY, steps.init(trace, Y), Y)
    free = ppl.unconstrain(ppl.condition(program, {"z": trace.choices["z"]}))
    before = free.unconstrain({name: trace.choices[name] for name in "px"}, Y)
    choices = free.constrain({"p": before["p"] + 3 * 0.125, "x": before["x"] - 3 * 0.25}, Y)
    expected = ppl.update(program, choices)(trace, Y).trace
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), after.trace, expected)
    assert int(after.info) == 2  # the third step of one state
    step = jax.jit(ppl.seed(kernel))
    assert int(step(KEY, step(KEY, kernel.init(trace, Y), Y), Y).info) == 0  # alone, each step is the first


def test_in_a_loop_the_density_is_that_of_the_arguments_and_of_the_other_sites():
    kernel = inference.from_blackjax(program, walking, ["x", "p"])
    trace = ppl.simulate(program)(KEY, Y)
    place = ppl.seed(kernel.loop.enter)(KEY, trace, Y)
    state = ppl.seed(kernel.loop.step)(KEY, inference.State(place, (), kernel.init(trace, Y).info), Y)
    free = ppl.unconstrain(ppl.condition(program, {"z": trace.choices["z"]}))
    own = state.trace.own
    np.testing.assert_allclose(own.log_density, free.log_density(own.position, Y), rtol=1e-6)


def skewed():
    return ppl.sample("x", dist.Gamma(2.0, 1.0))


def test_a_step_that_stays_or_leads_nowhere_leaves_every_bit_as_it_is():
    def lost(log_density):
        algorithm = walking(log_density)
        return algorithm._replace(
            step=lambda key, state: (state._replace(position={"x": state.position["x"] / 0.0}), state.age)
        )

    trace = ppl.simulate(skewed)(KEY)
    rejecting = lambda log_density: blackjax.mala(log_density, 1e8)  # noqa: E731
    for make in (lost, rejecting):
        kernel = inference.from_blackjax(skewed, make)
        after = jax.jit(ppl.seed(kernel))(KEY, kernel.init(trace))
        assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), after.trace, trace))


def test_what_is_biased_there_is_found_to_be_so_here():
    budget = semantics.Budget(draws=8_192, batch=1_024)
    for adjusted in (True, False):

        def make(log_density, adjusted=adjusted):
            """BlackJAX's Langevin step; without its acceptance, the proposal."""
            algorithm = blackjax.mala(log_density, 0.6)
            if adjusted:
                return algorithm

            def step(key, state):
                noise = jax.random.normal(key, state.position["x"].shape)
                position = {
                    "x": state.position["x"] + 0.6 * state.logdensity_grad["x"] + jnp.sqrt(1.2) * noise
                }
                return algorithm.init(position), jnp.array(True)

            return algorithm._replace(step=step)

        kernel = inference.from_blackjax(skewed, make)
        assert semantics.leaves_invariant(kernel, skewed, budget=budget)().holds == adjusted


def test_what_is_refused():
    trace = ppl.simulate(program)(KEY, Y)
    with pytest.raises(ppl.UnsupportedError, match=r"'z' .*is discrete.*gibbs\(program, \['z'\]\)"):
        inference.from_blackjax(program, walking).init(trace, Y)
    with pytest.raises(ppl.AddressError, match="did you mean 'x'"):
        inference.from_blackjax(program, walking, ["xx"]).init(trace, Y)
    with pytest.raises(TypeError, match=r"write \['x'\]"):
        inference.from_blackjax(program, walking, "x")
