"""Arrows between representations keep the meaning, by enumeration of all that they draw."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.semantics.small_programs import (
    branch,
    chain,
    guided_coin,
    impossible_coin,
    weighted_coin,
)

KEY = jax.random.key(0)


def walk(r):
    """The same computation in any representation: two draws, each weighed, the second by what the first was."""

    def after(x):
        second = r.sample("y", dist.Categorical(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625]])[x]))
        return r.bind(
            second, lambda y: r.bind(r.score(0.5 * y - 0.25 * x), lambda _: r.unit({"x": x, "y": y}))
        )

    first = r.sample("x", dist.Bernoulli(0.25))
    return r.bind(first, lambda x: r.bind(r.score(0.25 * x), lambda _: after(x)))


def by_hand() -> semantics.Measure:
    rows, prior = np.array([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625]]), np.array([0.75, 0.25])
    values = [{"x": x, "y": y} for x in range(2) for y in range(3)]
    weights = [prior[v["x"]] * rows[v["x"], v["y"]] * np.exp(0.5 * v["y"]) for v in values]
    return semantics.Measure(values, weights)


REPRESENTATIONS = [
    semantics.Programs(),
    semantics.Weighted(),
    semantics.Traced(),
    semantics.Populations(),
    semantics.Populations(2),
    semantics.Suspended(),
]


@pytest.mark.parametrize("r", REPRESENTATIONS, ids=str)
def test_one_computation_means_the_same_in_all(r):
    assert r.meaning(walk(r))().distance(by_hand()) < 1e-12


ARROWS = {
    "weigh": (ppl.weigh, semantics.Programs(), semantics.Weighted()),
    "trace": (ppl.trace, semantics.Programs(), semantics.Traced()),
    "importance": (lambda m: inference.importance(m, 2), semantics.Programs(), semantics.Populations()),
    "smc": (lambda m: inference.smc(m, 2), semantics.Programs(), semantics.Populations()),
    "without_choices": (semantics.without_choices, semantics.Traced(), semantics.Weighted()),
    "replicate": (semantics.replicate(2), semantics.Weighted(), semantics.Populations()),
    "resample": (
        semantics.resample(inference.systematic),
        semantics.Populations(2),
        semantics.Populations(),
    ),
    "one_member": (semantics.one_member, semantics.Populations(2), semantics.Programs()),
    "finish": (semantics.finish, semantics.Suspended(), semantics.Weighted()),
    "particles": (semantics.particles(2), semantics.Suspended(), semantics.Populations()),
}


@pytest.mark.parametrize("name", ARROWS)
def test_an_arrow_keeps_the_meaning(name):
    arrow, source, target = ARROWS[name]
    assert target.meaning(arrow(walk(source)))().distance(by_hand()) < 1e-12


@pytest.mark.parametrize("program", [impossible_coin, guided_coin, branch], ids=lambda p: p.__name__)
def test_a_composition_of_arrows_keeps_the_meaning(program):
    def composed(program):
        population = semantics.replicate(2)(semantics.without_choices(ppl.trace(program)))
        return semantics.one_member(semantics.resample(inference.multinomial)(population))

    report = semantics.preserves(composed, program)()
    assert report.holds and report.error < 1e-12


def forgetful(resampler):
    """Resamples, and gives every member weight one."""

    def arrow(computation):
        def resampled(*args):
            population = semantics.resample(resampler)(computation)(*args)
            return replace(population, log_weight=0 * population.log_weight)

        return resampled

    return arrow


def test_resampling_that_forgets_the_evidence_is_found():
    wrong = lambda program: forgetful(inference.systematic)(semantics.replicate(2)(ppl.weigh(program)))  # noqa: E731
    report = semantics.preserves(wrong)()
    assert not report.holds and report.counterexample.program == "weighted_constant"


# ------------------------------------------------------------------------- SMC as a composition of arrows


def filtered(r):
    """One draw, weighed, and one that depends on it: a resampling step between them."""
    first = r.sample("x", dist.Bernoulli(0.25))
    return r.bind(
        first, lambda x: r.bind(r.score(0.75 * x), lambda _: r.sample("y", dist.Bernoulli(0.25 + 0.5 * x)))
    )


@pytest.mark.parametrize("resampler", [inference.systematic, inference.multinomial])
def test_smc_is_particles_and_resample(resampler):
    suspended = filtered(semantics.Suspended())
    smc = semantics.particles(2, semantics.resample(resampler))(suspended)
    expected = semantics.Suspended().meaning(suspended)()
    assert semantics.Populations().meaning(smc)().distance(expected) < 1e-12
    library = inference.smc(filtered(semantics.Programs()), 2, resampler, ess_threshold=2.0)
    assert semantics.Populations().meaning(library)().distance(expected) < 1e-12


def test_smc_of_a_continuous_computation_is_unbiased():
    r, ys = semantics.Suspended(), (0.5, -1.0)

    def step(name, y):
        def go_on(x):
            moved = r.sample(name, dist.Normal(x, 1.0))
            return r.bind(
                moved, lambda z: r.bind(r.score(dist.Normal(z, 1.0).log_prob(y)), lambda _: r.unit(z))
            )

        return go_on

    path = r.bind(step("x1", ys[0])(0.0), step("x2", ys[1]))
    smc = ppl.seed(semantics.particles(4, semantics.resample(inference.systematic))(path))
    populations = jax.jit(jax.vmap(smc))(jax.random.split(KEY, 20_000))
    covariance = np.array([[2.0, 1.0], [1.0, 3.0]])
    evidence = np.exp(-0.5 * np.array(ys) @ np.linalg.solve(covariance, ys)) / (
        2 * np.pi * np.sqrt(np.linalg.det(covariance))
    )
    assert_mean(np.exp(np.asarray(populations.log_weight, np.float64)).mean(1) / evidence, 1.0)


def test_where_no_member_has_weight_none_comes_to_have_it():
    dead = semantics.replicate(2)(lambda: (jnp.array(1), jnp.array(-jnp.inf)))
    population = ppl.seed(semantics.resample(inference.systematic)(dead))(KEY)
    assert np.all(population.log_weight == -jnp.inf) and population.size == 2


# ------------------------------------------------------------------------- populations and traces as they are built


def test_the_members_of_a_bound_population():
    r = semantics.Populations(3)
    pairs = r.bind(
        r.sample("x", dist.Normal(0.0, 1.0)),
        lambda x: r.bind(r.sample("y", dist.Normal(x, 1.0)), lambda y: r.unit((x, y))),
    )
    population = ppl.seed(pairs)(KEY)
    x, y = population.value
    assert population.size == 9 and len(np.unique(y)) == 9
    np.testing.assert_array_equal(x, np.repeat(x[::3], 3))
    np.testing.assert_array_equal(population.origin, np.repeat(np.arange(3), 3))


def test_a_bound_population_says_after_which_factor_it_died():
    r = semantics.Populations()
    alive, dead = (inference.importance(p, 2, check=False) for p in (weighted_coin, _impossible))
    population = ppl.seed(r.bind(alive, lambda _: dead))(KEY)
    assert population.factors[int(population.died)].startswith("'never'")
    assert int(ppl.seed(r.bind(alive, lambda x: r.score(0.5 * x)))(KEY).died) == -1
    population = ppl.seed(r.bind(dead, lambda _: alive))(KEY)
    assert population.factors[int(population.died)].startswith("'never'")


def _impossible():
    ppl.factor(-jnp.inf, "never")
    return jnp.array(0)


def test_a_bound_trace_is_the_trace_of_the_whole():
    trace = ppl.seed(walk(semantics.Traced()))(KEY)
    whole = walk(semantics.Programs())
    assert set(trace.choices) == {"x", "y"}
    np.testing.assert_allclose(trace.log_density, ppl.log_density(whole)(trace.choices), rtol=1e-6)


def test_two_parts_with_one_address():
    r = semantics.Traced()
    twice = r.bind(r.sample("x", dist.Bernoulli(0.5)), lambda _: r.sample("x", dist.Bernoulli(0.5)))
    with pytest.raises(ppl.AddressError, match="'x'"):
        r.meaning(twice)()


def test_arguments_go_to_all_parts():
    r = semantics.Weighted()
    flip = lambda p: (ppl.sample("x", dist.Bernoulli(p)), jnp.zeros(()))  # noqa: E731
    scored = lambda x: lambda p: (x, jnp.log(p))  # noqa: E731
    measure = r.meaning(r.bind(flip, scored))(jnp.array(0.25))
    assert measure == semantics.Measure([0, 1], [0.75 * 0.25, 0.25 * 0.25])


@pytest.mark.parametrize("program", [impossible_coin, chain])
def test_sampling_has_no_weights(program):
    with pytest.raises(ppl.UnsupportedError, match="carries weights"):
        semantics.Sampling().meaning(program)()
    with pytest.raises(ppl.UnsupportedError, match="use Weighted"):
        semantics.Sampling().score(0.5)
