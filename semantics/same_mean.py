"""Whether two random quantities have the same mean, or two weighted populations stand for the same measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jax.scipy.stats import norm

from .budget import Budget, Moments, Outcome, batches, stakes
from .test_functions import TestFunctions, coordinates

_ROUNDING = 1e-5  # relative: what float32 may get wrong in a mean


def same_measure(sides: Callable, args: tuple, budget: Budget) -> Outcome:
    """Tests that two weighted populations stand for the same measure on average.

    Args:
      sides: a program ``(*args) -> (x, log_weight of x, y, log_weight of y)``, values with a leading member axis n and
        log weights ``[n]``: a side stands for ``(1/n) sum_i w_i delta(x_i)``.

    The integrals of 1 and of bounded test functions are compared by :func:`same_mean`.
    """
    return compare_measures(batches(sides, args, budget), budget)


def compare_measures(drawn: Iterator, budget: Budget) -> Outcome:
    """:func:`same_measure` of the sides that come in batches."""
    x, x_weight, y, y_weight = first = next(drawn)
    shift = max(map(_top, (x_weight, y_weight)))
    rows, names = zip(*(coordinates(side, leading=2) for side in (x, y)))
    functions = TestFunctions.fit(np.concatenate([r.reshape(-1, r.shape[-1]) for r in rows]), names[0])

    def integrals(batch):
        x, x_weight, y, y_weight = batch
        return tuple(_integrals(side, w, functions, shift) for side, w in ((x, x_weight), (y, y_weight)))

    rest = map(integrals, drawn)
    return _test(integrals(first), rest, ("1", *functions.names), budget, relative_to_first=True)


def same_mean(pair: Callable, args: tuple, budget: Budget) -> Outcome:
    """Tests that the two pytrees of reals that a program ``(*args) -> (x, y)`` returns have the same mean.

    Each component, and the combination of them that was best on the draws so far, is judged on fresh draws at each of
    a few stages, by its studentised mean z. The normal tail at z is multiplied by ``exp(z^3 r / (3 sqrt(n)))``, r the
    third absolute moment over the cubed standard deviation: the leading term of the error of the normal approximation,
    without which it is too small far out where draws are skewed.

    Source: Jing, Shao and Wang, *Self-normalized Cramér-type large deviations for independent random variables*, Annals
    of Probability 31 (2003).
    """

    return compare_means(batches(pair, args, budget), budget)


def compare_means(drawn: Iterator, budget: Budget) -> Outcome:
    """:func:`same_mean` of the pairs that come in batches."""

    def components(batch):
        return tuple(_finite(coordinates(side, leading=1)[0]) for side in batch)

    first = next(drawn)
    names = coordinates(first[0], leading=1)[1]
    return _test(components(first), map(components, drawn), names, budget, relative_to_first=False)


def _test(first, rest: Iterator, names: Sequence[str], budget: Budget, *, relative_to_first: bool) -> Outcome:
    """From batches ``(one, other)`` of ``[B, F]``. Differences are relative: to the sides of the first component, if it
    is the total mass, else each to its own."""
    moments = Moments(*first)
    sizes = _stages(budget.draws // budget.batch - 1)
    smallest = 1.0
    for size in sizes:
        if np.any(np.isnan(moments.mean)):
            smallest = 0.0  # no mean at all is no right mean
            break
        _, joint = stakes(moments)
        one, other = (np.concatenate(side) for side in zip(*(next(rest) for _ in range(size))))
        combined = [np.column_stack([side, side @ joint]) for side in (one, other)]
        p_values = _p_values(*combined)
        smallest = min(smallest, len(sizes) * len(p_values) * float(p_values.min()))
        moments.add(one, other)
        scale = _scale(moments, relative_to_first)
        settled = np.all(moments.bound(budget.false_alarm_rate) <= budget.resolution * scale)
        if settled or smallest <= budget.false_alarm_rate:
            break
    scale = _scale(moments, relative_to_first)
    return moments.outcome(names, min(smallest, 1.0), budget.false_alarm_rate, scale)


def _stages(total: int) -> list[int]:
    """The sizes of stages: each twice the one before, and the last takes what is left."""
    sizes, size = [], 4
    while total > 0:
        size = total if total < 3 * size else size
        sizes.append(size)
        total, size = total - size, 2 * size
    return sizes


def _p_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two-sided, of the hypothesis that each column has the same mean in both."""
    n = len(one)
    difference = other - one
    mean = difference.mean(0)
    centred = difference - mean
    deviation = np.maximum(np.sqrt((centred**2).mean(0)), 1e-300)
    excess = np.maximum(np.abs(mean) - _ROUNDING * (np.abs(one) + np.abs(other)).mean(0), 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        third = np.maximum((np.abs(centred / deviation) ** 3).mean(0), 1.0)
        z = np.minimum(excess / deviation, 1 / third) * np.sqrt(
            n
        )  # beyond, the estimate of the error has no meaning
        log_p = np.log(2.0) + np.asarray(norm.logsf(z), np.float64) + z**3 * third / (3 * np.sqrt(n))
    return np.exp(np.minimum(np.where(np.isnan(mean), -np.inf, log_p), 0.0))


def _scale(moments: Moments, relative_to_first: bool) -> np.ndarray:
    size = np.maximum(*np.abs(moments.sides))
    return np.maximum(np.full_like(size, size[0]) if relative_to_first else size, 1e-300)


def _integrals(values, log_weight, functions: TestFunctions, shift: float) -> np.ndarray:
    """Of 1 and of the test functions under each run's measure, ``[B, 1 + F]``."""
    x, _ = coordinates(values, leading=2)
    weight = _finite(np.exp(np.asarray(log_weight, np.float64) - shift))
    one = np.ones((*weight.shape, 1))
    return (weight[..., None] * np.concatenate([one, functions(x)], axis=-1)).mean(1)


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)


def _top(log_weight) -> float:
    top = np.max(log_weight)
    return float(top) if np.isfinite(top) else 0.0
