from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl

RECORD = {"x": jnp.zeros(2), "n": jnp.zeros((), int)}


def fill(xs, order=(0, 1, 2)):
    """Writes row t of ``xs`` at slot ``order[t]``."""
    path = ppl.history(3, RECORD)
    for x, slot in zip(xs, order):
        path = ppl.append(path, slot, {"x": x, "n": slot})
    return path


def scanned(xs):
    def step(path, t):
        seen = ppl.recall(path)["x"].sum()
        return ppl.append(path, t, {"x": xs[t] + 0.5 * seen, "n": t}), seen

    path, seen = lax.scan(step, ppl.history(3, RECORD), jnp.arange(3))
    return ppl.recall(path)["x"], seen


def expected_scan(xs):
    rows, seen = np.zeros((3, 2)), []
    for t in range(3):
        seen.append(rows.sum())
        rows[t] = np.asarray(xs)[t] + 0.5 * seen[-1]
    return rows, np.array(seen)


XS = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 1)])
def test_records_are_found_where_they_were_written(jit, order):
    run = lambda xs: ppl.recall(fill(xs, order))  # noqa: E731
    found = (jax.jit(run) if jit else run)(XS)
    rows, numbers = np.zeros((3, 2)), np.zeros(3)
    for t, slot in enumerate(order):
        rows[slot], numbers[slot] = XS[t], slot
    np.testing.assert_array_equal(found["x"], rows)
    np.testing.assert_array_equal(found["n"], numbers)
    assert found["n"].dtype == jnp.int32


def test_the_shape_of_a_record_is_enough():
    empty = ppl.recall(ppl.history(4, jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)))
    assert (empty.shape, empty.dtype) == ((4, 2, 3), jnp.bfloat16) and not empty.any()


def test_recall_selects_along_the_axes_of_a_record():
    rows = ppl.history(2, jnp.zeros((3, 4)))
    rows = ppl.append(rows, 1, jnp.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(ppl.recall(rows, 2), [[0, 0, 0, 0], [8, 9, 10, 11]])
    np.testing.assert_array_equal(ppl.recall(rows, 2, jnp.array(1)), [0, 9])


@pytest.mark.parametrize("length", [0, -1])
def test_a_history_has_a_slot(length):
    with pytest.raises(ValueError, match=f"at least one slot, got length={length}"):
        ppl.history(length, jnp.zeros(()))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_history_in_a_scan(jit):
    rows, seen = (jax.jit(scanned) if jit else scanned)(XS)
    np.testing.assert_allclose(rows, expected_scan(XS)[0])
    np.testing.assert_allclose(seen, expected_scan(XS)[1])


def test_vmap_of_the_record_of_the_slot_and_of_the_index():
    batch = jnp.stack([XS, -XS])
    np.testing.assert_allclose(jax.vmap(scanned)(batch)[0], [expected_scan(x)[0] for x in batch])

    def one(slot, x, i):
        return ppl.recall(ppl.append(ppl.history(3, jnp.zeros(2)), slot, x), i)

    slots, index = jnp.array([2, 0, 1]), jnp.array([0, 1, 1])
    expected = np.zeros((3, 3))
    expected[np.arange(3), slots] = XS[np.arange(3), index]
    np.testing.assert_array_equal(jax.vmap(one)(slots, XS, index), expected)
    np.testing.assert_array_equal(jax.vmap(one, (0, None, None))(slots, XS[0], 1), 2.0 * np.eye(3)[slots])
    np.testing.assert_array_equal(jax.vmap(lambda _: ppl.recall(fill(XS))["x"])(slots), np.stack([XS] * 3))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "remat"])
def test_gradients_go_through_a_history(transform):
    weight = jnp.array([[1.0, -1.0], [2.0, 0.5], [3.0, 1.0]])
    loss = lambda xs: jnp.sum(weight * scanned(xs)[0]) + jnp.sum(scanned(xs)[1] ** 2)  # noqa: E731

    def plain(xs):
        rows, seen = jnp.zeros((3, 2)), []
        for t in range(3):
            seen.append(rows.sum())
            rows = rows.at[t].set(xs[t] + 0.5 * seen[-1])
        return jnp.sum(weight * rows) + jnp.sum(jnp.stack(seen) ** 2)

    np.testing.assert_allclose(jax.grad(transform(loss))(XS), jax.grad(plain)(XS), rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(transform(loss))(XS), jax.grad(plain)(XS), rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(transform(loss)))(XS[None]), jax.grad(plain)(XS)[None], rtol=1e-6
    )


def test_an_overwritten_record_has_no_gradient():
    loss = lambda xs: ppl.recall(fill(xs, (1, 1, 0)))["x"].sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(loss)(XS), [[0, 0], [1, 1], [1, 1]])


def test_a_program_with_a_history():
    def program():
        def step(path, t):
            x = ppl.sample("x", dist.Normal(ppl.recall(path).sum(), 1.0))
            return ppl.append(path, t, x), None

        return ppl.recall(lax.scan(step, ppl.history(4, jnp.zeros(())), jnp.arange(4))[0])

    trace = jax.jit(ppl.simulate(program))(jax.random.key(0))
    np.testing.assert_array_equal(trace.value, trace.choices["x"])
    np.testing.assert_allclose(ppl.log_density(program)(trace.choices), trace.log_density, rtol=1e-5)
    batch = ppl.simulate(lambda: jax.vmap(lambda _: program())(jnp.zeros(3)))(jax.random.key(0))
    np.testing.assert_array_equal(batch.value, batch.choices["x"].T)  # choices have the scan's axis in front
