"""Diagnostics against the published formulas (``plain_diagnostics.py``), and what is known of autoregressions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_diagnostics import (
    halves,
    larger_rhat,
    normal_scores,
    of_the_tails,
    plain_ess,
    plain_rhat,
)

from borelax.inference import energy_bfmi, ess_bulk, ess_mean, ess_tail, rhat

RNG = np.random.default_rng(0)


def autoregression(rho: float, chains: int, draws: int) -> np.ndarray:
    noise = RNG.normal(size=(chains, draws)) * np.sqrt(1 - rho**2)
    x = [RNG.normal(size=chains)]
    for t in range(1, draws):
        x.append(rho * x[-1] + noise[:, t])
    return np.stack(x, 1)


SAMPLES = {
    "independent": RNG.normal(size=(4, 200)),
    "autoregression": autoregression(0.7, 4, 300),
    "antithetic": autoregression(-0.5, 4, 300),
    "drifting": np.linspace(0, 3, 200) + RNG.normal(size=(4, 200)),
    "apart": np.arange(4)[:, None] + RNG.normal(size=(4, 200)),
    "of different scales": np.array([[1.0], [1.0], [1.0], [3.0]]) * RNG.normal(size=(4, 200)),
    "Cauchy": RNG.standard_cauchy(size=(3, 200)),
    "with ties": RNG.poisson(3.0, size=(4, 200)).astype(float),
    "of odd length": RNG.normal(size=(2, 101)),
    "of one chain": autoregression(0.5, 1, 200),
}


@pytest.mark.parametrize("x", SAMPLES.values(), ids=SAMPLES)
def test_they_are_the_published_formulas(x):
    split = halves(x)
    assert rhat(x) == pytest.approx(larger_rhat(split), rel=1e-9)
    assert ess_mean(x) == pytest.approx(plain_ess(split), rel=1e-9)
    assert ess_bulk(x) == pytest.approx(plain_ess(normal_scores(split)), rel=1e-9)
    assert ess_tail(x) == pytest.approx(of_the_tails(split), rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.3])
def test_of_an_autoregression_the_size_is_known(rho):
    """N (1 - rho) / (1 + rho): with it, means of many samples, over their standard errors, have variance 1."""
    x = np.moveaxis(autoregression(rho, 4 * 2000, 400).reshape(2000, 4, 400), 0, -1)
    true = 1600 * (1 - rho) / (1 + rho)
    size = ess_mean(x)
    assert np.median(size) == pytest.approx(true, rel=0.1)
    standardised = x.mean((0, 1)) / (x.std((0, 1)) / np.sqrt(size))
    assert np.mean(standardised**2) == pytest.approx(1.0, rel=0.2)


def test_chains_that_drift_or_differ_are_seen():
    assert rhat(SAMPLES["independent"]) < 1.01
    assert all(rhat(SAMPLES[name]) > 1.1 for name in ("drifting", "apart", "of different scales"))


def test_of_as_many_zeros_as_ones_the_distances_from_the_median_say_nothing():
    x = RNG.permutation(np.arange(800) % 2).reshape(4, 200)
    assert rhat(x) == pytest.approx(plain_rhat(normal_scores(halves(x))), rel=1e-9)


def test_a_tail_that_has_all_draws_says_nothing():
    x = 1.0 * (RNG.uniform(size=(4, 500)) < 0.02)
    assert ess_tail(x) == pytest.approx(plain_ess(halves(1.0 * (x <= 0))), rel=1e-9)
    assert ess_tail(1 - x) == ess_tail(x) > 1000


def test_many_numbers_at_once():
    x = RNG.normal(size=(4, 100, 5, 9))
    for diagnose in (rhat, ess_bulk, ess_tail, ess_mean):
        found = diagnose(x)
        assert found.shape == (5, 9)
        for i in ((3, 7), (0, 0)):
            assert found[i] == pytest.approx(diagnose(x[..., *i]), rel=1e-12)


def test_where_there_is_nothing_to_diagnose():
    constant = np.ones((4, 100))
    assert ess_bulk(constant) == ess_tail(constant) == ess_mean(constant) == 0
    assert np.isnan(rhat(constant))
    assert rhat(constant * np.arange(4)[:, None]) == np.inf
    with_nan = RNG.normal(size=(4, 100, 2))
    with_nan[1, 5, 0] = np.nan
    for diagnose in (rhat, ess_bulk, ess_tail, ess_mean):
        assert np.isnan(diagnose(with_nan)).tolist() == [True, False]
        assert np.isnan(diagnose(np.ones((4, 3, 2)))).all()
        assert diagnose(np.ones((4, 100, 0))).shape == (0,)
        assert np.isfinite(diagnose(RNG.normal(size=(1, 4))))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_in_single_precision_the_scale_does_not_matter(scale):
    x = SAMPLES["autoregression"]
    found = jax.jit(ess_mean)(jnp.asarray(scale * x, jnp.float32))
    np.testing.assert_allclose(found, ess_mean(x), rtol=1e-3)


@pytest.mark.parametrize("x", [np.arange(10.0), np.zeros((0, 10)), 3.0], ids=["one axis", "no chain", "none"])
def test_what_are_no_chains_is_refused(x):
    for diagnose in (rhat, ess_bulk, ess_tail, ess_mean, energy_bfmi):
        with pytest.raises(ValueError, match=r"draws are \[chain, draw, ...\].*have the shape"):
            diagnose(x)


def test_the_fraction_of_missing_information():
    """Of an autoregression of energies it is 2 (1 - rho)."""
    for rho in (0.0, 0.5, 0.95):
        found = energy_bfmi(autoregression(rho, 1, 200_000))[0]
        assert found == pytest.approx(2 * (1 - rho), rel=0.05)
    energy = RNG.normal(size=(2, 50))
    right = [np.sum(np.diff(e) ** 2) / np.sum((e - e.mean()) ** 2) * 50 / 49 for e in energy]
    np.testing.assert_allclose(energy_bfmi(energy), right)


# ------------------------------------------------------------------------------ in jit

SHORT = {name: x[:3, :100] for name, x in SAMPLES.items() if len(x) >= 3}
FAR = {name: x + 1e4 * (name != "Cauchy") for name, x in SHORT.items()}


def diagnosed(x) -> tuple:
    return tuple(diagnose(x) for diagnose in (rhat, ess_bulk, ess_tail, ess_mean, energy_bfmi))


compiled = jax.jit(jax.vmap(diagnosed))


def assert_agrees(samples: list[np.ndarray], dtype, rtol: float) -> None:
    """What is found of all samples in one compiled function is what is found of each, in double precision."""
    found = compiled(jnp.asarray(np.stack(samples), dtype))
    for i, x in enumerate(samples):
        for here, there in zip(found, diagnosed(x)):
            assert here.dtype == dtype
            np.testing.assert_allclose(here[i], there, rtol)


def test_in_jit_they_are_the_same():
    with jax.enable_x64(True):
        assert_agrees(list(SHORT.values()), np.float64, 1e-10)


@pytest.mark.parametrize("samples", [SHORT, FAR], ids=["near zero", "far from it"])
def test_in_single_precision_they_are_nearly_the_same(samples):
    """Of draws that are rounded already. Distances from the median are rounded again, and their ranks change places."""
    assert_agrees([x.astype(np.float32) for x in samples.values()], np.float32, 2e-3)


def test_in_jit_there_is_nothing_to_diagnose_in_the_same_places():
    constant, with_nan = np.ones((3, 100)), SHORT["independent"].copy()
    with_nan[1, 5] = np.nan
    samples = [constant, constant * np.arange(3)[:, None], with_nan]
    others = [SHORT["independent"]] * (len(SHORT) - len(samples))
    assert_agrees([*samples, *others], np.float32, 1e-4)
    assert np.isnan(jax.jit(rhat)(constant[:, :3])).all() and jax.jit(rhat)(np.ones((3, 100, 0))).shape == (
        0,
    )


def test_chains_that_stop_when_they_agree():
    """A loop that asks for R-hat as it goes."""

    @jax.jit
    def until_they_agree(key):
        def more(state):
            number, x = state
            noise = jax.random.normal(jax.random.fold_in(key, number), (4, 50))
            start = 20.0 * jnp.arange(4.0)[:, None] * 0.5**number
            return number + 1, start + noise

        return jax.lax.while_loop(lambda state: rhat(state[1]) > 1.05, more, (0, more((0, None))[1]))

    number, x = until_they_agree(jax.random.key(0))
    assert 3 < number < 20 and rhat(x) <= 1.05
