"""Kernels that adapt together: all chains at once, in the warmup alone, also as parts of others and in parts."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference import Kernel, State
from borelax.inference.particles.tuning_together import tuned_together

KEY = jax.random.key(0)
CHAINS, DRAWS, WARMUP, THIN = 3, 4, 5, 2


def program(*beta):
    return ppl.sample("x", dist.Bernoulli(0.25))


def counting(program) -> Kernel:
    """Counts its steps, and learns how many all chains have taken, with a chain's own place added."""

    def init(trace, *args) -> State:
        return State(trace, {"own": jnp.zeros(()), "all": jnp.zeros(())})

    def step(state: State, *args) -> State:
        return replace(state, memory=state.memory | {"own": state.memory["own"] + 1})

    def adapt(memory, stage):
        return memory | {"own": memory["own"] + 10}

    def adapt_together(memory, stage):
        place = jnp.arange(len(memory["own"]))
        return memory | {"all": place + memory["own"].sum()}

    return Kernel(program, init, step, adapt, adapt_together=adapt_together)


GIBBS = inference.gibbs(program, ["x"])
KERNELS = {
    "alone": (counting(program), lambda memory: memory, 1),
    "in a cycle": (inference.cycle(GIBBS, counting(program)), lambda memory: memory[1], 1),
    "repeated": (inference.repeat(counting(program), 3), lambda memory: memory, 3),
}


@pytest.mark.parametrize("name", KERNELS)
def test_all_chains_are_learnt_from_in_the_warmup(name):
    kernel, part, steps = KERNELS[name]
    draws = inference.mcmc(kernel, DRAWS, WARMUP, CHAINS, THIN)(KEY)
    memory = part(draws.state.memory)
    learnt = (steps + 10) * WARMUP
    assert memory["own"].tolist() == [learnt + steps * DRAWS * THIN] * CHAINS
    assert memory["all"].tolist() == [learnt * CHAINS + i for i in range(CHAINS)]


def test_of_a_mixture_each_learns_what_all_chains_did_by_it():
    kernel = inference.mixture([counting(program), GIBBS, counting(program)], [1, 1, 2])
    first, _, second = inference.mcmc(kernel, 1, WARMUP, CHAINS)(KEY).state.memory
    done = [x["all"][0] - 10 * WARMUP * CHAINS for x in (first, second)]
    for x, steps in zip((first, second), done):
        assert 0 < steps < WARMUP * CHAINS and np.all(x["all"] == x["all"][0] + jnp.arange(CHAINS))
        later = x["own"].sum() - (steps + 10 * WARMUP * CHAINS)
        assert 0 <= later <= CHAINS
    assert sum(done) < WARMUP * CHAINS


def test_at_each_temperature_the_chains_there_learn_together():
    kernel = inference.parallel_tempering(program, counting, [0.25, 1.0])
    memory = inference.mcmc(kernel, 1, WARMUP, CHAINS)(KEY).state.memory.memory
    expected = [[11 * WARMUP * CHAINS + i] * 2 for i in range(CHAINS)]
    assert memory["all"].tolist() == expected


def test_run_in_parts_they_learn_the_same(tmp_path):
    kernel, part, _ = KERNELS["in a cycle"]
    options = (DRAWS, WARMUP, CHAINS, THIN)
    whole, parts = (
        inference.mcmc(kernel, *options, checkpoint=folder, every=3)(KEY) for folder in (None, tmp_path)
    )
    jax.tree.map(np.testing.assert_array_equal, part(parts.state.memory), part(whole.state.memory))
    np.testing.assert_array_equal(parts.value, whole.value)


def test_particles_learn_together_too():
    """In samplers that move a population, by the same function."""
    kernel, _, _ = KERNELS["in a cycle"]
    own = {"own": jnp.arange(6.0), "all": jnp.zeros(6)}
    _, learnt = tuned_together(kernel, ((), own))
    assert learnt["all"].tolist() == [15.0 + i for i in range(6)]
    sampler = inference.tempered_smc(program, 6, counting, [0.5, 1.0], moves=2)
    assert ppl.seed(sampler)(KEY).value.shape == (6,)
