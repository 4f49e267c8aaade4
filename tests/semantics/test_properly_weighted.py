from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics
from borelax.semantics.small_programs import hidden_markov, weighted_coin


def walk(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.observe("y", dist.Normal(x, 1.0), y)
        return x, x

    return jax.lax.scan(step, 0.0, ys)[0]


YS = jnp.array([0.5, 1.0, 2.0])


def heavier(program, by):
    """The algorithm whose weights are off by a factor."""

    def algorithm(*args):
        population = inference.smc(program, 4)(*args)
        return jax.tree.map(
            lambda x: x,
            population.__class__(**{**vars(population), "log_weight": population.log_weight + by}),
        )

    return algorithm


def test_exactly():
    report = semantics.properly_weighted(inference.smc(hidden_markov, 2), hidden_markov)()
    assert report.holds and report.error < 1e-12 and report.how.startswith("exact")


def test_a_weight_that_is_off_is_found_exactly():
    report = semantics.properly_weighted(heavier(weighted_coin, 1e-4), weighted_coin)()
    assert not report.holds and report.error == pytest.approx(1e-4, rel=0.01)  # of the total mass
    assert report.counterexample.found > report.counterexample.expected


def test_by_sampling():
    assert semantics.properly_weighted(inference.smc(walk, 4), walk)(YS).holds


def test_a_weight_that_is_off_is_found_by_sampling():
    report = semantics.properly_weighted(heavier(walk, 0.1), walk)(YS)
    assert not report.holds and report.error == pytest.approx(0.1, rel=0.3)
    assert report.p_value < 1e-6


def test_a_program_with_too_many_runs_is_tested():
    def many():
        return jax.lax.map(lambda p: ppl.sample("x", dist.Bernoulli(p)), jnp.full(24, 0.5)).sum()

    budget = semantics.Budget(draws=4_096)
    report = semantics.properly_weighted(partial(inference.importance(many, 2)), many, budget)()
    assert report.holds and "test" in report.how


def test_traces_and_pairs_of_a_value_and_its_weight():
    assert semantics.properly_weighted(ppl.trace(weighted_coin), weighted_coin)().holds
    read = semantics.weighted
    assert semantics.properly_weighted(ppl.weigh(weighted_coin), weighted_coin, read=read)().holds


def test_the_form_that_raises():
    semantics.assert_properly_weighted(ppl.trace(weighted_coin), weighted_coin)()
    with pytest.raises(semantics.CheckFailed, match="counterexample: weighted_coin") as raised:
        semantics.assert_properly_weighted(lambda: 0, weighted_coin)()
    assert raised.value.report.counterexample.where == 1
