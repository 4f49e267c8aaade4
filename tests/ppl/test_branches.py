"""Sites in branches: under a scalar predicate (control flow) and under a batched one (select)."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)


def x(mean=0.0):
    return ppl.sample("x", dist.Normal(mean, 1.0))


def both_ways(member, *columns):
    """The program once per row, by vmap (batched predicates) and one row at a time (control flow)."""
    rows = [jnp.asarray(column) for column in columns]
    together = ppl.simulate(jax.vmap(member))(KEY, *rows)
    apart = [
        ppl.simulate(member)(key, *row)
        for key, row in zip(jax.random.split(KEY, len(rows[0])), zip(*rows, strict=True), strict=True)
    ]
    return rows, together, apart


def assert_density_at_own_choices(member, *columns):
    rows, together, apart = both_ways(member, *columns)
    at = ppl.log_density(jax.vmap(member))(together.choices, *rows)
    np.testing.assert_allclose(at, together.log_density, rtol=1e-5, atol=1e-5)
    for trace, row in zip(apart, zip(*rows, strict=True), strict=True):
        at = ppl.log_density(member)(trace.choices, *row)
        np.testing.assert_allclose(at, trace.log_density, rtol=1e-5, atol=1e-5)
    return together, apart


def test_an_optional_site_is_masked():
    together, apart = assert_density_at_own_choices(lambda b: lax.cond(b, x, lambda: 0.0), [True, False])
    np.testing.assert_array_equal(together.choices["x"].present, [True, False])
    assert [bool(trace.choices["x"].present) for trace in apart] == [True, False]
    expected = stats.norm.logpdf(together.choices["x"].value[0])
    np.testing.assert_allclose(together.log_density, expected, rtol=1e-5)


def test_a_site_of_every_branch_is_not_masked():
    member = lambda b: lax.cond(b, lambda: x(5.0), lambda: x(-5.0))  # noqa: E731
    together, _ = assert_density_at_own_choices(member, [True, False])
    assert together.choices["x"].shape == (2,)
    expected = stats.norm.logpdf(np.asarray(together.choices["x"]) - [5.0, -5.0]).sum()
    np.testing.assert_allclose(together.log_density, expected, rtol=1e-5)


def test_one_address_in_some_branches_of_a_switch():
    member = lambda i: lax.switch(i, [lambda: x(5.0), lambda: x(-5.0), lambda: 0.0])  # noqa: E731
    together, _ = assert_density_at_own_choices(member, [0, 1, 2])
    np.testing.assert_array_equal(together.choices["x"].present, [True, True, False])
    residuals = np.asarray(together.choices["x"].value)[:2] - [5.0, -5.0]
    np.testing.assert_allclose(together.log_density, stats.norm.logpdf(residuals).sum(), rtol=1e-5)


@pytest.mark.parametrize("always_first", [True, False])
def test_a_site_that_is_optional_in_one_branch_and_not_in_the_other(always_first):
    def member(a, b):
        some = lambda: lax.cond(b, x, lambda: 0.0)  # noqa: E731
        return lax.cond(a, *([x, some] if always_first else [some, x]))

    a, b = zip(*itertools.product([False, True], repeat=2), strict=True)
    together, apart = assert_density_at_own_choices(member, list(a), list(b))
    reached = [(a == always_first) or b for a, b in zip(a, b, strict=True)]
    np.testing.assert_array_equal(together.choices["x"].present, reached)
    assert [bool(trace.choices["x"].present) for trace in apart] == reached


def test_a_choice_for_a_branch_that_is_not_taken_is_impossible():
    member = lambda b: lax.cond(b, x, lambda: 0.0)  # noqa: E731
    density = ppl.log_density(member)
    masked = lambda present: {"x": ppl.Masked(jnp.array(0.5), jnp.array(present))}  # noqa: E731
    yes, no = jnp.array(True), jnp.array(False)
    assert float(density(masked(True), yes)) == pytest.approx(stats.norm.logpdf(0.5), rel=1e-6)
    assert float(density(masked(False), yes)) == -np.inf
    assert float(density(masked(True), no)) == -np.inf
    assert float(density(masked(False), no)) == 0.0
    assert float(density({"x": 0.5}, no)) == -np.inf
    batch = ppl.log_density(jax.vmap(member))
    for present in itertools.product([True, False], repeat=2):
        choices = {"x": ppl.Masked(jnp.full(2, 0.5), jnp.array(present))}
        possible = present == (True, False)
        expected = stats.norm.logpdf(0.5) if possible else -np.inf
        assert float(batch(choices, jnp.array([True, False]))) == pytest.approx(expected, rel=1e-6)


def test_a_scan_inside_a_branch():
    def member(b):
        walk = lambda: lax.scan(lambda c, _: (c + x(), None), 0.0, None, length=3)[0]  # noqa: E731
        return lax.cond(b, walk, lambda: 0.0)

    together, apart = assert_density_at_own_choices(member, [True, False])
    assert apart[0].choices["x"].value.shape == (3,)
    expected = stats.norm.logpdf(np.asarray(apart[0].choices["x"].value)).sum()
    np.testing.assert_allclose(apart[0].log_density, expected, rtol=1e-5)
    del together


def test_a_branch_inside_a_scan_and_a_scan_inside_it():
    def member(bits):
        inner = lambda: lax.scan(lambda c, _: (c + x(), None), 0.0, None, length=2)[0]  # noqa: E731
        return lax.scan(lambda c, b: (c + lax.cond(b, inner, lambda: 0.0), None), 0.0, bits)[0]

    assert_density_at_own_choices(member, [[True, False, True], [False, False, True]])


def test_a_factor_counts_only_where_its_branch_is_taken():
    def member(i):
        lax.switch(i, [lambda: ppl.factor(1.0), lambda: None, lambda: ppl.factor(jnp.log(0.0))])
        return i

    density = ppl.log_density(jax.vmap(member))
    assert float(density({}, jnp.array([0, 1, 0]))) == 2.0
    assert float(density({}, jnp.array([0, 2, 0]))) == -np.inf


def test_a_factor_in_a_batched_loop_counts_once_per_turn():
    def member(n):
        def body(i):
            ppl.factor(1.0)
            return i + 1

        return lax.while_loop(lambda i: i < n, body, 0)

    density = ppl.log_density(jax.vmap(member))
    assert float(density({}, jnp.array([1, 3, 0]))) == 4.0
    twice = ppl.log_density(jax.vmap(jax.vmap(member)))
    assert float(twice({}, jnp.array([[1, 3], [0, 5]]))) == 9.0


def test_a_batched_branch_in_the_body_of_a_batched_loop():
    """Each of the two guards must hold: that of the branch and that of the loop."""

    def member(n, bits):
        def body(i):
            jax.vmap(lambda b: lax.cond(b, lambda: ppl.factor(1.0), lambda: None))(bits)
            return i + 1

        return lax.while_loop(lambda i: i < n, body, 0)

    n, bits = jnp.array([1, 3]), jnp.array([[True, True], [True, False]])
    alone = [float(ppl.log_density(member)({}, *row)) for row in zip(n, bits, strict=True)]
    assert alone == [2.0, 3.0]
    assert float(ppl.log_density(jax.vmap(member))({}, n, bits)) == 5.0


def test_a_batched_loop_in_the_body_of_a_batched_loop():
    def member(n, ms):
        def inner(m):
            def body(j):
                ppl.factor(1.0)
                return j + 1

            return lax.while_loop(lambda j: j < m, body, 0)

        def body(i):
            jax.vmap(inner)(ms)
            return i + 1

        return lax.while_loop(lambda i: i < n, body, 0)

    n, ms = jnp.array([1, 3]), jnp.array([[1, 2], [2, 0]])
    assert float(ppl.log_density(jax.vmap(member))({}, n, ms)) == 1 * 3 + 3 * 2


def test_deterministic_in_batched_branches():
    one = lambda b: lax.cond(  # noqa: E731
        b, lambda: ppl.deterministic("d", 1.0), lambda: ppl.deterministic("d", 2.0)
    )
    trace = ppl.simulate(jax.vmap(one))(KEY, jnp.array([True, False]))
    np.testing.assert_array_equal(trace.deterministic["d"], [1.0, 2.0])
    some = lambda b: lax.cond(b, lambda: ppl.deterministic("d", 1.0), lambda: 2.0)  # noqa: E731
    for program, bits in [(some, jnp.array(True)), (jax.vmap(some), jnp.array([True, False]))]:
        d = ppl.simulate(program)(KEY, bits).deterministic["d"]
        np.testing.assert_array_equal(d.present, bits)
        np.testing.assert_array_equal(np.where(d.present, d.value, 1.0), np.ones(bits.shape))


def test_branches_that_disagree_on_a_site_are_refused():
    def program(b):
        vector = lambda: ppl.sample("x", NORMAL.expand([2])).sum()  # noqa: E731
        return lax.cond(b, x, vector)

    with pytest.raises(ppl.AddressError, match="branches of one cond disagree on 'x'"):
        ppl.simulate(program)(KEY, jnp.array(True))
