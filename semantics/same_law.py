"""Whether two random values have the same law: a sequential test by betting."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .budget import Budget, Moments, Outcome, batches, stakes
from .test_functions import TestFunctions, coordinates

_MOST = 0.45  # the most that is staked on a difference in [-2, 2], so that no bet loses everything


def same_law(pair: Callable, args: tuple, budget: Budget) -> Outcome:
    """Tests that the two values that a program ``(*args) -> (x, y)`` returns have the same law.

    They may depend on each other, and may be any pytrees of one structure. Bettors stake wealth on differences
    ``f(y) - f(x)`` of test functions f: one on each, and one on the combination that was best so far. If the laws are
    the same these have mean zero whatever was chosen before, and wealth 1 grows to 1/a with probability at most a
    (Ville's inequality): the false-alarm rate holds exactly, and whenever the test stops. Since bets are placed on the
    draws to come, looking for test functions on those so far costs nothing.

    Sources: Shekhar and Ramdas, *Nonparametric two-sample testing by betting*, IEEE Transactions on Information Theory
    70 (2024); Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, JRSS B 86 (2024).
    """
    return bet(batches(pair, args, budget), budget)


def bet(drawn: Iterator, budget: Budget) -> Outcome:
    """:func:`same_law` of the pairs that come in batches: two pytrees with a leading axis of ``budget.batch``."""
    x, y, names = _vectors(next(drawn))
    functions = TestFunctions.fit(np.concatenate([x, y]), names)
    moments = Moments(functions(x), functions(y))
    count = len(functions.names)
    share = np.log(np.append(np.full(count, 0.5 / max(count, 1)), 0.5))
    wealth, richest = np.zeros(count + 1), 0.0  # logarithms, of those who bet on one function and of the last
    while count and moments.draws + budget.batch <= budget.draws:
        single, joint = stakes(moments, _MOST)
        x, y, _ = _vectors(next(drawn))
        one, other = functions(x), functions(y)
        wealth[:count] += np.log1p((other - one) * single).sum(0)
        wealth[count] += np.log1p((other - one) @ joint).sum()
        richest = max(richest, float(np.logaddexp.reduce(share + wealth)))
        moments.add(one, other)
        settled = np.max(moments.bound(budget.false_alarm_rate)) <= 2 * budget.resolution
        if settled or richest >= -np.log(budget.false_alarm_rate):
            break
    return moments.outcome(functions.names, float(np.exp(-richest)), budget.false_alarm_rate, scale=2.0)


def _vectors(pair) -> tuple[np.ndarray, np.ndarray, list[str]]:
    (x, names), (y, _) = (coordinates(side, leading=1) for side in pair)
    return x, y, names
