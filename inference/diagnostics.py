"""Whether chains have forgotten their start, and what their draws are worth.

Functions of ``[chain, draw, ...]``, in double precision; every number in the further axes is looked at by itself.
Chains are split in halves throughout.

Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner, *Rank-normalization, folding, and localization: an improved
R-hat for assessing convergence of MCMC*, Bayesian Analysis 16 (2021).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np

FEWEST = 4  # draws of a chain that can be split in two
_TAIL = 0.05
_AT_A_TIME = 64  # numbers: bounds the memory


def rhat(x) -> np.ndarray:
    """R-hat: how much wider the draws of all chains together are than those of one.

    The square root of the ratio of the two variances: of the ranks of the draws, mapped to a normal distribution, or of
    the ranks of their distances from the median if that is larger. About 1 if chains agree; below 1.01 is good.
    Infinite where no chain moves and they differ; NaN where a draw is, where all draws are the same, and if a chain has
    fewer than four.

    Source: Vehtari et al., equations 1 to 4, 14 and 15.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(rhat(x) < 1.01), bool(rhat(x + np.arange(4)[:, None]) > 1.5)
    (True, True)
    """

    def larger(x):
        folded = np.abs(x - np.median(x, axis=(0, 1)))
        # Of draws that are zero or one, as many of each, all distances are the same: then the ranks alone count.
        return np.fmax(_rhat(_normal_scores(x)), _rhat(_normal_scores(folded)))

    return _of_halves(larger, x)


def ess_bulk(x) -> np.ndarray:
    """The effective sample size for the centre of the distribution: that of the ranks, mapped to a normal distribution.

    Zero where all draws are the same; NaN where a draw is, and if a chain has fewer than four.

    >>> bool(3000 < ess_bulk(np.random.default_rng(0).normal(size=(4, 1000))) < 5000)
    True
    """
    return _of_halves(lambda x: _ess(_normal_scores(x)), x)


def ess_tail(x) -> np.ndarray:
    """The effective sample size for the tails: the smaller one of those of being in the lowest and in the highest 5%.

    Draws on the limit are in the tail, so that it has draws even if many are the same. If it has all draws, as of a
    number that is zero but for a few, the other tail counts alone. Zero and NaN as of :func:`ess_bulk`.
    """

    def smaller(x):
        low, high = np.quantile(x, [_TAIL, 1 - _TAIL], axis=(0, 1))
        sizes = [np.where(tail.all((0, 1)), np.inf, _ess(1.0 * tail)) for tail in (x <= low, x >= high)]
        found = np.minimum(*sizes)
        return np.where(np.isinf(found), 0.0, found)

    return _of_halves(smaller, x)


def ess_mean(x) -> np.ndarray:
    """The effective sample size for the mean: the variance of the draws over that of their mean.

    Zero and NaN as of :func:`ess_bulk`. The standard error of the mean is the standard deviation over its square root.
    """
    return _of_halves(_ess, x)


def energy_bfmi(energy) -> np.ndarray:
    """The estimated Bayesian fraction of missing information of each chain, of energies ``[chain, draw]``.

    The mean square of the steps of the energy over its variance: 2 if energies are independent, and below 0.3 where new
    momenta change the energy too little for the chain to get into the tails.

    Source: Betancourt, *Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo*, 2016.

    >>> energy = np.random.default_rng(0).normal(size=(1, 1000))
    >>> bool(energy_bfmi(energy)[0] > 1.8), bool(energy_bfmi(np.cumsum(energy, 1))[0] < 0.3)
    (True, True)
    """
    energy = np.asarray(energy, np.float64)
    if energy.shape[1] < FEWEST:
        return np.full(len(energy), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)


# ------------------------------------------------------------------------- of chains that are split: [chain, draw, n]


def _rhat(x: np.ndarray) -> np.ndarray:
    draws = x.shape[1]
    is_still = np.all(x == x[:, :1], axis=(0, 1))
    within, between = np.where(is_still, 0, x.var(1, ddof=1).mean(0)), x.mean(1).var(0, ddof=1)
    return np.sqrt((draws - 1) / draws + between / within)


def _ess(x: np.ndarray) -> np.ndarray:
    """Equations 7 to 10, with Geyer's initial positive and monotone sequences of pairs of lags."""
    chains, draws, _ = x.shape
    covariance = _autocovariance(x)
    within = covariance[0] * draws / (draws - 1)
    overall = covariance[0] + x.mean(1).var(0, ddof=1)
    rho = 1 - (within - covariance) / overall
    rho[0] = 1
    even, odd = rho[: draws // 2 * 2 : 2], rho[1::2]
    pairs = even + odd
    counts = np.logical_and.accumulate(pairs > 0, axis=0)
    total = np.sum(np.where(counts, np.minimum.accumulate(pairs, axis=0), 0), axis=0)
    # The even lag of the pair that is cut: for chains that alternate.
    last = counts.sum(0)
    rest = np.take_along_axis(np.append(even, np.zeros_like(even[:1]), axis=0), last[None], axis=0)[0]
    tau = -1 + 2 * total + np.maximum(rest, 0)
    size = chains * draws / np.maximum(tau, 1 / np.log10(chains * draws))
    return np.where(np.all(x == x[:1, :1], axis=(0, 1)), 0.0, np.where(np.isnan(overall), np.nan, size))


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """The mean over chains, at each lag: ``[lag, n]``."""
    draws = x.shape[1]
    spectrum = np.fft.rfft(x - x.mean(1, keepdims=True), n=2 * draws, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, n=2 * draws, axis=1)[:, :draws].mean(0) / draws


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """The normal quantiles of the ranks, equation 14; equal draws have the mean of their ranks."""
    flat = x.reshape(-1, x.shape[2])
    scores = np.empty_like(flat)
    for i, column in enumerate(flat.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        twice = 2 * np.cumsum(counts) - counts + 1  # the mean rank, times two
        scores[:, i] = np.where(np.isnan(column), np.nan, _quantiles(len(column))[twice][inverse])
    return scores.reshape(x.shape)


@lru_cache(maxsize=8)
def _quantiles(size: int) -> np.ndarray:
    """Of half a rank, a whole one, one and a half, ..., of ``size`` draws."""
    quantile = NormalDist().inv_cdf
    return np.array(
        [np.nan, np.nan, *(quantile((r / 2 - 3 / 8) / (size + 1 / 4)) for r in range(2, 2 * size + 1))]
    )


def _of_halves(diagnose: Callable, x) -> np.ndarray:
    """What is found of the halves of chains, for each number; NaN where one of its draws is."""
    x = np.asarray(x, np.float64)
    shape, half = x.shape[2:], x.shape[1] // 2
    if x.shape[1] < FEWEST:
        return np.full(shape, np.nan)
    x = np.concatenate([x[:, :half], x[:, half : 2 * half]]).reshape(2 * len(x), half, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [diagnose(x[..., i : i + _AT_A_TIME]) for i in range(0, x.shape[2], _AT_A_TIME)]
    found = np.concatenate([np.zeros(0), *parts])
    return np.where(np.isnan(x).any((0, 1)), np.nan, found).reshape(shape)
