from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics
from borelax.semantics.small_programs import SMALL_PROGRAMS, hidden_markov

TRANSFORMATIONS = {
    "trace": ppl.trace,
    "condition on nothing": partial(ppl.condition, choices={}),
    "importance": partial(inference.importance, n=2),
    "smc": partial(inference.smc, n=2),
    "smc that always resamples": partial(inference.smc, n=2, ess_threshold=2.0),
    "enumerate": inference.enumerate,
}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_transformations_of_the_library(transformation):
    report = semantics.preserves(transformation)()
    assert report.holds and report.error < 1e-12


def test_weigh():
    assert semantics.preserves(ppl.weigh, read=semantics.weighted)().holds


def test_a_counterexample_is_the_smallest_there_is():
    """Two draws are exchanged for one: only programs that draw twice can tell."""

    def one_draw_for_all(program):
        def wrong():
            trace = ppl.trace(program)()
            ppl.factor(trace.log_weight)
            once = jax.tree.map(lambda x: 0 * x + 1, trace.value)
            return once if len(trace.choices) > 1 else trace.value

        return wrong

    report = semantics.preserves(one_draw_for_all)()
    assert not report.holds and report.counterexample.program == "unused_draw"


def test_with_arguments():
    def program(p):
        return ppl.sample("x", dist.Bernoulli(p))

    flipped = lambda program: lambda p: 1 - program(p)  # noqa: E731
    assert semantics.preserves(flipped, program)(jnp.array(0.5)).holds
    report = semantics.preserves(flipped, program)(jnp.array(0.25))
    assert not report.holds and report.counterexample.args == (0.25,)


def test_the_small_programs_are_finite_and_different():
    names = [program.__name__ for program in SMALL_PROGRAMS]
    assert len(set(names)) == len(names) >= 14
    assert all(semantics.meaning(program)().total > 0 for program in SMALL_PROGRAMS)
    assert len(semantics.meaning(hidden_markov)()) == 8
