"""Thresholds that are computed, not chosen: tests at a false-alarm rate of one in a million, over all comparisons."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from borelax.inference.chains.diagnostics import ess_mean

FALSE_ALARM_RATE = 1e-6


def z_threshold(comparisons: int = 1) -> float:
    """The two-sided normal quantile at the false-alarm rate, shared among the comparisons."""
    return float(norm.isf(FALSE_ALARM_RATE / (2 * comparisons)))


def assert_mean(samples, expected) -> None:
    """The mean over axis 0 of many independent samples is as expected, by a z-test for each component.

    Draws in float32 are discrete: a uniform has steps of 2^-23, so an event of probability 1e-3 has its probability
    wrong by 1e-4 of itself. Errors of that size are not held against the samples.
    """
    samples, expected = np.asarray(samples, np.float64), np.asarray(expected, np.float64)
    mean, count = samples.mean(0), len(samples)
    error = np.abs(mean - expected)
    rounding = 1e-4 * np.abs(expected) + 1e-9
    spread = samples.std(0, ddof=1) / np.sqrt(count)
    z = np.where(error <= rounding, 0.0, error / np.maximum(spread, 1e-300))
    assert np.all(z < z_threshold(max(expected.size, 1))), (
        f"largest z {z.max():.1f} (threshold {z_threshold(max(expected.size, 1)):.1f}): "
        f"mean {np.ravel(mean)[z.argmax()]} for {np.ravel(expected)[z.argmax()]}"
    )


def standard_errors(x) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean and of the standard deviation of draws ``[chain, draw, ...]``."""
    flat, square = (0, 1), (x - x.mean((0, 1))) ** 2
    of_variance = square.std(flat) / np.sqrt(ess_mean(square))
    return x.std(flat) / np.sqrt(ess_mean(x)), of_variance / (2 * x.std(flat))
