"""Conditional SMC, exactly: for every run x, p(x) E[1 / Z | x is retained] is the probability that SMC picks x."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax

from borelax import inference, ppl, semantics
from borelax.inference.particles.smc import Resample, ResampleOthers

KEY = jax.random.key(0)
RESAMPLERS = [inference.systematic, inference.multinomial, inference.residual, inference.killing]


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def chain():
    def step(state, y):
        state = bit("state", 0.25 + 0.5 * state)
        ppl.observe("y", dist.Bernoulli(0.125 + 0.625 * state), y)
        return state, state

    return lax.scan(step, 0, jnp.array([1, 0]))[1]


def guided():
    """Proposals, in a called function and outside."""
    x = bit("x", 0.25, proposal=dist.Bernoulli(0.5))
    ppl.factor(0.5 * x)

    @jax.jit
    def rest(x):
        ppl.factor(-0.75 * x)
        return bit("y", 0.25 + 0.5 * x, proposal=dist.Bernoulli(0.375))

    return x, rest(x)


def branching():
    """Branches that part the particles, in a scan and outside."""
    a = bit("a", 0.25)
    b = lax.cond(a == 1, lambda: bit("b", 0.75, proposal=dist.Bernoulli(0.5)), lambda: 2)
    ppl.factor(-0.5 * b)

    def step(total, _):
        total = lax.cond(total > 1, lambda t: t - 1, lambda t: t + bit("c", 0.375), total)
        ppl.factor(0.25 * total)
        return total, total

    return a, b, lax.scan(step, b, None, length=2)[1]


def hard():
    """Some runs have no weight."""
    x = bit("x", 0.25)
    ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf))
    y = jax.vmap(lambda p: bit("y", p))(jnp.array([0.25, 0.5]))
    ppl.factor(jnp.where(y[0] >= y[1], 0.5 * y[0], -jnp.inf))
    return x, y


PROGRAMS = {"chain": chain, "guided": guided, "branching": branching, "hard": hard}


def picked(program, algorithm):
    """The law of a member that is picked by weight, if any has weight."""

    def run():
        population = algorithm(program)()
        alive = jnp.max(population.log_weight) > -jnp.inf
        ppl.factor(jnp.where(alive, 0.0, -jnp.inf))
        logits = jnp.where(alive, population.log_weight, 0.0)
        member = ppl.sample("member", dist.Categorical(logits=logits))
        return jax.tree.map(lambda x: x[member], population.value)

    return semantics.meaning(run)()


def reciprocal(program, algorithm):
    """``p(x) E[1 / Z]`` for every x."""

    def run():
        with ppl.scope("retained"):
            trace = ppl.trace(program)()
        ppl.factor(trace.log_weight)
        population = algorithm(program, retained=trace.choices)()
        evidence = jax.nn.logsumexp(population.log_weight) - jnp.log(population.size)
        ppl.factor(-jnp.where(trace.log_weight > -jnp.inf, evidence, 0.0))
        return jax.tree.map(lambda x: x[0], population.value)

    return semantics.meaning(run)()


def distance(program, algorithm) -> float:
    return reciprocal(program, algorithm).distance(picked(program, algorithm))


@pytest.mark.parametrize("resampler", family(RESAMPLERS, every=2), ids=lambda r: r.__name__)
def test_whatever_the_resampler(resampler):
    algorithm = partial(inference.smc, n=2, resampler=resampler, ess_threshold=2.0)
    assert distance(chain, algorithm) < 1e-10


@pytest.mark.parametrize("threshold", family([0.8, 0.0, 0.95]))
def test_whatever_the_threshold(threshold):
    """With the higher ones it depends on the run where it is resampled."""
    assert distance(chain, partial(inference.smc, n=2, ess_threshold=threshold)) < 1e-10


@pytest.mark.parametrize("program", family(["guided", "branching", "hard"], every=2))
def test_whatever_the_program(program):
    assert distance(PROGRAMS[program], partial(inference.smc, n=2, ess_threshold=2.0)) < 1e-10


# ------------------------------------------------------------------ mutants


class Untilted(inference.systematic):
    """The resampler's own law, but for the retained particle's place."""

    def conditional(self):
        return self

    def _candidates(self):
        return super()._candidates().at[:, 0].set(0)


def test_a_law_that_is_only_pinned_is_caught():
    assert distance(chain, partial(inference.smc, n=2, resampler=Untilted, ess_threshold=2.0)) > 1e-3


def not_reset(self, address, cloud, final):
    return Resample.reduce(self, address, cloud, final)._replace(cloud=cloud)


@pytest.mark.parametrize(
    ("name", "mutant"),
    [("law", Resample.law), ("reduce", not_reset)],
    ids=["not pinned", "weights not reset"],
)
def test_mutants_are_caught(monkeypatch, name, mutant):
    monkeypatch.setattr(ResampleOthers, name, mutant)
    assert distance(chain, partial(inference.smc, n=2, ess_threshold=2.0)) > 1e-3


# ------------------------------------------------------------------ what comes of it


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_retained_run_survives_as_member_0(program):
    algorithm = inference.conditional_smc(PROGRAMS[program], 5, ess_threshold=2.0)
    trace = ppl.simulate(PROGRAMS[program])(KEY)
    if program == "hard":
        trace = ppl.update(hard, {"x": 1, "y": jnp.array([1, 0])})(trace).trace
    run = jax.jit(jax.vmap(ppl.seed(algorithm), in_axes=(0, None)))
    populations = run(jax.random.split(KEY, 20), trace.choices)
    for found, kept in zip(jax.tree.leaves(populations.value), jax.tree.leaves(trace.value), strict=True):
        np.testing.assert_array_equal(found[:, 0], jnp.broadcast_to(kept, found[:, 0].shape))
    assert not populations.origin[:, 0].any() and int(populations.generations.max()) > 0


def test_nothing_is_drawn_for_the_retained_run():
    algorithm = inference.conditional_smc(chain, 3, ess_threshold=2.0)
    choices = ppl.simulate(algorithm)(KEY, {"state": jnp.array([1, 1])}).choices
    np.testing.assert_array_equal(choices["state"].present, [[False, True, True]] * 2)
    assert choices["resample"]["0"].shape == (2, 3)


def test_without_resampling_it_is_conditional_importance_sampling():
    algorithm = inference.conditional_smc(chain, 3, ess_threshold=0.0)
    choices = {"state": jnp.array([1, 0])}
    one = ppl.seed(algorithm)(KEY, choices)
    other = ppl.seed(inference.importance(chain, 3, retained=choices))(KEY)
    np.testing.assert_allclose(one.log_weight, other.log_weight, rtol=1e-6)
    assert float(one.log_weight[0]) == pytest.approx(float(ppl.reweigh(chain)(choices)[1]), rel=1e-6)


def agent():
    x = bit("x", 0.25, proposal=dist.Bernoulli(0.5))
    ppl.factor(0.5 * x)
    y = bit("y", 0.125 + 0.5 * x)
    ppl.factor(1.5 * y - 0.5 * x)
    return y


def test_normalize_has_an_unbiased_density():
    algorithm = partial(inference.smc, n=2, ess_threshold=2.0)
    law = ppl.normalize(agent, "y", algorithm)
    expected = {int(y): weight for y, weight in picked(agent, algorithm)}
    for y in (0, 1):
        density = ppl.log_density(lambda y=y: ppl.observe("seen", law(), y))
        mean = semantics.meaning(lambda d=density: d({}))().expectation(np.exp)
        assert mean == pytest.approx(expected[y], abs=1e-10)


# ------------------------------------------------------------------ what is refused


def test_a_run_that_cannot_be_has_no_weight():
    run = jax.jit(ppl.seed(inference.conditional_smc(hard, 3, ess_threshold=2.0)))
    impossible = run(KEY, {"x": 0, "y": jnp.array([1, 0])})
    assert float(impossible.log_weight[0]) == -np.inf and not np.isnan(impossible.log_weight).any()
    present = lambda b, c: {"a": 0, "b": ppl.Masked(1, b), "c": ppl.Masked(jnp.array([0, 0]), jnp.array(c))}  # noqa: E731
    run = jax.jit(ppl.seed(inference.conditional_smc(branching, 3)))
    assert float(run(KEY, present(False, [False, True])).log_weight[0]) > -np.inf
    assert float(run(KEY, present(True, [False, True])).log_weight[0]) == -np.inf  # there is no such site
    assert float(run(KEY, present(False, [False, False])).log_weight[0]) == -np.inf  # it must be there

    def given(a):  # not one branch for each particle: only one is run
        return lax.cond(a, lambda: bit("b"), lambda: 0)

    run = ppl.seed(inference.conditional_smc(given, 3))
    choices = {"b": ppl.Masked(1, True)}
    assert float(run(KEY, choices, jnp.array(True)).log_weight[0]) == 0.0
    assert float(run(KEY, choices, jnp.array(False)).log_weight[0]) == -np.inf


def test_choices_are_checked():
    run = ppl.seed(inference.conditional_smc(chain, 2))
    with pytest.raises(ppl.AddressError, match=r"no site 'stat' \(did you mean 'state'\?\)"):
        run(KEY, {"stat": jnp.array([0, 1])})
    with pytest.raises(ppl.AddressError, match=r"no value given for 'state' \(test_conditional_smc.py:\d+\)"):
        run(KEY, {})
    with pytest.raises(ppl.BorelaxError, match="shape"):
        run(KEY, {"state": jnp.array([0, 1, 1])})


@pytest.mark.parametrize("resampler", [inference.stratified, inference.ssp])
def test_resamplers_that_see_the_order_are_refused(resampler):
    run = ppl.seed(inference.conditional_smc(chain, 3, resampler))
    with pytest.raises(ppl.UnsupportedError, match="no conditional law.*use inference.systematic"):
        run(KEY, {"state": jnp.array([0, 1])})


def test_estimated_densities_are_refused():
    law = ppl.marginal(lambda: bit("y", 0.25 + 0.5 * bit("x")), "y", partial(inference.importance, n=2))

    def program():
        z = bit("z")
        ppl.observe("seen", law(), z)

    with pytest.raises(ppl.UnsupportedError, match=r"'seen' \(test_conditional_smc.*only an estimate"):
        ppl.seed(inference.conditional_smc(program, 2))(KEY, {"z": 1})


def test_draws_in_a_while_loop_are_refused():
    def program():
        return lax.while_loop(lambda n: n < 1, lambda n: n + bit("x"), 0)

    with pytest.raises(ppl.UnsupportedError, match="while_loop"):
        ppl.seed(inference.conditional_smc(program, 2))(KEY, {"x": 1})
