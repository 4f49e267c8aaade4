"""What is learnt in a warmup, by the published formulas, in NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from borelax.inference import Stage


def stage(in_window=False, ends_window=False, ends=False) -> Stage:
    return Stage(*map(jnp.array, (in_window, ends_window, ends)))


def dual_averaging(rates, start: float, target: float) -> tuple[list, list]:
    """Step sizes, and their averages: Hoffman and Gelman (2014), algorithm 5, with the constants that they name.

    As in BlackJAX the average is of the step sizes that led to the acceptance rates: without the one to come.
    """
    mu, error, average, sizes, averages = np.log(10 * start), 0.0, 0.0, [], []
    size = np.log(start)
    for t, rate in enumerate(rates, start=1):
        error = (1 - 1 / (t + 10)) * error + (target - rate) / (t + 10)
        average = t**-0.75 * size + (1 - t**-0.75) * average
        size = mu - np.sqrt(t) / 0.05 * error
        sizes.append(np.exp(size))
        averages.append(np.exp(average))
    return sizes, averages


def shrunk(covariance, count: int):
    """Stan's estimate of the inverse mass."""
    return count / (count + 5) * covariance + 5e-3 / (count + 5) * np.eye(3)
