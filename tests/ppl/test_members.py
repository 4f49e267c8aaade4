from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from borelax import ppl
from borelax.ppl import members
from borelax.ppl.members import Kind, Members, Pool, as_kind, flow, kind_of, map_members, reindex, rows

SLOTS, WIDTH = 3, 2

APPEND, RECALL, RECALL_AT = (
    jax.make_jaxpr(fun)(jnp.zeros((SLOTS, WIDTH)), 0, jnp.zeros(WIDTH)).jaxpr.eqns[-1]
    for fun in (
        lambda h, i, x: members.append_p.bind(h, i, x),
        lambda h, i, x: members.recall_p.bind(h),
        lambda h, i, x: members.recall_p.bind(h, i),
    )
)

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, SLOTS - 1), st.booleans()),
        st.tuples(st.just("reindex"), st.integers(1, 4), st.integers(0, 99)),
    ),
    max_size=8,
)


@settings(max_examples=25)
@given(OPERATIONS)
def test_a_pool_is_what_copying_would_give(operations):
    """Any sequence of appends and reindexings, growing or shrinking, against an array per member."""
    size, clock = 2, 0.0
    pool, copies = as_kind(jnp.zeros((SLOTS, WIDTH)), Kind.POOL, size), np.zeros((size, SLOTS, WIDTH))
    for kind, first, second in operations:
        if kind == "append":
            clock += 1.0
            record = clock + (
                np.arange(size * WIDTH).reshape(size, WIDTH) / 10 if second else np.zeros(WIDTH)
            )
            record = np.asarray(record, np.float32)
            (pool,) = members.evaluate(APPEND, [pool, first, Members(record) if second else record], size)
            copies[:, first] = record
        else:
            index = np.random.default_rng(second).integers(0, size, first)
            size = first
            (pool,) = reindex([pool], jnp.asarray(index))
            copies = copies[index]
        assert isinstance(pool, Pool)
        np.testing.assert_array_equal(rows(pool, size), copies.astype(np.float32))
        column = np.arange(size) % WIDTH
        (found,) = members.evaluate(RECALL_AT, [pool, Members(jnp.asarray(column))], size)
        np.testing.assert_array_equal(found.value, copies.astype(np.float32)[np.arange(size), :, column])
        (found,) = members.evaluate(RECALL_AT, [pool, jnp.array(1)], size)
        np.testing.assert_array_equal(found.value, copies.astype(np.float32)[:, :, 1])


def test_reindexing_a_pool_moves_no_records():
    pool = as_kind(jnp.zeros((SLOTS, WIDTH)), Kind.POOL, 2)
    (moved,) = reindex([pool], jnp.array([1, 1]))
    assert moved.records is pool.records
    np.testing.assert_array_equal(moved.lineage, [[1] * SLOTS] * 2)


@pytest.mark.parametrize("moved", [None, True, False])
def test_reindex(moved):
    shared, own = jnp.arange(3.0), Members(jnp.array([[1, 2], [3, 4], [5, 6]]))
    flag = None if moved is None else jnp.array(moved)
    new_shared, new_own = reindex([shared, own], jnp.array([2, 0, 2]), flag)
    np.testing.assert_array_equal(new_shared, shared)
    expected = own.value if moved is False else [[5, 6], [1, 2], [5, 6]]
    np.testing.assert_array_equal(new_own.value, expected)


def test_every_kind_has_rows():
    buffer = jnp.arange(6.0).reshape(3, 2)
    expected = np.broadcast_to(buffer, (4, 3, 2))
    for kind in Kind:
        value = as_kind(buffer, kind, 4)
        assert kind_of(value) == kind
        np.testing.assert_array_equal(rows(value, 4), expected)
        np.testing.assert_array_equal(rows(as_kind(value, Kind.MEMBERS, 4), 4), expected)


@pytest.mark.parametrize("kind", [Kind.SHARED, Kind.POOL])
def test_kinds_do_not_become_less_general(kind):
    with pytest.raises(AssertionError, match="MEMBERS to"):
        as_kind(Members(jnp.zeros((2, 3))), kind, 2)


def test_map_members():
    values = [jnp.array(10), Members(jnp.array([1, 2])), as_kind(jnp.array([5, 6, 7]), Kind.POOL, 2)]
    out = map_members(lambda a, b, c: {"sum": a + b, "last": c[-1]}, values, 2)
    np.testing.assert_array_equal(out["sum"], [11, 12])
    np.testing.assert_array_equal(out["last"], [7, 7])
    assert map_members(lambda a: a, [jnp.array(1)], 3).shape == (3,)


def test_what_is_shared_is_evaluated_once():
    eqn = jax.make_jaxpr(jnp.matmul)(jnp.eye(2), jnp.eye(2)).jaxpr.eqns[-1]
    (out,) = members.evaluate(eqn, [jnp.eye(2), 2 * jnp.eye(2)], 5)
    assert kind_of(out) == Kind.SHARED and out.shape == (2, 2)
    (out,) = members.evaluate(eqn, [jnp.eye(2), Members(jnp.ones((5, 2, 2)))], 5)
    assert kind_of(out) == Kind.MEMBERS and out.value.shape == (5, 2, 2)
    (out,) = members.evaluate(RECALL, [jnp.ones((SLOTS, WIDTH))], 5)
    assert kind_of(out) == Kind.SHARED


def bit(name="x"):
    return ppl.sample(name, dist.Bernoulli(0.5)) * 1.0


def scan_history(drawn: bool):
    def program(x, h):
        step = lambda h, t: (ppl.append(h, t, bit() if drawn else x), t)  # noqa: E731
        return lax.scan(step, h, jnp.arange(3))

    return program


def late_mixing(x, h):
    """The carry's last part is mixed only after as many rounds as it has parts."""
    step = lambda c, _: ((bit(), c[0], c[1], c[3]), None)  # noqa: E731
    return lax.scan(step, (x, x, x, x), None, length=5)[0]


S, P, M = Kind.SHARED, Kind.POOL, Kind.MEMBERS


@pytest.mark.parametrize(
    ("program", "inputs", "expected"),
    [
        (lambda x, h: (x + 1, ppl.recall(h), ppl.deterministic("d", x)), (S, S), [S, S, S]),
        (lambda x, h: (x + 1, ppl.recall(h), h), (M, P), [M, M, P]),
        (lambda x, h: (bit(), ppl.append(h, 0, bit("y")), ppl.append(h, 0, x)), (S, S), [M, P, S]),
        (lambda x, h: ppl.append(h, 0, x), (S, M), [M]),
        (lambda x, h: ppl.deterministic("d", x), (M, S), [M]),
        (lambda x, h: jax.jit(lambda x: (x, bit()))(x), (S, S), [S, M]),
        (scan_history(False), (S, S), [S, S]),
        (scan_history(True), (S, S), [P, S]),
        (scan_history(False), (M, S), [P, S]),
        (late_mixing, (S, S), [M, M, M, S]),
        (lambda x, h: lax.cond(x > 0, lambda: (bit(), x), lambda: (x, x)), (S, S), [M, S]),
    ],
    ids="shared inputs drawn members-buffer deterministic jit scan-shared scan-drawn scan-members late cond".split(),
)
def test_flow(program, inputs, expected):
    jaxpr = jax.make_jaxpr(program)(jnp.zeros(()), jnp.zeros(3)).jaxpr
    assert flow(jaxpr, list(inputs)) == expected
