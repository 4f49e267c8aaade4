"""What is said of a function is compared with its values, and with its derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.inference.exact.affine_flow import Dependence, affine_flow
from borelax.ppl.staging import stage

NONE, ROWS, MOVED, SCALED, SHIFTED, LINEAR, OTHER = Dependence
INDEX, MATRIX = jnp.array([2, 0, 2]), jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


def carried(x):
    return lax.scan(lambda level, y: (0.5 * level + x.sum(), level + y), 0.0, jnp.arange(2.0))[1]


def scanned(x):
    return lax.scan(lambda carry, row: (carry, jnp.stack([row, row])), None, x)[1]


def stopping(x):
    return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, 2.0 * c[1]), (0, x))[1]


FUNCTIONS = {  # of an array [3, 3]
    "nothing": (lambda x: MATRIX, NONE),
    "itself": (lambda x: x, ROWS),
    "its rows": (lambda x: x[INDEX], ROWS),
    "a row": (lambda x: x[1], ROWS),
    "a row that is known later": (lambda x: lax.dynamic_index_in_dim(x, INDEX[0], keepdims=False), ROWS),
    "copies of rows": (lambda x: jnp.broadcast_to(x[:, None], (3, 2, 3)).reshape(6, 3), ROWS),
    "rows and others": (lambda x: jnp.concatenate([x[:2], MATRIX]), ROWS),
    "rows in another order": (lambda x: x[::-1], ROWS),
    "row by row": (scanned, MOVED),
    "columns": (lambda x: x.T, MOVED),
    "a part of each row": (lambda x: x[:, 1:], MOVED),
    "elements": (lambda x: x[INDEX, INDEX], MOVED),
    "rows as one": (lambda x: x.ravel(), MOVED),
    "each row in another order": (lambda x: x[:, ::-1], MOVED),
    "between zeros": (lambda x: jnp.pad(x, 1), MOVED),
    "where it is known": (lambda x: jnp.where(x.shape[0] > INDEX, x, 7.0), MOVED),
    "in a branch": (lambda x: lax.cond(INDEX[0] > 1, lambda: x, lambda: jnp.ones((3, 3))), ROWS),
    "called": (jax.jit(lambda x: jax.checkpoint(lambda x: x[0])(x)), ROWS),
    "negative": (lambda x: -x, SCALED),
    "multiples": (lambda x: 2.0 * x / jnp.arange(1.0, 4.0), SCALED),
    "shifted": (lambda x: 1.0 - 2.0 * x, SHIFTED),
    "shifted where it is known": (lambda x: jnp.where(INDEX > 1, x + 1.0, x), SHIFTED),
    "twice": (lambda x: x + x, LINEAR),
    "a sum": (lambda x: x.sum(0) + 1.0, LINEAR),
    "a product": (lambda x: MATRIX @ x - MATRIX, LINEAR),
    "partial sums": (lambda x: jnp.cumsum(x, 1), LINEAR),
    "carried": (carried, LINEAR),
    "its square": (lambda x: x * x, OTHER),
    "by itself": (lambda x: x @ x, OTHER),
    "an inverse": (lambda x: 1.0 / x, OTHER),
    "a function": (jnp.sin, OTHER),
    "the largest": (lambda x: x.max(), OTHER),
    "where it says so": (lambda x: jnp.where(x > 0, x, 0.0), OTHER),
    "at its own index": (lambda x: x[jnp.argmax(x[0])], OTHER),
    "in a branch of its own": (lambda x: lax.cond(x[0, 0] > 0, lambda: x, lambda: 2.0 * x), OTHER),
    "rounded": (lambda x: x.astype(int).astype(float), OTHER),
    "held": (lax.stop_gradient, OTHER),
    "with a derivative of its own": (jax.nn.relu, OTHER),
    "after a while_loop": (stopping, SCALED),
}


@pytest.mark.parametrize(("function", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_are_told_apart(function, expected):
    def program():
        x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([3, 3]))
        ppl.deterministic("y", function(x))

    found = []

    def visit(kind, site, uses, here):
        found.extend(use for use in uses if kind == "deterministic")

    affine_flow(stage(program), ("x",), visit)
    assert max(use.how for use in found) == expected
    if NONE < expected < OTHER:
        check_values(function, expected)


def check_values(function, how: Dependence) -> None:
    x = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    zero = jnp.zeros((3, 3))
    slopes = np.asarray(jax.jacfwd(function)(zero)).reshape(-1, 9)
    constant = np.ravel(function(zero))
    np.testing.assert_allclose(np.ravel(function(x)), slopes @ x.ravel() + constant, rtol=1e-4, atol=1e-5)
    nonzero = slopes != 0
    if how < LINEAR:
        assert nonzero.sum(1).max() == 1
    if how < SHIFTED:
        assert not np.any(nonzero.any(1) & (constant != 0))
    if how < SCALED:
        assert set(slopes[nonzero]) == {1.0}
    if how < MOVED:  # of nine elements, each row of three has three that come one after the other
        rows = nonzero.reshape(-1, 3, 9)
        start = rows[:, 0].argmax(1)
        assert np.all((rows.any((1, 2)) == 0) | (start % 3 == 0))
        assert np.all((rows[:, 1].argmax(1) == start + 1) | ~rows.any((1, 2)))


def test_the_equation_is_named_that_made_it_so():
    def program():
        ppl.factor(jnp.exp(2.0 * ppl.sample("x", dist.Normal(0.0, 1.0))))

    causes = []
    affine_flow(
        stage(program), ("x",), lambda kind, site, uses, here: causes.extend(use.cause for use in uses)
    )
    assert any(cause.startswith("exp (test_affine_flow.py:") for cause in causes)
