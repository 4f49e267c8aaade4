"""Chains on several devices: the draws of one, in a process that has two; and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl

SCRIPT = """
import sys, jax, jax.numpy as jnp, numpy as np, numpyro.distributions as dist, pytest
from borelax import inference, ppl
from dataclasses import replace

def model(y):
    x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))
    ppl.observe("y", dist.Normal(x, 0.5), y)
    return x

def adapt_together(memory, stage):  # each takes a share of what the next one has
    return memory * 0.5 + jnp.roll(memory, 1) + jnp.arange(len(memory))

slice = inference.elliptical_slice(model, ["x"])
learning = replace(
    slice,
    init=lambda trace, y: inference.State(trace, jnp.zeros(())),
    step=lambda state, y: replace(slice(replace(state, memory=()), y), memory=state.memory + state.trace.value[0]),
    adapt_together=adapt_together,
)
key, y, devices = jax.random.key(0), jnp.array([0.5, -1.0]), jax.devices()
assert len(devices) == 2
run = lambda **options: inference.mcmc(inference.cycle(learning, slice), 5, 3, 4, 2, **options)
one, two = run()(key, y), run(devices=devices)(key, y)

def assert_same(one, two):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

assert_same(one, two)
assert len(np.unique(one.value[..., 0])) == 20
assert two.value.sharding.device_set == set(devices) and two.value.addressable_shards[0].data.shape == (2, 5, 2)
assert one.value.sharding.device_set == {devices[0]}
moved = jax.device_put(y, devices[1])  # data may be anywhere
assert_same(one, jax.jit(run(devices=devices[::-1], progress=True))(key, y))
assert_same(one, run(devices=devices, checkpoint=sys.argv[1], every=2)(key, moved))
assert_same(one, run(devices=devices, checkpoint=sys.argv[1], every=2)(key, y))
with pytest.raises(inference.CheckpointError, match="not the same devices"):
    run(checkpoint=sys.argv[1], every=2)(key, y)
again = inference.mcmc(slice, 1, 0, 4, devices=devices)(key, y, init=one.state.trace)
assert again.value.shape == (4, 1, 2)
with pytest.raises(ValueError, match="num_chains is a multiple of 2, not 3"):
    inference.mcmc(slice, num_chains=3, devices=devices)
"""


def test_the_draws_of_two_devices_are_those_of_one(tmp_path):
    """Up to rounding, with memories that all chains share; whole, compiled, in parts, and from given starts."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, script, tmp_path / "kept"], env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("13/13") == 1  # one bar, not one for each device


def coin():
    return ppl.sample("x", dist.Bernoulli(0.5))


@pytest.mark.parametrize(
    ("devices", "error", "match"),
    [
        (["cpu"], TypeError, "such as jax.devices.., and 'cpu' is none"),
        (jax.devices()[0], TypeError, "a list of some, such as jax.devices.., not"),
        (np.array([]), ValueError, "one or more"),
        ((device for device in jax.devices()[:1] * 2), ValueError, "each of them once"),
        ([], ValueError, "one or more"),
        (jax.devices()[:1] * 2, ValueError, "each of them once"),
    ],
)
def test_what_is_no_list_of_devices_is_refused(devices, error, match):
    with pytest.raises(error, match=match):
        inference.mcmc(inference.gibbs(coin, ["x"]), devices=devices)
