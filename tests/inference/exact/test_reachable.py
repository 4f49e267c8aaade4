"""How many states a scan can carry: never fewer than it does carry."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.inference.exact.reachable import count_states, fixed
from borelax.ppl import compat
from borelax.ppl.staging import stage


def bit(name="x"):
    return ppl.sample(name, dist.Bernoulli(0.5))


def scanned(step, init, length=6, inputs=None):
    """How many states the scan of a step is found to carry, its inputs being as they are now."""

    def program(*xs):
        return lax.scan(step, init, *xs, length=None if xs else length)[0]

    staged = stage(program, *([] if inputs is None else [inputs]))
    (eqn,) = (eqn for eqn in staged.jaxpr.jaxpr.eqns if eqn.primitive.name == "scan")
    outer = staged.jaxpr.jaxpr
    known = dict(zip([*outer.constvars, *outer.invars], [*staged.jaxpr.consts, *staged.leaves]))
    return count_states(eqn, [compat.read(known, v) for v in eqn.invars], 1)


TABLE = np.array([[1, 0], [2, 0], [3, 0], [3, 3]])


@pytest.mark.parametrize(
    ("step", "init", "number"),
    [
        (lambda x, _: (bit(), None), 0, 2),
        (lambda x, _: (ppl.sample("x", dist.Categorical(jnp.ones(5) / 5)), None), 0, 5),
        (lambda x, _: (ppl.sample("x", dist.Bernoulli(0.5).expand([3])), None), jnp.zeros(3, int), 8),
        (lambda x, _: (jnp.asarray(TABLE)[x, bit()], None), 0, 4),
        (lambda x, _: ((x + bit()) % 3, None), 0, 3),
        (lambda x, _: (x + bit(), None), 0, 7),  # one more after each of six steps
        (lambda x, _: ((bit(), x[0]), None), (0, 0), 4),
        (lambda x, _: ((x[0] + 1, bit()), None), (0, 0), 2),  # a counter is the same for all members
        (lambda x, _: (lax.cond(bit() == 1, lambda: bit("y") + 2, lambda: x), None), 0, 3),
        (lambda x, _: (lax.fori_loop(0, 3, lambda i, y: (y * 2 + bit()) % 4, x), None), 0, 4),
        (lambda x, _: (jnp.where(bit() == 1, 0.5, -0.5 * x), None), 0.0, None),
        (lambda x, _: ((bit(), ppl.sample("z", dist.Bernoulli(0.5)) == 1), None), (0, False), 4),
    ],
)
def test_states_are_counted(step, init, number):
    found = scanned(step, init)
    if number is None:
        number = len({x for x in _visited(lambda x, b: 0.5 if b else -0.5 * x, 0.0, 6)})
        assert found >= 3
    else:
        assert found == number


def _visited(move, init, length):
    """The most values that there are at a time."""
    now, most = {init}, {init}
    for _ in range(length):
        now = {move(x, b) for x, b in itertools.product(now, (0, 1))}
        most = max(most, now, key=len)
    return most


def test_what_is_not_known_is_not_counted():
    step = lambda x, table: (table[x, bit()], None)  # noqa: E731
    tables = jnp.broadcast_to(jnp.asarray(TABLE), (6, 4, 2))
    assert scanned(step, 0, inputs=tables) == 4
    unknown = []

    def compiled(tables):
        unknown.append(scanned(step, 0, inputs=tables))
        return 0

    jax.jit(compiled)(tables)
    assert unknown == [None]


def test_states_without_end_are_not_counted():
    assert scanned(lambda x, _: (3.1 * x + bit(), None), 0.0, length=100) is None
    assert scanned(lambda x, _: (x + ppl.sample("x", dist.Poisson(1.0)), None), 0, length=2) is None


def test_what_is_fixed_is_found():
    shape = jax.ShapeDtypeStruct((3,), float)
    np.testing.assert_array_equal(fixed(lambda p: jnp.arange(p.shape[0]), [shape]), [0, 1, 2])
    assert fixed(lambda p: 2 * p, [shape]) is None
