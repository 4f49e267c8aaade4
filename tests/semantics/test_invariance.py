from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import ppl, semantics
from borelax.semantics.small_programs import branch, chain, hidden_markov

FAST = semantics.Budget(draws=16_384)


def normal():
    return ppl.sample("x", dist.Normal(1.0, 2.0))


def metropolis(scale, accept):
    """A random walk on the density of ``normal``, with any acceptance rule, as another library would have it."""
    log_density = lambda x: dist.Normal(1.0, 2.0).log_prob(x)  # noqa: E731

    def step(key, x):
        propose, decide = jax.random.split(key)
        y = x + scale * jax.random.normal(propose)
        return jnp.where(accept(jax.random.uniform(decide), log_density(y) - log_density(x)), y, x)

    return semantics.keyed(step)


right = metropolis(3.0, lambda u, ratio: jnp.log(u) < ratio)


def test_a_function_of_a_key():
    assert semantics.leaves_invariant(right, normal, FAST)().holds
    assert semantics.detailed_balance(right, normal, FAST)().holds


@pytest.mark.parametrize(
    "accept",
    [lambda u, ratio: u < 1, lambda u, ratio: jnp.log(u) < -ratio, lambda u, ratio: jnp.log(u) < ratio / 2],
    ids=["always", "the wrong way round", "at another temperature"],
)
def test_a_wrong_acceptance_is_found(accept):
    report = semantics.leaves_invariant(metropolis(3.0, accept), normal)()
    assert not report.holds and "x" in str(report.counterexample.where)
    assert not semantics.detailed_balance(metropolis(3.0, accept), normal)().holds


def conditioned(y):
    """The normal model seen through an observation: a target that carries weights."""
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0), y)
    return x


def exact_posterior(shift, scale):
    return semantics.keyed(lambda key, x, y: (y + shift) / 2 + scale * jax.random.normal(key) / jnp.sqrt(2.0))


def test_a_weighted_target():
    y = jnp.array(1.0)
    assert semantics.leaves_invariant(exact_posterior(0.0, 1.0), conditioned)(y).holds
    assert not semantics.leaves_invariant(exact_posterior(0.3, 1.0), conditioned)(y).holds
    assert not semantics.leaves_invariant(exact_posterior(0.0, 1.15), conditioned)(y).holds


def redraw(program, selection):
    """A kernel of ours by hand: Metropolis-Hastings that draws a selection anew, on traces."""

    class Kernel:
        init = staticmethod(lambda trace, *args: trace)

        def __init__(self, stale=False):
            self.program, self.stale = program, stale

        def __call__(self, trace, *args):
            edit = ppl.regenerate(program, selection)(trace, *args)
            accept = ppl.sample("accept", dist.Bernoulli(jnp.exp(jnp.minimum(edit.log_weight, 0.0))))
            new = jax.tree.map(lambda x, y: jnp.where(accept == 1, x, y), edit.trace, trace)
            return State(ppl.Trace(**{**vars(new), "log_density": trace.log_density}) if self.stale else new)

    return Kernel


class State:
    """What a kernel of ours returns."""

    def __init__(self, trace, steps=0):
        self.trace, self.steps = trace, steps


@pytest.mark.parametrize("program", [chain, branch], ids=lambda p: p.__name__)
def test_a_kernel_on_traces(program):
    kernel = redraw(program, ppl.select("x"))()
    report = semantics.leaves_invariant(kernel, program)()
    assert report.holds and report.error < 1e-12 and report.how.startswith("exact")
    assert semantics.detailed_balance(kernel, program)().holds


def test_a_kernel_on_the_traces_of_a_scan():
    assert semantics.leaves_invariant(redraw(hidden_markov, ppl.select("state"))(), hidden_markov)().holds


def test_a_density_that_was_not_computed_anew_is_found():
    report = semantics.leaves_invariant(redraw(chain, ppl.select("x"))(stale=True), chain)()
    assert not report.holds


def test_invariance_is_not_reversibility():
    die = lambda: ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))  # noqa: E731
    turn = lambda x: (x + 1) % 3  # noqa: E731
    assert semantics.leaves_invariant(turn, die)().holds
    report = semantics.detailed_balance(turn, die)()
    assert not report.holds and report.counterexample.expected != report.counterexample.found


def test_several_steps():
    """A kernel that is wrong from its second step on."""

    class Late:
        program = staticmethod(chain)
        init = staticmethod(lambda trace: State(trace, 0))

        def __call__(self, state):
            wrong = ppl.update(chain, {"x": 1})(state.trace).trace if state.steps else state.trace
            return State(wrong, state.steps + 1)

    assert semantics.leaves_invariant(Late(), chain)().holds
    assert not semantics.leaves_invariant(Late(), chain, steps=2)().holds


def test_the_forms_that_raise():
    semantics.assert_leaves_invariant(right, normal, FAST)()
    with pytest.raises(semantics.CheckFailed, match="FAILS"):
        semantics.assert_detailed_balance(lambda x: 1 - x, lambda: ppl.sample("x", dist.Bernoulli(0.25)))()
