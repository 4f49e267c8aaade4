"""loo: exact leave-one-out densities of a conjugate program, ArviZ's results, and what cannot be left out."""

from __future__ import annotations

import arviz
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from borelax import inference, ppl
from borelax.inference.chains.diagnostics import ess_mean

RNG = np.random.default_rng(0)


def posterior(y) -> stats.rv_continuous:
    """Of a place with a standard normal prior, from measurements with variance one."""
    return stats.norm(y.sum() / (len(y) + 1), np.sqrt(1 / (len(y) + 1)))


def log_likelihood(y, shape=(4, 1000)) -> np.ndarray:
    """At the quantiles of the posterior, in random order: draws without noise."""
    place = RNG.permutation(posterior(y).ppf((np.arange(np.prod(shape)) + 0.5) / np.prod(shape))).reshape(
        shape
    )
    return stats.norm(place[..., None]).logpdf(y)


Y = np.array([0.3, -0.5, 1.2, 0.8, 0.1, -1.1, 0.4, 0.9])


def test_it_is_the_density_given_all_others():
    right = []
    for i, y in enumerate(Y):
        rest = posterior(np.delete(Y, i))
        right.append(stats.norm(rest.mean(), np.sqrt(1 + rest.var())).logpdf(y))
    found = inference.loo({"y": log_likelihood(Y)})
    assert found.warnings == ()
    np.testing.assert_allclose(found.pointwise["y"], right, atol=5e-3)
    np.testing.assert_allclose([found.elpd, found.se], [np.sum(right), np.std(right) * np.sqrt(8)], atol=1e-2)
    at_draws = stats.norm(posterior(Y).mean(), np.sqrt(1 + posterior(Y).var())).logpdf(Y)
    np.testing.assert_allclose(found.effective_parameters, at_draws.sum() - np.sum(right), atol=2e-2)


def test_it_is_that_of_arviz():
    x = RNG.normal(size=(4, 250, 6)) - RNG.normal(size=(4, 250, 1)) ** 2
    found = inference.loo({"y": x})
    data = arviz.from_dict(posterior={"x": x[..., 0]}, log_likelihood={"y": x})
    shares = ess_mean(np.exp(x)) / 1000
    for i in range(6):  # ArviZ takes one share for all elements
        one = data.isel(y_dim_0=[i])
        with pytest.warns(UserWarning, match="Pareto|pointwise|point-wise"):
            right = arviz.loo(one, pointwise=True, reff=float(shares[i]))
        np.testing.assert_allclose(found.pointwise["y"][i], right.elpd_loo, rtol=1e-10)
        np.testing.assert_allclose(found.khat["y"][i], right.pareto_k, rtol=1e-10)


def test_sites_and_axes_add_up():
    x, z = RNG.normal(size=(2, 4, 100, 3)) / 4
    both = inference.loo({"x": x, "block": {"z": z[..., None]}})
    apart = [inference.loo({"x": x}), inference.loo({"z": z})]
    assert both.pointwise["block/z"].shape == (3, 1)
    np.testing.assert_allclose(both.elpd, sum(one.elpd for one in apart))
    np.testing.assert_allclose(both.effective_parameters, sum(one.effective_parameters for one in apart))
    lines = repr(both).splitlines()
    assert lines[0].startswith("LOO: elpd") and [line.split()[0] for line in lines[2:]] == ["x", "block/z"]
    assert "<table>" in both._repr_html_()


def test_programs_are_compared_element_by_element():
    """The standard error is of the differences, which are steadier than the densities."""
    one, other = inference.loo({"y": log_likelihood(Y)}), inference.loo({"y": log_likelihood(Y) - 0.5})
    difference, se = one.difference(other)
    np.testing.assert_allclose(difference, 4.0, atol=1e-2)
    assert se < 0.02 < one.se
    assert other.difference(one)[0] == -difference
    with pytest.raises(ValueError, match="not the same"):
        one.difference(inference.loo({"y": log_likelihood(Y[:3])}))


def test_an_element_that_decides_the_posterior_cannot_be_left_out():
    found = inference.loo({"y": log_likelihood(np.append(0.1 * Y, 12.0), shape=(4, 250))})
    assert np.all(found.khat["y"][:-1] < 0.6) and found.khat["y"][-1] > 0.7
    assert found.warnings[0].startswith("1 element of 'y' cannot be left out by weighting (k-hat above 0.67)")
    assert "WARNING" in repr(found) and "<li>" in found._repr_html_()


REFUSED = {
    "nothing": ({}, ValueError, "observes nothing"),
    "zero": (
        {"y": np.where(np.arange(3) > 1, -np.inf, np.zeros((4, 10, 3)))},
        ValueError,
        "not finite in 40 of 120",
    ),
    "axes": ({"y": np.zeros(10)}, ValueError, r"no axes \[chain, draw\].*\(10,\)"),
    "in a branch": (
        {"y": ppl.Masked(jnp.zeros((4, 10)), jnp.ones((4, 10), bool))},
        ppl.UnsupportedError,
        "in some branches only",
    ),
}


@pytest.mark.parametrize(("found", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_elements_is_refused(found, error, match):
    with pytest.raises(error, match=match):
        inference.loo(found)
