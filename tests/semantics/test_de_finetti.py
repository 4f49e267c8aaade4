"""Mixtures of independent identical bits: those that are known, and urns of which it is known that there is none."""

from __future__ import annotations

from math import comb

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from borelax import ppl, semantics


def urn(n, white, black, added):
    def drawn():
        def step(balls, _):
            x = ppl.sample("x", dist.Bernoulli(balls[0] / balls.sum()))
            return balls + added * jnp.stack([x, 1 - x]), x

        return lax.scan(step, jnp.array([white, black], float), None, length=n)[1]

    return drawn


def mixture(n, values, weights):
    def flips():
        p = jnp.array(values)[ppl.sample("which", dist.Categorical(jnp.array(weights)))]
        return ppl.sample("flips", dist.Bernoulli(p).expand([n]).to_event(1))

    return flips


def law_of(mixing, n) -> np.ndarray:
    """The probabilities of 0, ..., n ones in n flips."""
    return sum(w * stats.binom.pmf(np.arange(n + 1), n, p) for p, w in mixing)


@pytest.mark.parametrize("n", range(2, 9))
def test_an_urn_that_is_added_to_is_a_mixture(n):
    """Pólya's: the law of the probability is a beta distribution, of which n flips tell n moments."""
    report = semantics.de_finetti(urn(n, 2, 3, 1))()
    assert report.holds and report.error < 1e-9 and report.mixing.total == pytest.approx(1.0)
    assert len(report.mixing) <= n // 2 + 1
    np.testing.assert_allclose(
        law_of(report.mixing, n), stats.betabinom.pmf(np.arange(n + 1), n, 2, 3), atol=1e-9
    )
    for k in range(n + 1):
        assert report.mixing.expectation(lambda p: p**k) == pytest.approx(
            stats.beta(2, 3).moment(k) if k else 1.0
        )


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_few_coins_are_found(n):
    values, weights = [0.25, 0.875], [0.375, 0.625]
    mixing = semantics.de_finetti(mixture(n, values, weights))().mixing
    assert mixing.distance(semantics.Measure(values, weights)) < 1e-7


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [2, 5])
def test_independent_bits(n, p):
    report = semantics.de_finetti(mixture(n, [p], [1.0]))()
    assert report.holds and report.mixing.distance(semantics.Measure([p], [1.0])) < 1e-6


@pytest.mark.parametrize(("n", "white", "black"), [(2, 2, 2), (3, 2, 2), (4, 3, 3), (2, 50, 50)])
def test_draws_without_replacement_are_exchangeable_and_no_mixture(n, white, black):
    program = urn(n, white, black, -1)
    assert semantics.exchangeable(program)().holds
    report = semantics.de_finetti(program)()
    assert not report.holds and report.mixing is None and report.counterexample.found < 0


def test_the_counterexample_is_one():
    """The polynomial is nowhere negative, and its mean by the probabilities of ones is the negative number given."""
    report = semantics.de_finetti(urn(3, 2, 2, -1))()
    text = report.counterexample.where.removeprefix("the mean of ").replace("^", "**")
    text = text.replace("p (", "p * (").replace(" p)", " * p)")
    polynomial = eval(text, {"p": np.polynomial.Polynomial([0.0, 1.0])})
    assert np.all(polynomial(np.linspace(0, 1, 1001)) >= -1e-12)
    moments = [
        sum(stats.hypergeom.pmf(j, 4, 2, 3) * comb(j, k) for j in range(4)) / comb(3, k) for k in range(4)
    ]
    mean = float(np.dot(polynomial.coef, moments[: len(polynomial.coef)]))
    assert mean == pytest.approx(report.counterexample.found, rel=1e-2) and mean < 0


def test_what_is_not_exchangeable_is_no_mixture():
    def program():
        x = ppl.sample("x", dist.Bernoulli(0.25))
        return jnp.stack([x, ppl.sample("y", dist.Bernoulli(0.5))])

    report = semantics.de_finetti(program)()
    assert not report.holds and report.unit == "total variation distance"
    assert tuple(map(int, report.counterexample.where)) in {(0, 1), (1, 0)}


def test_weights_count_in_proportion():
    def program():
        x = ppl.sample("x", dist.Bernoulli(0.5).expand([3]).to_event(1))
        ppl.factor(jnp.log(3.0) * x.sum())
        return x

    assert semantics.de_finetti(program)().mixing.distance(semantics.Measure([0.75], [1.0])) < 1e-6


def test_only_bits_and_only_finite_ones():
    dice = lambda: ppl.sample("x", dist.Categorical(jnp.ones(3) / 3).expand([2]).to_event(1))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="a vector of bits"):
        semantics.de_finetti(dice)()
    normal = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="not finite"):
        semantics.de_finetti(normal)()
