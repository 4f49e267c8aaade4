"""predictive and prior_predictive: the law of new data by enumeration, conjugate posteriors, and what is refused."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
MANY = 20_000


def weather(see=ppl.observe):
    """A hidden chain of bits, seen through noise; a second thing is seen in one branch only."""

    def program(ys, z):
        def step(x, y):
            x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
            return x, see("y", dist.Bernoulli(0.125 + 0.75 * x), y)

        last, seen = lax.scan(step, 0, ys)
        lax.cond(last == 1, lambda: see("z", dist.Categorical(jnp.array([0.5, 0.25, 0.25])), z), lambda: 0)
        return ppl.deterministic("any", jnp.max(seen))

    return program


DATA = (jnp.array([1, 0]), jnp.array(2))


def frequencies(x) -> dict:
    rows, counts = np.unique(np.asarray(x), axis=0, return_counts=True)
    return {tuple(row.tolist()): count for row, count in zip(rows, counts)}


def assert_frequencies(counts: dict, right: dict) -> None:
    """The counts are those of independent draws with these probabilities, by a chi-square test."""
    assert counts.keys() == {value for value, p in right.items() if p > 0}
    n = sum(counts.values())
    statistic = sum((counts[value] - n * p) ** 2 / (n * p) for value, p in right.items() if p > 0)
    assert stats.chi2.sf(statistic, len(counts) - 1) > 1e-6


def law(program, *args) -> dict:
    """The values of a program that returns tuples of numbers, and their probabilities."""
    return {tuple(map(int, value)): weight for value, weight in semantics.meaning(program)(*args).normalise()}


def test_new_data_has_the_law_of_the_program_given_the_choices():
    x, z = jnp.array([1, 1]), ppl.Masked(jnp.array(0), jnp.array(False))

    def given(ys, z):
        trace = ppl.trace(ppl.do(weather(lambda name, d, value: ppl.sample(name, d)), {"x": x}))(ys, z)
        return (*trace.choices["y"], trace.choices["z"].value)

    many = {"x": jnp.broadcast_to(x, (4, MANY // 4, 2))}
    prediction = inference.predictive(weather(), many)(KEY, *DATA)
    y, z = prediction.observed["y"], prediction.observed["z"]
    assert y.shape == (4, MANY // 4, 2) and prediction.choices == {} and np.all(z.present)
    found = jnp.concatenate([y, z.value[..., None]], axis=-1).reshape(MANY, 3)
    assert_frequencies(frequencies(found), law(given, *DATA))
    np.testing.assert_array_equal(prediction.value, y.max(-1))
    np.testing.assert_array_equal(prediction.deterministic["any"], prediction.value)


def test_sites_that_are_not_given_are_drawn_anew():
    """Only the first bit is known: the second follows from it, and what is seen from both."""

    def known(ys, z):
        first = ppl.sample("first", dist.Bernoulli(0.25))
        with ppl.scope("rest"):
            second = ppl.sample("second", dist.Bernoulli(0.25 + 0.5 * first), proposal=dist.Bernoulli(0.5))
        ppl.observe("y", dist.Bernoulli(0.125 + 0.75 * second), ys[0])

    found = inference.predictive(known, {"first": jnp.ones(MANY, int)})(KEY, *DATA)
    assert_mean(found.choices["rest"]["second"], 0.75)  # from its own law, not from its proposal
    pairs = jnp.stack([found.choices["rest"]["second"], found.observed["y"]], axis=-1)
    right = {(s, y): (0.25, 0.75)[s] * abs((0.125, 0.875)[s] - (1 - y)) for s in (0, 1) for y in (0, 1)}
    assert_frequencies(frequencies(pairs), right)


def test_the_prior_predictive_is_the_meaning_of_the_program_that_draws():
    def drawing(ys, z):
        trace = ppl.trace(weather(lambda name, d, value: ppl.sample(name, d)))(ys, z)
        return (*trace.choices["x"], *trace.choices["y"], trace.choices["z"].present)

    prior = inference.prior_predictive(weather(), MANY)(KEY, *DATA)
    columns = [prior.choices["x"], prior.observed["y"], prior.observed["z"].present[:, None]]
    assert_frequencies(frequencies(jnp.concatenate(columns, axis=-1)), law(drawing, *DATA))


def rates(ys):
    rate = ppl.sample("rate", dist.Gamma(2.0, 1.0), proposal=dist.Gamma(1.0, 1.0))
    ppl.observe("y", dist.Poisson(rate).expand(ys.shape), ys)
    return rate


COUNTS = jnp.array([3, 1, 4])


def test_from_draws_of_a_conjugate_posterior_counts_are_negative_binomial():
    """Of as many elements as the new data has; the elements of a draw share its rate."""
    rate = jnp.array(np.random.default_rng(0).gamma(10.0, 1 / 4, (4, MANY // 4)), float)
    found = inference.predictive(rates, {"rate": rate})(jax.random.key(1), jnp.zeros(2, int))
    y = np.asarray(found.observed["y"]).reshape(MANY, 2)
    posterior = stats.nbinom(10, 4 / 5)
    assert_mean(y[:, :1] == np.arange(4), posterior.pmf(np.arange(4)))
    assert_mean(y.prod(-1), 10 / 16 + (10 / 4) ** 2)  # E[rate^2]
    np.testing.assert_array_equal(found.value, rate)


def test_it_is_compiled_once_for_data_of_one_shape():
    traced = []

    def program(ys):
        traced.append(None)
        return rates(ys)

    predict = inference.predictive(program, {"rate": jnp.ones((2, 3))})
    predict(KEY, COUNTS)
    once = len(traced)
    a, b = (predict(jax.random.key(i), COUNTS + 1).observed["y"] for i in (1, 2))
    assert len(traced) == once and not np.array_equal(a, b)
    assert len(np.unique(predict(KEY, jnp.zeros(1000, int)).observed["y"].sum(-1))) > 3  # a key for each draw
    np.testing.assert_array_equal(
        jax.jit(predict)(KEY, COUNTS).observed["y"], predict(KEY, COUNTS).observed["y"]
    )


# ------------------------------------------------------------------------------ what is refused


def after(y):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    y = ppl.observe("y", dist.Normal(x, 1.0), y)
    ppl.sample("z", dist.Normal(y, 1.0))


def weighed(y):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    y = ppl.observe("y", dist.Normal(x, 1.0), y)
    ppl.factor(-ppl.deterministic("square", y**2), name="small")


def hierarchy(y):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    x = ppl.sample("x", dist.Normal(m, 1.0))
    ppl.observe("y", dist.Normal(x, 1.0), 1.0 * jnp.sum(y))


def in_branch(y):
    b = ppl.sample("b", dist.Bernoulli(0.5))
    lax.cond(b == 1, lambda: ppl.factor(1.0, name="lucky"), lambda: None)
    ppl.observe("y", dist.Normal(0.0, 1.0), y)


ONES = jnp.ones(3)
FLOWS = {
    "data before a site": (after, {"x": ONES, "z": ONES}, "'y'.*'z'.*, which is given.*leave 'z' out"),
    "data before a factor": (weighed, {"x": ONES}, r"'y'.*the factor 'small' .*inference.smc\(ppl.unobserve"),
    "a parent that is left out": (hierarchy, {"x": ONES}, "'m'.*'x'.*, which is given"),
    "a factor in a branch": (in_branch, {}, "'b'.*the factor 'lucky'"),
}


@pytest.mark.parametrize(("program", "choices", "match"), FLOWS.values(), ids=FLOWS)
def test_what_would_have_another_law_is_refused(program, choices, match):
    predict = inference.predictive(program, choices) if choices else inference.prior_predictive(program, 3)
    with pytest.raises(ppl.UnsupportedError, match=match):
        predict(KEY, jnp.array(0.0))


def test_left_out_as_well_it_is_drawn_anew():
    found = inference.predictive(after, {"x": jnp.zeros(MANY)})(KEY, jnp.array(0.0))
    assert_mean((found.choices["z"] - found.observed["y"]) ** 2, 1.0)
    assert_mean(found.observed["y"] ** 2, 1.0)


def test_a_factor_of_what_is_given_has_been_counted():
    def program(y):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor(-(x**4))
        ppl.observe("y", dist.Normal(x, 1e-6), y)

    found = inference.predictive(program, {"x": ONES})(KEY, jnp.array(0.0))
    np.testing.assert_allclose(found.observed["y"], ONES, atol=1e-4)


def test_a_branch_for_which_there_are_no_draws():
    def program(which):
        z = lax.cond(which == 1, lambda: ppl.sample("z", dist.Normal(5.0, 1.0)), lambda: 0.0)
        ppl.observe("y", dist.Normal(z, 1e-6), 0.0)

    draws = {"z": ppl.Masked(jnp.array([4.0, 7.0]), jnp.array([True, False]))}
    predict = inference.predictive(program, draws)
    np.testing.assert_allclose(predict(KEY, jnp.array(0)).observed["y"], [0.0, 0.0], atol=1e-4)
    with pytest.raises(ppl.ChoiceError, match="'z' is reached, but was not present in 1 of the 2 draws"):
        predict(KEY, jnp.array(1))
    with pytest.raises(ppl.UnsupportedError, match="only some branches have 'z'"):
        jax.jit(predict)(KEY, jnp.array(1))


BAD = {
    "no choices": (lambda: inference.predictive(rates, {}), ppl.ChoiceError, "no choices to predict from"),
    "unknown": (partial(inference.predictive, rates, {"rat": ONES}), ppl.AddressError, "did you mean 'rate'"),
    "shapes": (
        partial(inference.predictive, rates, {"rate": ONES.astype(complex)}),
        ppl.ChoiceError,
        "dtype",
    ),
    "axes": (
        partial(inference.predictive, hierarchy, {"m": ONES, "x": ONES[:2]}),
        ppl.ChoiceError,
        "leading axes",
    ),
    "in part": (
        partial(inference.predictive, rates, {"rate": ppl.partly(ONES)}),
        ppl.ChoiceError,
        "known in part",
    ),
    "none": (partial(inference.prior_predictive, rates, 0), ValueError, "num_draws is a positive integer"),
}


@pytest.mark.parametrize(("make", "error", "match"), BAD.values(), ids=BAD)
def test_draws_that_make_no_sense(make, error, match):
    with pytest.raises(error, match=match):
        make()(KEY, COUNTS)
