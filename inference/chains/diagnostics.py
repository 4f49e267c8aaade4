"""Whether chains have forgotten their start, and what their draws are worth.

Functions of ``[chain, draw, ...]``; every number in the further axes is looked at by itself, and chains are split in
halves throughout. They return NumPy arrays and compute in double precision; in ``jit`` and ``vmap`` they are part of
what is compiled, in the precision of what they are given. Of what has no such axes they raise ``ValueError``.

Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner, *Rank-normalization, folding, and localization: an improved
R-hat for assessing convergence of MCMC*, Bayesian Analysis 16 (2021).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import jax
import numpy as np

from ..array_module import array_module, as_floats

FEWEST = 4  # draws of a chain that can be split in two
_ONE_IN = 20  # draws is in a tail
_AT_A_TIME = 64  # numbers: bounds the memory


def rhat(x):
    """R-hat: how much wider the draws of all chains together are than those of one.

    The square root of the ratio of the two variances: of the ranks of the draws, mapped to a normal distribution, or of
    the ranks of their distances from the median if that is larger. About 1 if chains agree; below 1.01 is good.
    Infinite where no chain moves and they differ; NaN where a draw is, where all draws are the same, and if a chain has
    fewer than four.

    Args:
      x: ``[chain, draw, ...]``.

    Source: Vehtari et al., equations 1 to 4, 14 and 15.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(rhat(x) < 1.01), bool(rhat(x + np.arange(4)[:, None]) > 1.5)
    (True, True)
    """

    def larger(x):
        xp = array_module(x)
        folded = xp.abs(x - xp.median(x, axis=(0, 1)))
        # Of draws that are zero or one, as many of each, all distances are the same: then the ranks alone count.
        return xp.fmax(_rhat(_normal_scores(x)), _rhat(_normal_scores(folded)))

    return _of_halves(larger, x)


def ess_bulk(x):
    """The effective sample size for the centre of the distribution: that of the ranks, mapped to a normal distribution.

    Zero where all draws are the same; NaN where a draw is, and if a chain has fewer than four.

    Args:
      x: ``[chain, draw, ...]``.

    >>> bool(3000 < ess_bulk(np.random.default_rng(0).normal(size=(4, 1000))) < 5000)
    True
    """
    return _of_halves(lambda x: _ess(_normal_scores(x)), x)


def ess_tail(x):
    """The effective sample size for the tails: the smaller one of those of being in the lowest and in the highest 5%.

    Draws on the limit are in the tail, so that it has draws even if many are the same. If it has all draws, as of a
    number that is zero but for a few, the other tail counts alone. Zero and NaN as of :func:`ess_bulk`.

    Args:
      x: ``[chain, draw, ...]``.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < ess_tail(x) < 5000), bool(ess_tail(np.sort(x)) < 100)
    (True, True)
    """

    def smaller(x):
        xp = array_module(x)
        ordered = xp.sort(x.reshape(-1, x.shape[2]), axis=0)
        # A draw is below a quantile that lies between two draws if it is below or at the lower one of them.
        last = (len(ordered) - 1) // _ONE_IN
        tails = x <= ordered[last], x >= ordered[-1 - last]
        sizes = [xp.where(tail.all((0, 1)), xp.inf, _ess(tail.astype(x.dtype))) for tail in tails]
        found = xp.minimum(*sizes)
        return xp.where(xp.isinf(found), 0.0, found)

    return _of_halves(smaller, x)


def ess_mean(x):
    """The effective sample size for the mean: the variance of the draws over that of their mean.

    Zero and NaN as of :func:`ess_bulk`. The standard error of the mean is the standard deviation over its square root.

    Args:
      x: ``[chain, draw, ...]``.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < ess_mean(x) < 5000), bool(ess_mean(np.repeat(x, 10, axis=1)) < 5000)
    (True, True)
    """
    return _of_halves(_ess, x)


def energy_bfmi(energy):
    """The estimated Bayesian fraction of missing information of each chain, of energies ``[chain, draw]``.

    The mean square of the steps of the energy over its variance: 2 if energies are independent, and below 0.3 where new
    momenta change the energy too little for the chain to get into the tails.

    Source: Betancourt, *Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo*, 2016.

    >>> energy = np.random.default_rng(0).normal(size=(1, 1000))
    >>> bool(energy_bfmi(energy)[0] > 1.8), bool(energy_bfmi(np.cumsum(energy, 1))[0] < 0.3)
    (True, True)
    """
    energy = _chains(energy)
    xp = array_module(energy)
    if energy.shape[1] < FEWEST:
        return xp.full(len(energy), xp.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        energy = energy - energy.mean(1, keepdims=True)
        return xp.mean(xp.diff(energy, axis=1) ** 2, axis=1) / xp.var(energy, axis=1)


# ------------------------------------------------------------------------- of chains that are split: [chain, draw, n]


def _rhat(x):
    xp, draws = array_module(x), x.shape[1]
    is_still = xp.all(x == x[:, :1], axis=(0, 1))
    within, between = xp.where(is_still, 0, x.var(1, ddof=1).mean(0)), x.mean(1).var(0, ddof=1)
    return xp.sqrt((draws - 1) / draws + between / within)


def _ess(x):
    """Equations 7 to 10, with Geyer's initial positive and monotone sequences of pairs of lags."""
    xp, (chains, draws, _) = array_module(x), x.shape
    is_still = xp.all(x == x[:1, :1], axis=(0, 1))
    x = x - x.mean((0, 1))  # in single precision, far from zero little is left of differences
    x = x / xp.where(is_still, 1, xp.abs(x).max((0, 1)))  # and squares may be too large or too small
    covariance = _autocovariance(x)
    within = covariance[0] * draws / (draws - 1)
    overall = covariance[0] + x.mean(1).var(0, ddof=1)
    rho = xp.concatenate([xp.ones_like(overall)[None], 1 - (within - covariance[1:]) / overall])
    even, odd = rho[: draws // 2 * 2 : 2], rho[1::2]
    pairs = even + odd
    counts = xp.logical_and.accumulate(pairs > 0, axis=0)
    total = xp.sum(xp.where(counts, xp.minimum.accumulate(pairs, axis=0), 0), axis=0)
    # The even lag of the pair that is cut: for chains that alternate.
    rest = xp.concatenate([even, xp.zeros_like(even[:1])])
    rest = xp.take_along_axis(rest, counts.sum(0)[None], axis=0)[0]
    tau = -1 + 2 * total + xp.maximum(rest, 0)
    size = chains * draws / xp.maximum(tau, 1 / np.log10(chains * draws))
    return xp.where(is_still, 0.0, xp.where(xp.isnan(overall), xp.nan, size))


def _autocovariance(x):
    """The mean over chains, at each lag: ``[lag, n]``."""
    xp, draws = array_module(x), x.shape[1]
    spectrum = xp.fft.rfft(x - x.mean(1, keepdims=True), n=2 * draws, axis=1)
    return xp.fft.irfft(xp.abs(spectrum) ** 2, n=2 * draws, axis=1)[:, :draws].mean(0) / draws


def _normal_scores(x):
    """The normal quantiles of the ranks, equation 14; equal draws have the mean of their ranks."""
    xp, flat = array_module(x), x.reshape(-1, x.shape[2])
    size = len(flat)
    order = xp.argsort(flat, axis=0)
    ordered = xp.take_along_axis(flat, order, axis=0)
    place = xp.broadcast_to(xp.arange(size)[:, None], flat.shape)
    edge = xp.ones_like(ordered[:1], dtype=bool)
    differs = ordered[1:] != ordered[:-1]
    first = xp.maximum.accumulate(xp.where(xp.concatenate([edge, differs]), place, 0), axis=0)
    last = xp.where(xp.concatenate([differs, edge]), place, size - 1)
    last = xp.minimum.accumulate(last[::-1], axis=0)[::-1]
    twice = xp.take_along_axis(
        first + last + 2, xp.argsort(order, axis=0), axis=0
    )  # the mean rank, times two
    scores = _quantiles(size)[twice] if xp is np else _quantiles_of_ranks(twice, size, x.dtype)
    return xp.where(xp.isnan(flat), xp.nan, scores).reshape(x.shape)


@lru_cache(maxsize=8)
def _quantiles(size: int) -> np.ndarray:
    """Of half a rank, a whole one, one and a half, ..., of ``size`` draws."""
    quantile = NormalDist().inv_cdf
    return np.array(
        [np.nan, np.nan, *(quantile((r / 2 - 3 / 8) / (size + 1 / 4)) for r in range(2, 2 * size + 1))]
    )


def _quantiles_of_ranks(twice, size: int, dtype):
    """The same, of ranks times two, from the nearer end: in single precision, little is left of one less a little."""
    xp = array_module(twice)
    nearer = xp.minimum(twice, 2 * (size + 1) - twice)
    below = jax.scipy.special.ndtri((nearer.astype(dtype) / 2 - 3 / 8) / (size + 1 / 4))
    return xp.where(twice <= size + 1, below, -below)


def _chains(x):
    """
    Raises:
      ValueError: these are no chains of draws.
    """
    x = as_floats(x)
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(
            f"draws are [chain, draw, ...], of one chain or more; these have the shape {x.shape}: of a single chain, "
            "write x[None]"
        )
    return x


def _of_halves(diagnose: Callable, x):
    """What is found of the halves of chains, for each number; NaN where one of its draws is."""
    x = _chains(x)
    xp, shape, half = array_module(x), x.shape[2:], x.shape[1] // 2
    if x.shape[1] < FEWEST:
        return xp.full(shape, xp.nan)
    x = xp.concatenate([x[:, :half], x[:, half : 2 * half]]).reshape(2 * len(x), half, -1)
    at_a_time = _AT_A_TIME if xp is np else max(x.shape[2], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [diagnose(x[..., i : i + at_a_time]) for i in range(0, x.shape[2], at_a_time)]
    found = xp.concatenate([xp.zeros(0, x.dtype), *parts])
    return xp.where(xp.isnan(x).any((0, 1)), xp.nan, found).reshape(shape)
