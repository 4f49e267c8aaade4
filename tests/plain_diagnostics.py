"""The published formulas of diagnostics, number by number: Vehtari and others (2021)."""

from __future__ import annotations

import numpy as np
from scipy import stats


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


def larger_rhat(x) -> float:
    """Of the ranks, or of those of the distances from the median."""
    return max(plain_rhat(normal_scores(x)), plain_rhat(normal_scores(np.abs(x - np.median(x)))))


def plain_ess(x) -> float:
    """Equations 7 to 10, with Geyer's sequences: lag by lag."""
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


def plain_bfmi(energy) -> float:
    """Of one chain; Betancourt (2016)."""
    steps = np.diff(energy)
    return np.mean(steps**2) / np.mean((energy - energy.mean()) ** 2)
