"""Kernels made of kernels keep what their parts keep, exactly; and do what their names say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from moves import imbalance, irreversibility, moves

from borelax import inference, ppl


def bit(name, p=0.5):
    return ppl.sample(name, dist.Bernoulli(p))


def model(p):
    x = bit("x", p)
    y = jax.lax.cond(x == 1, lambda: bit("y", 0.75), lambda: 0)
    ppl.factor(0.5 * y + 0.25 * bit("z", 0.25 + 0.25 * y))


def propose_z(choices, p):
    bit("z", 0.25 + 0.5 * p * choices["z"])


P = jnp.array(0.375)
X = inference.mh(model, ppl.select("x"))
Z = inference.mh(model, propose_z)
G = inference.gibbs(model, [("x", "y")])

MIXTURE = inference.mixture([X, Z], [1, 3])
KERNELS = {
    "cycle": inference.cycle(X, Z, G),
    "nested": inference.mixture([inference.cycle(Z, X, Z), inference.repeat(Z, 2)], [0.5, 0.5]),
}


@pytest.mark.parametrize("name", family(KERNELS, every=2))
def test_the_target_is_kept(name):
    assert imbalance(moves(KERNELS[name], P)) < 1e-10


def matrix(kernel) -> np.ndarray:
    """Transition probabilities between choices, in the order of their spelling."""
    mass = moves(kernel, P)
    names = sorted({x for x, _ in mass})
    table = np.array([[mass.get((x, y), 0.0) for y in names] for x in names])
    return table / table.sum(1, keepdims=True)


def test_they_are_products_sums_and_powers_of_matrices():
    x, z = matrix(X), matrix(Z)
    np.testing.assert_allclose(matrix(inference.cycle(X, Z)), x @ z, atol=1e-10)
    np.testing.assert_allclose(matrix(MIXTURE), 0.25 * x + 0.75 * z, atol=1e-10)
    np.testing.assert_allclose(matrix(inference.repeat(Z, 3)), z @ z @ z, atol=1e-10)
    assert np.abs(x @ z - z @ x).max() > 1e-3  # the order matters
    assert irreversibility(moves(MIXTURE, P)) < 1e-10


def broken() -> inference.Kernel:
    """Accepts whatever is proposed."""

    def step(state, *args):
        with ppl.scope("broken"):
            edit = ppl.regenerate(model, ppl.select("x"))(state.trace, *args)
        return inference.State(edit.trace, state.memory, state.info)

    return inference.Kernel(model, lambda trace, *args: inference.State(trace), step)


def test_a_broken_part_is_seen_in_the_whole():
    assert imbalance(moves(inference.mixture([Z, broken()], [1, 1]), P)) > 1e-3


def counting() -> inference.Kernel:
    """Stays, and counts its steps in its memory."""

    def step(state, *args):
        return inference.State(state.trace, state.memory + 1, state.memory)

    return inference.Kernel(
        model, lambda trace, *args: inference.State(trace, jnp.array(0), jnp.array(-1)), step
    )


def test_each_part_has_its_own_memory_and_info():
    trace = ppl.simulate(model)(jax.random.key(0), P)

    def run(kernel):
        return jax.jit(ppl.seed(kernel))(jax.random.key(1), kernel.init(trace, P), P)

    state = run(inference.repeat(inference.cycle(counting(), inference.repeat(counting(), 3), X), 4))
    assert state.memory == (4, 12, ())
    assert state.info[:2] == (3, 11) and state.info[2].accepted.dtype == bool

    state = run(inference.repeat(inference.mixture([counting(), counting()], [1, 2]), 300))
    first, second = map(int, state.memory)
    assert first + second == 300 and abs(first - 100) < 45  # 5.5 standard deviations
    assert state.info == (first - 1, second - 1)


def test_many_chains():
    """Under vmap the kernels of a mixture are selected per chain: each chain is as it is alone."""
    kernel = inference.repeat(MIXTURE, 4)
    keys = jax.random.split(jax.random.key(0), 16)
    traces = jax.vmap(lambda key: ppl.simulate(model)(key, P))(keys)
    run = jax.jit(lambda key, trace: ppl.seed(kernel)(key, kernel.init(trace, P), P).trace.choices["z"])
    together = jax.vmap(run)(keys, traces)
    alone = [run(key, jax.tree.map(lambda x, i=i: x[i], traces)) for i, key in enumerate(keys)]
    assert together.tolist() == [int(z) for z in alone]


def another(p):
    bit("x", p)


def test_what_is_refused():
    other = inference.mh(another, ppl.select("x"))
    with pytest.raises(inference.KernelError, match="0 and 1 have different targets, model and another"):
        inference.cycle(X, other)
    with pytest.raises(ppl.BorelaxError, match="different targets"):
        inference.mixture([X, other], [1, 1])
    with pytest.raises(ValueError, match="no kernel"):
        inference.cycle()
    with pytest.raises(inference.KernelError, match="number 1 is none"):
        inference.cycle(X, model)
    for weights in ([1], [1, 0], [1, -1], [1, float("nan")], [[1, 1]]):
        with pytest.raises(inference.KernelError, match="2 positive weights"):
            inference.mixture([X, Z], weights)
    for n in (0, -1, 1.5):
        with pytest.raises(inference.KernelError, match="positive number of times"):
            inference.repeat(X, n)
