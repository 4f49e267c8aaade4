"""marginal and normalize: their densities, added up over all that is drawn for them, are those of what they draw."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def noisy(p=0.25):
    """A hidden bit and what is seen of it."""
    x = bit("x", p, proposal=dist.Bernoulli(0.5))
    return bit("y", 0.125 + 0.75 * x)


def p_noisy(y, p=0.25):
    return sum(w * (q if y else 1 - q) for w, q in [(1 - p, 0.125), (p, 0.875)])


def judged(reward=1.0):
    """An unnormalised program with a hidden site."""
    x = bit("x", 0.25, proposal=dist.Bernoulli(0.5))
    y = bit("y", 0.125 + 0.5 * x, proposal=dist.Bernoulli(0.75))
    ppl.factor(reward * y - 0.5 * x)


ALGORITHMS = {
    "exact": inference.enumerate,
    "one": partial(inference.importance, n=1),
    "three": partial(inference.importance, n=3),
    "smc": partial(inference.smc, n=2, ess_threshold=2.0),
}


def mean_of_exp(program, *args) -> float:
    """E[exp(value)] of a program that carries no weights, over all that it draws."""
    return semantics.meaning(program)(*args).expectation(jnp.exp)


# ------------------------------------------------------------------------- marginal


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("y", [0, 1])
def test_the_density_is_unbiased(algorithm, y):
    law = ppl.marginal(noisy, "y", ALGORITHMS[algorithm])
    density = ppl.log_density(lambda p: ppl.observe("seen", law(p), y))
    assert mean_of_exp(lambda p: density({}, p), jnp.array(0.25)) == pytest.approx(p_noisy(y), rel=1e-6)


@pytest.mark.parametrize("algorithm", ["exact", "three"])
def test_conditioning_a_site_on_a_marginal(algorithm):
    """The evidence of a program with a pseudo-marginal likelihood, by nested enumeration."""
    law = ppl.marginal(noisy, "y", ALGORITHMS[algorithm])

    def model():
        p = 0.25 + 0.5 * bit("high", 0.75)
        return ppl.sample("seen", law(p))

    conditioned = ppl.condition(model, {"seen": 1})
    runs = semantics.meaning(ppl.weigh(conditioned))()
    total = sum(weight * np.exp(log_weight) for (_, log_weight), weight in runs)
    assert total == pytest.approx(0.25 * p_noisy(1, 0.25) + 0.75 * p_noisy(1, 0.75), rel=1e-6)


def test_a_draw_runs_the_program():
    law = ppl.marginal(noisy, "y", inference.enumerate)
    model = lambda: ppl.sample("seen", law(jnp.array(0.25)))  # noqa: E731
    draws = jax.jit(jax.vmap(ppl.seed(model)))(jax.random.split(KEY, 20_000))
    assert_mean(draws, p_noisy(1))
    assert {int(v): w for v, w in semantics.meaning(model)()} == pytest.approx({0: p_noisy(0), 1: p_noisy(1)})
    trace = ppl.simulate(model)(KEY)
    assert float(jnp.exp(trace.log_density)) == pytest.approx(p_noisy(int(trace.value)), rel=1e-5)


def test_a_marginal_of_a_marginal():
    inner = ppl.marginal(noisy, "y", ALGORITHMS["three"])

    def outer():
        p = 0.25 + 0.5 * bit("high", 0.75)
        ppl.sample("z", inner(p))

    law = ppl.marginal(outer, "z", ALGORITHMS["three"])
    exact = ppl.marginal(
        lambda: ppl.sample(
            "z", ppl.marginal(noisy, "y", inference.enumerate)(0.25 + 0.5 * bit("high", 0.75))
        ),
        "z",
        inference.enumerate,
    )
    expected = 0.25 * p_noisy(1, 0.25) + 0.75 * p_noisy(1, 0.75)
    density = lambda law: ppl.log_density(lambda: ppl.observe("seen", law(), 1))({})  # noqa: E731
    assert float(jnp.exp(density(exact))) == pytest.approx(expected, rel=1e-6)
    estimates = jax.vmap(ppl.seed(lambda: density(law)))(jax.random.split(KEY, 20_000))
    assert_mean(jnp.exp(estimates), expected)


def test_under_vmap_and_scan():
    """Each element has an estimate of its own; what is closed over may be traced."""

    def model(ys):
        p = ppl.sample("p", dist.Uniform(0.0, 1.0))
        law = ppl.marginal(lambda: noisy(p), "y", inference.enumerate)
        jax.vmap(lambda y: ppl.observe("a", law(), y))(ys)
        lax.scan(lambda c, y: (c, ppl.observe("b", law(), y)), 0, ys)

    ys = jnp.array([0, 1, 1])
    density = jax.jit(ppl.log_density(model))
    expected = 2 * (np.log(p_noisy(0, 0.3)) + 2 * np.log(p_noisy(1, 0.3)))
    assert float(density({"p": 0.3}, ys)) == pytest.approx(expected, rel=1e-5)
    slope = jax.grad(lambda p: ppl.log_density(model)({"p": p}, ys))(0.3)
    by_hand = 2 * 0.75 * (-1 / p_noisy(0, 0.3) + 2 / p_noisy(1, 0.3))
    assert float(slope) == pytest.approx(by_hand, rel=1e-4)


def test_a_continuous_marginal():
    """The law of a sum of two normals, by importance sampling."""

    def sums():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(x, 1.0))

    law = ppl.marginal(sums, "y", partial(inference.importance, n=5))
    density = ppl.seed(lambda: ppl.log_density(lambda: ppl.observe("seen", law(), 0.5))({}))
    estimates = jax.jit(jax.vmap(density))(jax.random.split(KEY, 20_000))
    assert_mean(jnp.exp(estimates), float(jnp.exp(dist.Normal(0.0, jnp.sqrt(2.0)).log_prob(0.5))))


# ------------------------------------------------------------------------- normalize


def picked(algorithm, reward):
    """The law of what normalize draws, by enumeration of the algorithm."""

    def run():
        population = algorithm(kept(reward))()
        member = ppl.sample("member", dist.Categorical(logits=population.log_weight))
        return population.value[member]

    return {int(value): weight for value, weight in semantics.meaning(run)()}


def kept(reward):
    def program():
        x = bit("x", 0.25, proposal=dist.Bernoulli(0.5))
        y = bit("y", 0.125 + 0.5 * x, proposal=dist.Bernoulli(0.75))
        ppl.factor(reward * y - 0.5 * x)
        return y

    return program


@pytest.mark.parametrize("algorithm", ["exact", "one", "three"])
def test_the_density_is_that_of_what_is_picked(algorithm):
    algorithm = ALGORITHMS[algorithm]
    law = ppl.normalize(judged, "y", algorithm)
    expected = picked(algorithm, 1.0)
    for y in (0, 1):
        density = ppl.log_density(lambda y=y: ppl.observe("seen", law(), y))
        assert mean_of_exp(lambda d=density: d({})) == pytest.approx(expected[y], rel=1e-6)


def test_the_exact_posterior():
    weights = {int(v): w for v, w in semantics.meaning(kept(1.0))()}
    total = sum(weights.values())
    model = lambda: ppl.sample("y", ppl.normalize(judged, "y", inference.enumerate)())  # noqa: E731
    measure = {int(v): w for v, w in semantics.meaning(model)()}
    assert measure == pytest.approx({v: w / total for v, w in weights.items()}, rel=1e-6)
    draws = jax.jit(jax.vmap(ppl.seed(model)))(jax.random.split(KEY, 20_000))
    assert_mean(draws, measure[1])


def test_an_agent_that_reasons_about_an_agent():
    """Reference games: a listener infers the state from what a speaker, who reasons about a listener, says.

    Source: Frank and Goodman, Predicting pragmatic reasoning in language games, Science 336 (2012).
    """
    is_true = jnp.array([[1.0, 0.0], [1.0, 1.0]])  # of utterance u in state s

    def literal(u):
        s = ppl.sample("state", dist.Categorical(jnp.array([0.5, 0.5])))
        ppl.factor(jnp.log(is_true[u, s]))

    def speaker(s):
        u = ppl.sample("utterance", dist.Categorical(jnp.array([0.5, 0.5])))
        ppl.observe("understood", ppl.normalize(literal, "state", inference.enumerate)(u), s)

    def listener(u):
        s = ppl.sample("state", dist.Categorical(jnp.array([0.5, 0.5])))
        ppl.observe("said", ppl.normalize(speaker, "utterance", inference.enumerate)(s), u)
        return s

    # Utterance 1 is true of both states. Speaker in state 0: literal listeners give 1 and 1/2, so 2/3 and 1/3;
    # in state 1: 0 and 1/2, so 0 and 1. The listener who hears utterance 1: 1/3 against 1.
    measure = semantics.meaning(listener)(jnp.array(1))
    weights = {int(s): w / measure.total for s, w in measure}
    assert weights == pytest.approx({0: 0.25, 1: 0.75}, rel=1e-6)
    population = jax.jit(inference.enumerate(listener))(jnp.array(1))
    assert float(population.expectation()) == pytest.approx(0.75, rel=1e-6)


def test_nobody_to_pick():
    def impossible():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("n", dist.Bernoulli(0.5))
        ppl.factor(-jnp.inf)

    pick = lambda keep: ppl.normalize(impossible, keep, partial(inference.importance, n=3, check=False))()  # noqa: E731
    assert np.isnan(ppl.seed(lambda: ppl.sample("x", pick("x")))(KEY))
    assert ppl.seed(lambda: ppl.sample("n", pick("n")))(KEY) == jnp.iinfo(jnp.int32).min


# ------------------------------------------------------------------------- refusals


def test_what_is_refused():
    with pytest.raises(ppl.UnsupportedError, match=r"carries weights .*use ppl.normalize"):
        ppl.seed(lambda: ppl.sample("y", ppl.marginal(judged, "y", inference.enumerate)()))(KEY)
    with pytest.raises(ppl.AddressError, match=r"keep='yy' is no sample site .*did you mean 'y'"):
        ppl.marginal(noisy, "yy", inference.enumerate)(jnp.array(0.25))
    with pytest.raises(ppl.UnsupportedError, match="not reached exactly once"):
        branch = lambda: lax.cond(bit("a") == 1, lambda: bit("b"), lambda: 0)  # noqa: E731
        ppl.marginal(branch, "b", inference.enumerate)()
    estimated = ppl.marginal(noisy, "y", partial(inference.importance, n=2))
    with pytest.raises(ppl.UnsupportedError, match="estimate"):
        ppl.seed(ppl.weigh(lambda: bit("z", proposal=estimated(jnp.array(0.25)))))(KEY)
    with pytest.raises(ppl.UnseededError, match="ran outside"):
        ppl.log_density(lambda: ppl.observe("seen", estimated(jnp.array(0.25)), 1))({})
    model = lambda: ppl.sample("y", estimated(jnp.array(0.25)))  # noqa: E731
    old = ppl.simulate(model)(KEY)
    with pytest.raises(ppl.UnsupportedError, match="estimate"):
        ppl.seed(ppl.regenerate(model, ppl.select("y")))(KEY, old)
