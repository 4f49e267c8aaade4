"""What a statistical check may spend, what it draws, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np

from ..ppl import seed


@dataclass(frozen=True)
class Budget:
    """How much a statistical check may draw, and how sure it is to be.

    Attributes:
      draws: the most that are drawn, of each side.
      false_alarm_rate: the probability, at most, with which what is right is called wrong.
      resolution: a difference in probability, or relative to the total mass, that is too small to look for: a check
        ends early once all are known to be smaller.
      batch: how many are drawn at a time.
      seed: of the PRNG key: the same seed gives the same draws.
    """

    draws: int = 65_536
    false_alarm_rate: float = 1e-6
    resolution: float = 0.01
    batch: int = 1_024
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate is a probability above 0, got {self.false_alarm_rate!r}")
        if not 0 < 2 * self.batch <= self.draws:
            raise ValueError(
                f"draws must be at least two batches, got draws={self.draws!r} and batch={self.batch!r}"
            )


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
      rejected: whether the two sides differ.
      p_value: valid whenever the test stops.
      draws: of each side.
      error: the largest difference seen: in probability, or relative to the total mass.
      bound: no difference is larger than this, at the false-alarm rate.
      details: ``(test function, mean of one, mean of the other)``, the clearest difference first.
    """

    rejected: bool
    p_value: float
    draws: int
    error: float
    bound: float
    details: tuple[tuple[str, float, float], ...]


def batches(program: Callable, args: tuple, budget: Budget) -> Iterator:
    """Runs of a program without end, ``budget.batch`` at a time: its values, with a leading axis. Compiled once."""
    leaves, tree = jax.tree.flatten(args)
    traced = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    arrays = [leaf for leaf, is_array in zip(leaves, traced) if is_array]

    @jax.jit
    def run(keys, *arrays):
        it = iter(arrays)
        filled = [next(it) if is_array else leaf for leaf, is_array in zip(leaves, traced)]
        return jax.vmap(lambda key: seed(program)(key, *jax.tree.unflatten(tree, filled)))(keys)

    key, number = jax.random.key(budget.seed), 0
    while True:
        keys = jax.random.split(jax.random.fold_in(key, number), budget.batch)
        yield jax.tree.map(np.asarray, run(keys, *arrays))
        number += 1


class Moments:
    """Sums over the draws so far of test functions of two sides, ``[B, F]`` each, and of their differences."""

    def __init__(self, one: np.ndarray, other: np.ndarray):
        count = one.shape[1]
        self.draws, self._first, self._second = 0, np.zeros(count), np.zeros((count, count))
        self._one, self._other = np.zeros(count), np.zeros(count)
        self.add(one, other)

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        difference = other - one
        self.draws += len(difference)
        self._first = self._first + difference.sum(0)
        self._second = self._second + difference.T @ difference
        self._one, self._other = self._one + one.sum(0), self._other + other.sum(0)

    @property
    def mean(self) -> np.ndarray:
        """Of the differences."""
        return self._first / self.draws

    @property
    def square(self) -> np.ndarray:
        """The mean of products of differences, ``[F, F]``."""
        return self._second / self.draws

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The means of the two sides."""
        return self._one / self.draws, self._other / self.draws

    def bound(self, rate: float) -> np.ndarray:
        """What the differences of the means do not exceed, at a rate shared by all of them and by all times of asking,
        up to the normal approximation of a mean: ``[F]``."""
        variance = np.maximum(np.diag(self.square) - self.mean**2, 0.0)
        depth = np.log(2 * max(len(self.mean), 1) / rate) + np.log(1 + np.log2(self.draws))
        return np.abs(self.mean) + np.sqrt(2 * variance * depth / self.draws)

    def outcome(self, names, p_value: float, rate: float, scale) -> Outcome:
        """The result, with differences in units of ``scale`` (a number, or one for each function)."""
        size = np.abs(self.mean) / scale
        noise = np.sqrt(np.maximum(np.diag(self.square) - self.mean**2, 1e-300) / self.draws)
        clearest = np.argsort(-np.abs(self.mean) / noise, kind="stable")[:5]
        one, other = self.sides
        details = tuple((names[k], float(one[k]), float(other[k])) for k in clearest)
        largest, bound = (float(np.max(x, initial=0.0)) for x in (size, self.bound(rate) / scale))
        return Outcome(p_value <= rate, p_value, self.draws, largest, bound, details)


def stakes(moments: Moments, most: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """What to stake on each test function alone, and on the best combination of them, each at most ``most`` (in sum):
    what lets the logarithm of a bettor's wealth grow fastest, to second order (Kelly)."""
    tiny = np.trace(moments.square) / max(len(moments.mean), 1) / moments.draws + 1e-300
    single = np.clip(moments.mean / (np.diag(moments.square) + tiny), -most, most)
    ridge = tiny * len(single) * np.eye(len(single))
    joint = np.linalg.solve(moments.square + ridge, moments.mean)
    return single, joint * min(1.0, most / max(np.abs(joint).sum(), 1e-300))
