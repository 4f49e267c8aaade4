"""Whether ranks are uniform: a sequential test by betting, and simultaneous bands for the eye."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .budget import Budget

_TILTS = np.exp(
    [-0.8, -0.4, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.4, 0.8]
)  # parameters of beta densities


@dataclass(frozen=True)
class Uniformity:
    """What the test found.

    Attributes:
      ranks: int ``[N, C]``: all that were looked at.
      bins: how many values a rank has.
      log_wealth: ``[C]``: the logarithm of what betting against each component has come to.
      p_value: of all components together, valid whenever the test stops.
      rejected: whether it is at most the false-alarm rate.
      error: the largest difference of a component's distribution function from that of uniform ranks.
      bound: no difference is larger than this, at the false-alarm rate.
    """

    ranks: np.ndarray
    bins: int
    log_wealth: np.ndarray
    p_value: float
    rejected: bool
    error: float
    bound: float


def uniform_ranks(drawn: Iterator[np.ndarray], bins: int, budget: Budget) -> Uniformity:
    """Tests that ranks are uniform on ``0, ..., bins - 1``. Those of one replication may depend on each other.

    Args:
      drawn: batches of ranks, int ``[B, C]`` each; independent from row to row.

    The wealth of a bettor on one component is its likelihood under other laws over that under the uniform one, averaged
    over laws fixed beforehand (:func:`log_wealth`). The wealths of all components are averaged. If all are uniform the
    mean is one, and it is ever above 1/a with probability at most a (Ville's inequality): the false-alarm rate holds
    exactly though one looks after every batch and stops at the first sign.

    Source: Shafer, *Testing by betting*, JRSS A 184 (2021); the bound is by Massart's inequality, Annals of Probability
    18 (1990).
    """
    seen: list[np.ndarray] = []
    counts, richest, alone = 0, 0.0, np.zeros(0)
    while True:
        seen.append(np.asarray(next(drawn)))
        counts = counts + count_ranks(seen[-1], bins)
        number = sum(map(len, seen))
        alone = log_wealth(counts)
        richest = max(richest, float(np.logaddexp.reduce(alone)) - math.log(len(alone)))
        error = float(np.max(np.abs(ecdf_difference(counts))))
        depth = math.log(2 * len(alone) / budget.false_alarm_rate) + math.log(1 + math.log2(number))
        bound = error + math.sqrt(depth / (2 * number))
        rejected = richest >= -math.log(budget.false_alarm_rate)
        if rejected or bound <= budget.resolution or number + budget.batch > budget.draws:
            ranks = np.concatenate(seen)
            return Uniformity(ranks, bins, alone, math.exp(-richest), rejected, error, bound)


def log_wealth(counts: np.ndarray) -> np.ndarray:
    """The log likelihood ratio of other laws to the uniform one at counts ``[..., K]`` of ranks, ``[...]``.

    Half is staked on laws with beta densities, from a grid: draws that are too narrow, too wide or shifted have ranks
    like that. The other half is on any law at all of the ranks in 2, 4, 8, ... groups, with Dirichlet priors of half a
    count for each group.

    >>> bool(log_wealth(np.array([10, 10, 10, 10])) < 0 < log_wealth(np.array([30, 4, 3, 3])))
    True
    """
    bins = counts.shape[-1]
    densities = counts @ _beta_log_ratios(bins)
    beta = np.logaddexp.reduce(densities, axis=-1) - math.log(densities.shape[-1])
    groupings = [2**i for i in range(1, 1 + max(1, int(math.log2(bins))))]
    any_law = np.logaddexp.reduce([_dirichlet(counts, size) for size in groupings]) - math.log(len(groupings))
    return np.logaddexp(beta, any_law) - math.log(2)


def count_ranks(ranks: np.ndarray, bins: int) -> np.ndarray:
    """How often each component has each rank: ``[N, C]`` to ``[C, bins]``."""
    return np.stack([np.bincount(column, minlength=bins) for column in ranks.T])


def ecdf_difference(counts: np.ndarray) -> np.ndarray:
    """The distribution function of ranks less that of uniform ones, at each rank: ``[..., K]``."""
    total = counts.sum(-1, keepdims=True)
    return counts.cumsum(-1) / total - np.arange(1, counts.shape[-1] + 1) / counts.shape[-1]


def ecdf_bands(
    number: int, bins: int, probability: float = 0.95, simulations: int = 10_000
) -> tuple[np.ndarray, np.ndarray]:
    """Between which functions that of ``number`` uniform ranks stays with this probability, at all ranks at once.

    At each rank a binomial interval, all of one tail probability, which is found by simulation with a fixed seed.
    Lower and upper bounds on :func:`ecdf_difference`, ``[bins]``.

    Source: Säilynoja, Bürkner and Vehtari, *Graphical test for discrete uniformity and its applications in goodness-of-
    fit evaluation and multiple sample comparison*, Statistics and Computing 32 (2022).

    >>> lower, upper = ecdf_bands(number=100, bins=4)
    >>> bool(lower[1] < -0.05 and upper[1] > 0.05)
    True
    """
    below = np.arange(1, bins) / bins
    tail = _binomial_cdf(number, below)  # [bins - 1, number + 1]
    rows = np.arange(bins - 1)
    simulated = np.random.default_rng(0).multinomial(number, np.full(bins, 1 / bins), simulations)
    reached = simulated.cumsum(-1)[:, :-1]
    at_most, at_least = tail[rows, reached], 1 - np.where(reached > 0, tail[rows, reached - 1], 0.0)
    level = np.quantile(np.minimum(at_most, at_least).min(-1), 1 - probability)
    lowest = (tail < level).sum(-1)
    highest = (1 - tail >= level).sum(-1)
    return np.append(lowest / number - below, 0.0), np.append(highest / number - below, 0.0)


# ------------------------------------------------------------------------- helpers


def _beta_log_ratios(bins: int) -> np.ndarray:
    """The log ratios of laws on ranks with beta densities to the uniform law, ``[K, G]``."""
    place = (np.arange(bins) + 0.5) / bins
    a, b = (x.ravel() for x in np.meshgrid(_TILTS, _TILTS))
    log_density = np.log(place)[:, None] * (a - 1) + np.log1p(-place)[:, None] * (b - 1)
    return log_density - np.logaddexp.reduce(log_density, axis=0) + math.log(bins)


def _dirichlet(counts: np.ndarray, size: int) -> np.ndarray:
    """The log likelihood ratio to uniform ranks of an unknown law on ``size`` groups of ranks, uniform in each."""
    bins = counts.shape[-1]
    start = np.ceil(np.arange(size) * bins / size).astype(int)
    grouped = np.add.reduceat(counts, start, axis=-1)
    uniform = np.diff(np.append(start, bins)) / bins
    prior = 0.5 * size * uniform
    total = grouped.sum(-1)
    likelihood = (_log_gamma(prior + grouped) - _log_gamma(prior) - grouped * np.log(uniform)).sum(-1)
    return likelihood + _log_gamma(prior.sum()) - _log_gamma(prior.sum() + total)


_log_gamma = np.vectorize(math.lgamma, otypes=[float])


def _binomial_cdf(number: int, probability: np.ndarray) -> np.ndarray:
    """``P(X <= x)`` of binomial X, for x from 0 to ``number``: ``[P, number + 1]``."""
    x = np.arange(number + 1)
    log_factorial = np.append(0.0, np.log(np.arange(1, number + 1)).cumsum())
    choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    p = probability[:, None]
    return np.minimum(np.exp(choose + x * np.log(p) + (number - x) * np.log1p(-p)).cumsum(-1), 1.0)
