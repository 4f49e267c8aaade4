"""check as a whole, and the part of it that inference begins with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl, semantics
from borelax.ppl import UnsupportedError


def good(ys):
    scale = ppl.sample("scale", dist.HalfNormal(1.0), proposal=dist.Exponential(1.0))
    return jax.vmap(lambda y: ppl.observe("y", dist.Normal(0.0, scale), y))(ys), scale


def bad(key):
    x = ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Exponential(1.0))
    ppl.sample("forgotten", dist.Normal(x, 1.0))
    noise = jax.random.normal(key) + jax.random.normal(key)
    ppl.factor(jnp.log(-jnp.exp(x) * 0.0))
    return x + noise


def test_a_right_program_passes():
    review = semantics.check(good)(jnp.zeros(3))
    assert review.ok and review.findings == ()
    assert repr(review).startswith("good: nothing found\n  looked at: ")


def test_each_fault_is_found_at_its_line():
    review = semantics.check(bad)(jax.random.key(0))
    first = bad.__code__.co_firstlineno
    found = {
        (finding.severity, int(finding.where.rstrip(")").split(":")[-1]) - first)
        for finding in review.findings
    }
    assert found == {("error", 1), ("note", 2), ("warning", 3), ("error", 4)}
    assert not review.ok
    assert "what to do" in repr(review) and "<table>" in review._repr_html_()


def test_a_guide():
    model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    narrow = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    other = lambda: ppl.sample("z", dist.Normal(0.0, 1.0))  # noqa: E731
    assert semantics.check(model, model)().findings == ()
    (finding,) = semantics.check(model, narrow)().findings
    assert finding.severity == "warning" and finding.what.startswith(
        "importance sampling with this guide is wrong"
    )
    assert not semantics.check(model, other)().ok


def test_a_jump_is_found():
    def program():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.observe("y", dist.Normal(jnp.where(x > 0.5, 1.0, 0.0), 1.0), 1.0)
        return x

    (finding,) = semantics.check(program)().findings
    assert "jumps" in finding.what and "'x'" in finding.where


# ------------------------------------------------------------------------- what inference begins with


def half():
    return ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Exponential(1.0))


def impossible():
    x = ppl.sample("x", dist.Bernoulli(0.5))
    ppl.factor(jnp.where(x > 1, 0.0, -jnp.inf))
    return x


def in_a_branch():
    k = ppl.sample("k", dist.Bernoulli(0.5))
    return jax.lax.cond(k == 1, half, lambda: 0.0)


def unknown(scale):
    return ppl.sample("x", dist.Uniform(0.0, 1.0), proposal=dist.Uniform(0.0, scale))


ALGORITHMS = [inference.importance, inference.smc]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("program", [half, impossible])
def test_what_is_proved_wrong_is_refused(algorithm, program):
    with pytest.raises(UnsupportedError, match=r"site '(x|factor)' \(test_check.py:\d+\).*check=False"):
        ppl.seed(algorithm(program, 10))(jax.random.key(0))
    population = ppl.seed(algorithm(program, 10, check=False))(jax.random.key(0))
    assert population.value.shape == (10,)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_not_proved_wrong_is_run(algorithm):
    for program, args in ((in_a_branch, ()), (unknown, (jnp.array(2.0),)), (good, (jnp.zeros(2),))):
        assert ppl.seed(algorithm(program, 10))(jax.random.key(0), *args).log_weight.shape == (10,)


def test_what_is_refused_would_have_been_wrong():
    """The evidence of the normalised program is 1; what its proposal reaches is half of it."""
    run = jax.jit(ppl.seed(inference.importance(half, 20_000, check=False)))
    weights = np.exp(np.asarray(run(jax.random.key(0)).log_weight))
    assert abs(weights.mean() - 0.5) < 6 * weights.std() / np.sqrt(weights.size)


def test_a_retained_run_is_checked_too():
    with pytest.raises(UnsupportedError, match="check=False"):
        ppl.seed(inference.importance(half, 3, retained={"x": 1.0}))(jax.random.key(0))
    kept = ppl.seed(inference.importance(half, 3, retained={"x": 1.0}, check=False))(jax.random.key(0))
    assert float(kept.value[0]) == 1.0
