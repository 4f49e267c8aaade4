from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl, semantics


def bit(name, p=0.5):
    return ppl.sample(name, dist.Bernoulli(p))


def as_dict(measure) -> dict:
    return {repr(jax.tree.map(lambda x: np.asarray(x).tolist(), value)): weight for value, weight in measure}


def assert_same(measure, expected: dict) -> None:
    found = as_dict(measure)
    assert found.keys() == expected.keys()
    for value, weight in expected.items():
        assert found[value] == pytest.approx(weight, rel=1e-12)


def test_deterministic_values_do_not_change_the_meaning():
    def program():
        return ppl.deterministic("twice", 2 * bit("x", 0.25)), ppl.deterministic("one", 1)

    assert_same(semantics.meaning(program)(), {"(0, 1)": 0.75, "(2, 1)": 0.25})


@pytest.mark.parametrize(
    "d",
    [
        lambda p: dist.Bernoulli(p),
        lambda p: dist.Bernoulli(p).to_event(1),
        lambda p: dist.Categorical(jnp.stack([1 - p, p], -1)),
        lambda p: dist.Categorical(jnp.stack([1 - p, p], -1)).to_event(1),
    ],
    ids=["batch", "event", "categorical", "categorical event"],
)
def test_a_distribution_over_vectors_is_a_product(d):
    p = jnp.array([0.25, 0.5])
    expected = {
        repr([a, b]): float((p[0] if a else 1 - p[0]) * (p[1] if b else 1 - p[1]))
        for a, b in itertools.product([0, 1], repeat=2)
    }
    assert_same(semantics.meaning(lambda: ppl.sample("x", d(p)))(), expected)


def test_an_expanded_distribution_is_a_product():
    measure = semantics.meaning(lambda: ppl.sample("x", dist.Bernoulli(0.25).expand([3])).sum())()
    assert_same(measure, {"0": 27 / 64, "1": 27 / 64, "2": 9 / 64, "3": 1 / 64})


def test_a_scan_of_no_steps():
    program = lambda: lax.scan(lambda c, _: (c + 1, bit("x")), 0, None, length=0)  # noqa: E731
    assert_same(semantics.meaning(program)(), {"(0, [])": 1.0})


def test_a_history_read_in_a_scan():
    """Every member keeps its own records while the population grows around them."""

    def program():
        path = ppl.append(ppl.history(2, jnp.zeros(())), 0, 1.0 * bit("a"))
        c, seen = lax.scan(lambda c, _: (c + bit("b"), ppl.recall(path)[0]), 0, None, length=2)
        return ppl.recall(path)[0], seen, c

    expected = {
        repr((float(a), [float(a)] * 2, c)): 0.5 * weight
        for a in (0, 1)
        for c, weight in enumerate([0.25, 0.5, 0.25])
    }
    assert_same(semantics.meaning(program)(), expected)


def test_a_run_at_single_precision_before_does_not_matter():
    probs = jnp.array([0.25, 0.75], jnp.float32)

    def program():
        step = lambda c, _: (ppl.sample("x", dist.Bernoulli(probs[c])), None)  # noqa: E731
        return lax.scan(step, jnp.zeros((), int), None, length=2)[0]

    ppl.seed(program)(jax.random.key(0))
    assert_same(semantics.meaning(program)(), {"0": 0.75**2 + 0.25**2, "1": 2 * 0.75 * 0.25})
    assert ppl.seed(program)(jax.random.key(0)).dtype == jnp.int32


def test_runs_of_weight_zero_are_not_continued():
    """Of the 2^40 runs all but one die on the way, each at its first head."""

    def program():
        def step(c, _):
            x = bit("x", 0.5)
            ppl.factor(jnp.where(x == 1, -jnp.inf, jnp.log(2.0)))
            return c + x, None

        return lax.scan(step, 0, None, length=40)[0]

    assert_same(semantics.meaning(program)(), {"0": 1.0})


def test_a_program_without_weight_means_nothing():
    def program():
        ppl.factor(jnp.where(bit("x") < 2, -jnp.inf, 0.0))
        return bit("y")

    measure = semantics.meaning(program)()
    assert len(measure) == 0 and measure.total == 0.0


def test_a_weight_that_is_not_a_number_is_not_lost():
    def program():
        ppl.factor(jnp.where(bit("x") == 1, jnp.nan, 0.0))
        return bit("y")

    assert np.isnan(semantics.meaning(program)().total)


def test_an_infinite_support_is_refused():
    with pytest.raises(
        ppl.UnsupportedError, match=r"'x' \(test_meaning.*Normal, whose support is not finite"
    ):
        semantics.meaning(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))()


def test_a_draw_in_a_loop_is_refused():
    program = lambda: lax.while_loop(lambda i: i < 1, lambda i: i + bit("x"), 0)  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="while_loop"):
        semantics.meaning(program)()
