"""Random functions by their tables, exchange of statements and of elements: exact where finite, else by a test."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from jax.tree_util import Partial

from borelax import inference, ppl, semantics
from borelax.semantics.small_programs import SMALL_PROGRAMS, chain, coin, hidden_markov, weighted_branch

POINTS = jnp.arange(3)


def flip(name, p=0.5):
    return ppl.sample(name, dist.Bernoulli(p))


# ------------------------------------------------------------------------- random elements


def test_the_law_of_a_random_element_is_what_the_program_means():
    """``seed`` to a function of a key, and back."""

    def program():
        x = ppl.sample("x", dist.Exponential(1.0))
        return x, ppl.sample("y", dist.Normal(x, 1.0))

    assert semantics.same_distribution(semantics.keyed(ppl.seed(program)), program)().holds
    reused = lambda key: (jax.random.exponential(key), jax.random.exponential(key) + jax.random.normal(key))  # noqa: E731
    assert not semantics.same_distribution(semantics.keyed(reused), program)().holds


# ------------------------------------------------------------------------- functions


def rising():
    at = ppl.sample("at", dist.Categorical(jnp.array([0.5, 0.25, 0.125, 0.125])))
    return Partial(lambda at, x: (x >= at).astype(int), at)


def rising_step_by_step():
    """The same law, from conditional probabilities of going up."""

    def step(height, p):
        height = jnp.maximum(height, flip("up", p))
        return height, height

    heights = lax.scan(step, 0, jnp.array([0.5, 0.5, 0.5]))[1]
    return Partial(lambda heights, x: heights[x], heights)


def test_functions_are_the_same_if_they_do_the_same():
    report = semantics.same_function_law(rising, rising_step_by_step, POINTS)()
    assert report.holds and report.how.startswith("exact, over 4 values")
    table = semantics.meaning(semantics.extensional(rising, POINTS))()
    assert table == semantics.Measure(
        [jnp.array(v) for v in ([1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0])], [0.5, 0.25, 0.125, 0.125]
    )


def test_marginals_are_not_enough():
    """Two functions with the same law at each point, and not at both together."""
    constant = lambda: Partial(lambda y, x: y, flip("y"))  # noqa: E731
    free = lambda: ppl.mem("f", lambda x: flip("y"), 2)  # noqa: E731
    for x in range(2):
        assert semantics.same_function_law(constant, free, jnp.array([x]))().holds
    report = semantics.same_function_law(constant, free, jnp.arange(2))()
    assert not report.holds and report.error == pytest.approx(0.5)


def test_a_function_that_draws_when_it_is_called_is_not_one_that_was_drawn():
    called = lambda: lambda x: flip("y")  # noqa: E731
    drawn = lambda: Partial(lambda y, x: y, flip("y"))  # noqa: E731
    assert not semantics.same_function_law(called, drawn, POINTS)().holds
    memoised = lambda: ppl.mem("f", lambda x: flip("y"), 3)  # noqa: E731
    assert semantics.same_function_law(called, memoised, POINTS)().holds


def test_continuous_functions_by_a_test():
    def line():
        a, b = (ppl.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
        return Partial(lambda a, b, x: a + b * x, a, b)

    def process(scale):
        """The same Gaussian process, by its covariance on the points."""
        x = POINTS.astype(float)
        covariance = 1 + x[:, None] * x + 1e-6 * jnp.eye(3)
        y = ppl.sample("y", dist.MultivariateNormal(jnp.zeros(3), covariance))
        return Partial(lambda y, x: scale * y[x], y)

    same = semantics.same_function_law(lambda scale: line(), process, POINTS)
    assert same(1.0).holds
    assert not same(1.5).holds


def test_random_functions_under_a_key():
    """mem without a domain draws a PRNG key: its values are those of mem with one."""
    keyed = lambda: ppl.mem("f", lambda x: flip("y", 0.25))  # noqa: E731
    table = lambda: ppl.mem("f", lambda x: flip("y", 0.25), 3)  # noqa: E731
    budget = semantics.Budget(draws=8_192)
    assert semantics.same_function_law(keyed, table, POINTS, budget)().holds
    other = lambda: ppl.mem("f", lambda x: flip("y", 0.5), 3)  # noqa: E731
    assert not semantics.same_function_law(keyed, other, POINTS, budget)().holds


# ------------------------------------------------------------------------- statements that change places


@pytest.mark.parametrize("other", family(SMALL_PROGRAMS, every=2), ids=lambda p: p.__name__)
def test_programs_commute(other):
    for one in (weighted_branch, chain):
        report = semantics.commutes(one, other)()
        assert report.holds and report.how.startswith("exact") and report.error < 1e-12


def test_algorithms_and_memoised_functions_commute():
    calls_twice = lambda: (lambda f: (f(0), f(1), f(0)))(ppl.mem("f", lambda x: flip("y", 0.25), 2))  # noqa: E731
    assert semantics.commutes(inference.smc(chain, 2), calls_twice)().holds
    assert semantics.commutes(calls_twice, hidden_markov)().holds


def test_continuous_programs_commute():
    draw = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731

    def weighted():
        x = ppl.sample("x", dist.Exponential(1.0))
        ppl.factor(-0.5 * x)
        return x

    report = semantics.commutes(draw, weighted)()
    assert report.holds and "by a test" in report.how


def test_what_is_no_program_does_not_commute():
    calls = []

    def counts():
        calls.append(None)
        return flip("x", 0.25 if len(calls) % 2 else 0.75)

    def counts_too():
        calls.append(None)
        return flip("x", 0.5 if len(calls) % 2 else 0.125)

    assert not semantics.commutes(counts, counts_too)().holds


# ------------------------------------------------------------------------- elements that change places


def urn(n, white=2.0, black=3.0, added=1.0):
    """Draws from an urn; ``added`` balls of the colour drawn are put in (-1: none is put back)."""

    def drawn():
        def step(balls, _):
            x = flip("x", balls[0] / balls.sum())
            return balls + added * jnp.stack([x, 1 - x]), x

        return lax.scan(step, jnp.array([white, black]), None, length=n)[1]

    return drawn


@pytest.mark.parametrize("added", [1.0, 0.0, -1.0])
def test_urns_are_exchangeable(added):
    report = semantics.exchangeable(urn(4, added=added))()
    assert report.holds and report.how.startswith("exact")


def test_a_markov_chain_is_not():
    report = semantics.exchangeable(hidden_markov)()
    assert not report.holds
    expected, found = (semantics.meaning(hidden_markov)(), report.counterexample)
    weights = {tuple(map(int, value)): weight for value, weight in expected}
    where = tuple(map(int, found.where))
    neighbours = [weights[tuple(np.array(where)[list(order)])] for order in ((1, 0, 2), (0, 2, 1))]
    assert found.expected == pytest.approx(weights[where])
    assert min(abs(found.found - w) for w in neighbours) < 1e-12


def test_only_the_last_two_differ():
    """Exchange of the first two is not enough."""
    program = lambda: jnp.stack([flip("a"), flip("b"), flip("c", 0.25)])  # noqa: E731
    assert not semantics.exchangeable(program)().holds


def test_weights_and_trees():
    def program(tilt):
        x = jax.vmap(lambda _: (flip("x"), ppl.sample("y", dist.Categorical(jnp.ones(3) / 3))))(jnp.arange(2))
        ppl.factor(0.5 * x[0].sum() * x[1].sum() + tilt * x[0][0])
        return {"x": x[0], "y": x[1]}

    assert semantics.exchangeable(program)(0.0).holds
    assert not semantics.exchangeable(program)(0.5).holds


def test_continuous_sequences_by_a_test():
    def program(drift):
        centre = ppl.sample("centre", dist.Normal(0.0, 1.0))
        return ppl.sample("x", dist.Normal(centre + drift * jnp.arange(3), 1.0))

    assert semantics.exchangeable(program)(0.0).holds
    assert not semantics.exchangeable(program)(0.3).holds


def test_only_how_elements_depend_on_each_other_by_a_test():
    """An autoregression with the same law at each place."""

    def program():
        step = lambda x, _: (lambda y: (y, y))(ppl.sample("x", dist.Normal(0.8 * x, 0.6)))  # noqa: E731
        first = ppl.sample("first", dist.Normal(0.0, 1.0))
        return jnp.append(first, lax.scan(step, first, None, length=3)[1])

    assert not semantics.exchangeable(program)().holds


def test_what_has_no_elements_to_exchange():
    for program in (coin, lambda: jnp.stack([flip("x")]), lambda: (jnp.zeros(2), flip("x"))):
        with pytest.raises(ppl.UnsupportedError, match="leading axis"):
            semantics.exchangeable(program)()

    def weighted():
        x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))
        ppl.factor(x.sum())
        return x

    with pytest.raises(ppl.UnsupportedError, match="carries weights and is not finite"):
        semantics.exchangeable(weighted)()


def test_all_orders_follow_from_neighbours():
    measure = semantics.meaning(urn(3))()
    for order in itertools.permutations(range(3)):
        assert measure == measure.map(lambda x: x[list(order)])
