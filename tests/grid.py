"""Moments of densities of a few dimensions, by sums over a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Points with probabilities: ``[n, dimension]`` and ``[n]``.

    >>> grid = Grid.fitted(lambda x: -np.abs(x[:, 0] - 3) ** 2 / 8, [0.0], [1.0])
    >>> mean, sd = grid.moments(grid.points)
    >>> bool(abs(mean[0] - 3) < 1e-6 and abs(sd[0] - 2) < 1e-6)
    True
    """

    points: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def fitted(
        cls, log_density: Callable, mean, sd, spacing: float = 0.8, reach: float = 5.6, rounds: int = 6
    ):
        """A grid of equal spacing, in units of the standard deviations, along the axes of the density.

        The mean and the covariance start as given and become those of the grid, some times over. For a smooth density
        the sum is off by little more than the mass beyond the reach.

        Args:
          log_density: of points ``[n, dimension]``, up to a constant.
        """
        mean, covariance = np.array(mean, float), np.diag(np.square(np.array(sd, float)))
        axis = np.arange(-reach, reach + spacing / 2, spacing)
        steps = np.stack(np.meshgrid(*[axis] * len(mean), indexing="ij"), -1).reshape(-1, len(mean))
        for _ in range(rounds):
            points = mean + steps @ np.linalg.cholesky(covariance).T
            log_weights = log_density(points)
            weights = np.exp(log_weights - log_weights.max())
            grid = cls(points, weights / weights.sum())
            mean = grid.probabilities @ points
            covariance = (points - mean).T @ (grid.probabilities[:, None] * (points - mean))
        return grid

    def moments(self, x, variance=0.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of numbers ``[n, ...]`` that vary about ``x`` by a variance at each point."""
        mean = np.tensordot(self.probabilities, x, 1)
        return mean, np.sqrt(np.tensordot(self.probabilities, (x - mean) ** 2 + variance, 1))
