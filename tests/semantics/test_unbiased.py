from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics
from borelax.semantics.small_programs import hidden_markov, weighted_coin


def evidence(program, n):
    return lambda *args: jnp.exp(inference.smc(program, n)(*args).log_evidence)


def test_an_evidence_is_unbiased_on_the_natural_scale_only():
    exact = semantics.meaning(hidden_markov)().total
    assert semantics.unbiased(evidence(hidden_markov, 2), exact)().holds
    wrong = semantics.unbiased(lambda: inference.smc(hidden_markov, 2)().log_evidence, jnp.log(exact))()
    assert not wrong.holds and wrong.counterexample.found < wrong.counterexample.expected


def test_a_program_for_the_value():
    value = lambda: jnp.exp(inference.importance(weighted_coin, 1)().log_evidence)  # noqa: E731
    assert semantics.unbiased(evidence(weighted_coin, 2), value)().holds


def estimate(m):
    x = ppl.sample("x", dist.Normal(m, 1.0))
    return {"square": x**2, "cube": x**3}


def test_by_sampling():
    right = lambda m: {"square": m**2 + 1, "cube": m**3 + 3 * m}  # noqa: E731
    m = jnp.array(2.0)
    assert semantics.unbiased(estimate, right)(m).holds
    wrong = lambda m: {"square": m**2 + 1, "cube": m**3 + 2 * m}  # noqa: E731
    report = semantics.unbiased(estimate, wrong)(m)
    assert not report.holds and "cube" in report.counterexample.where


def test_components_are_named_exactly_too():
    program = lambda: {"a": 1.0 * ppl.sample("a", dist.Bernoulli(0.5)), "b": jnp.zeros(2)}  # noqa: E731
    assert semantics.unbiased(program, {"a": 0.5, "b": jnp.zeros(2)})().holds
    report = semantics.unbiased(program, {"a": 0.5, "b": jnp.array([0.0, 0.25])})()
    assert not report.holds and report.counterexample.where == "the mean of ['b']" and report.error == 0.25


def test_the_form_that_raises():
    with pytest.raises(semantics.CheckFailed):
        semantics.assert_unbiased(lambda: 1.0 * ppl.sample("x", dist.Bernoulli(0.5)), 0.25)()
