"""Diagnostics against the published formulas, written out here, and against what is known of autoregressions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from borelax.inference.diagnostics import energy_bfmi, ess_bulk, ess_mean, ess_tail, rhat

RNG = np.random.default_rng(0)


def halves(x):
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, half : 2 * half]])


def normal_scores(x):
    ranks = stats.rankdata(x).reshape(x.shape)
    return stats.norm.ppf((ranks - 3 / 8) / (x.size + 1 / 4))


def plain_rhat(x) -> float:
    n = x.shape[1]
    within, between = x.var(1, ddof=1).mean(), n * x.mean(1).var(ddof=1)
    return np.sqrt(((n - 1) / n * within + between / n) / within)


def plain_ess(x) -> float:
    """Vehtari and others (2021), equations 7 to 10, with Geyer's sequences: lag by lag."""
    chains, n = x.shape
    centred = x - x.mean(1, keepdims=True)
    covariance = [(centred[:, : n - t] * centred[:, t:]).sum(1).mean() / n for t in range(n)]
    within = covariance[0] * n / (n - 1)
    overall = covariance[0] + x.mean(1).var(ddof=1)
    rho = [1.0] + [1 - (within - covariance[t]) / overall for t in range(1, n)]
    pairs, t = [], 0
    while t + 1 < n and rho[t] + rho[t + 1] > 0:
        pairs.append(min(rho[t] + rho[t + 1], pairs[-1] if pairs else np.inf))
        t += 2
    rest = max(rho[t], 0.0) if t < n else 0.0  # of the pair at which the sum is cut
    tau = -1 + 2 * sum(pairs) + rest
    return x.size / max(tau, 1 / np.log10(x.size))


def of_the_tails(x) -> float:
    low, high = np.quantile(x, [0.05, 0.95])
    return min(plain_ess(1.0 * (x <= low)), plain_ess(1.0 * (x >= high)))


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
    folded = np.abs(split - np.median(split))
    expected = max(plain_rhat(normal_scores(split)), plain_rhat(normal_scores(folded)))
    assert rhat(x) == pytest.approx(expected, rel=1e-9)
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


def test_the_fraction_of_missing_information():
    """Of an autoregression of energies it is 2 (1 - rho)."""
    for rho in (0.0, 0.5, 0.95):
        found = energy_bfmi(autoregression(rho, 1, 200_000))[0]
        assert found == pytest.approx(2 * (1 - rho), rel=0.05)
    energy = RNG.normal(size=(2, 50))
    expected = [np.sum(np.diff(e) ** 2) / np.sum((e - e.mean()) ** 2) * 50 / 49 for e in energy]
    np.testing.assert_allclose(energy_bfmi(energy), expected)
