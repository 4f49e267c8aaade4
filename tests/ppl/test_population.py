from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl

KEY = jax.random.key(0)


def weighted():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(x)
    return x


def importance(n):
    return ppl.seed(inference.importance(weighted, n))(KEY)


def relative_error(log_weight):
    """sqrt of (n / (n - 1)) sum W^2 - 1 / (n - 1): the variance of a mean of weights over its square."""
    w = np.exp(np.asarray(log_weight, np.float64))
    return np.std(w, ddof=1) / np.sqrt(len(w)) / np.mean(w)


def test_without_resampling_the_standard_error_is_that_of_a_mean_of_weights():
    population = importance(100)
    np.testing.assert_allclose(population.log_evidence_se, relative_error(population.log_weight), rtol=1e-3)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-4, 1e-2])
def test_a_small_standard_error_keeps_its_digits_in_single_precision(spread):
    """Of weights that are nearly equal: of members, and of a thousand members in each of some families."""
    noise = np.random.default_rng(0).normal(size=100)
    weight = 1 + np.float32(spread * noise)
    of_members = replace(importance(100), log_weight=jnp.log1p(jnp.asarray(weight - 1)))
    origin = jnp.repeat(jnp.arange(100), 1000)
    of_families = replace(of_members, log_weight=jnp.repeat(of_members.log_weight, 1000), origin=origin)
    for population in (of_members, of_families):
        np.testing.assert_allclose(population.log_evidence_se, relative_error(np.log(weight)), 1e-2, 1e-7)


@pytest.mark.parametrize("log_growth", [-0.3, 0.0, 0.01, 2.0, 200.0])
def test_the_standard_error_is_the_one_of_the_formula(log_growth):
    population = replace(importance(6), origin=jnp.array([0, 0, 1, 1, 4, 5]))
    population = replace(population, log_growth=jnp.asarray(log_growth))
    weight = np.asarray(population.weight, np.float64)
    family = np.bincount(population.origin, weight, minlength=6)
    variance = 1 - 6 / 5 * np.exp(log_growth) * (1 - np.sum(family**2))
    np.testing.assert_allclose(population.log_evidence_se, np.sqrt(np.clip(variance, 0, 1)), rtol=1e-4)
    of_one = replace(population, origin=jnp.full(6, 3))
    assert of_one.log_evidence_se == 1.0


@pytest.mark.parametrize("n", [5, 20, 100, 300])
def test_resampling_to_another_size_cannot_make_the_evidence_more_certain(n):
    """It keeps the estimate as it was, so an error that shrinks is one that is not reported."""
    population = importance(100)
    resampled = population.resample(jax.random.key(1), n)
    assert resampled.size == n and resampled.value.shape == (n,)
    np.testing.assert_allclose(resampled.log_evidence, population.log_evidence, rtol=1e-5)
    # the families of the new population are those of the old one up to one member each, out of n
    slack = 1.0 / np.sqrt(n)
    assert float(resampled.log_evidence_se) > float(population.log_evidence_se) - slack
    assert float(resampled.log_evidence_se) > 0


def test_a_batch_of_populations_is_not_summed_over():
    """FIELD bug 10. A batch is answered row by row, or refused."""
    batch = jax.vmap(ppl.seed(inference.importance(weighted, 4)))(jax.random.split(KEY, 3))
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(3)]
    for question in (
        lambda p: p.log_evidence,
        lambda p: p.ess,
        lambda p: p.log_evidence_se,
        lambda p: p.expectation(),
    ):
        expected = [float(question(row)) for row in rows]
        try:
            answer = question(batch)
        except ppl.BorelaxError:
            continue
        np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_expectation_is_self_normalised():
    population = importance(50)
    w = np.exp(np.asarray(population.log_weight, np.float64))
    expected = np.sum(w * np.asarray(population.value) ** 2) / w.sum()
    np.testing.assert_allclose(population.expectation(lambda x: x**2), expected, rtol=1e-5)


def test_the_repr_can_be_read():
    text = repr(importance(50))
    assert text.startswith("Population of 50: log evidence") and "ESS" in text and "45 more" in text


def test_all_dead():
    def program():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor(jnp.log(jnp.zeros(())), "nothing goes")

    population = ppl.seed(inference.importance(program, 3, check=False))(KEY)
    with pytest.warns(UserWarning, match="all 3 members have weight zero.*nothing goes"):
        assert float(population.log_evidence) == -np.inf
    assert float(population.ess) == 0.0
    for question in (lambda: population.expectation(), lambda: population.resample(KEY)):
        with pytest.raises(ppl.BorelaxError, match="nothing goes"):
            question()
