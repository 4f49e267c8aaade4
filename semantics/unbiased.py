"""Whether an estimator has the right expectation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl import scope
from .budget import Budget
from .measure import Measure
from .report import Counterexample, Report, asserting, name_of
from .same_mean import same_mean
from .verdict import by_test, decide, exact_over


def unbiased(estimator: Callable, value: Any, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether the expectation of what a program returns is ``value``.

    For gradients, densities, evidences (on the natural scale: the exponential of a log evidence).

    Args:
      estimator: a program without weights that returns a pytree of reals.
      value: what its expectation should be: such a pytree; or a function ``(*args)`` of it; or a program that returns
        an unbiased estimate itself.

    Exact if both are finite (or constant), else by :func:`~borelax.semantics.same_mean.same_mean`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> squared = lambda m: ppl.sample("x", dist.Normal(m, 1.0)) ** 2
    >>> semantics.unbiased(squared, lambda m: m**2 + 1)(jnp.array(2.0)).holds
    True
    """
    budget = budget or Budget()
    claim = f"the expectation of {name_of(estimator)} is {name_of(value) if callable(value) else value}"

    def reference(*args):
        return value(*args) if callable(value) else jax.tree.map(jnp.asarray, value)

    def checked(*args) -> Report:
        def both(*args):
            with scope("value"):
                expected = reference(*args)
            with scope("estimator"):
                return expected, estimator(*args)

        def exact(expected, found, tolerance):
            return _exact_report(claim, name_of(estimator), args, expected, found, tolerance)

        def test():
            return by_test(
                claim, name_of(estimator), args, same_mean(both, args, budget), budget.false_alarm_rate
            )

        return decide([reference, estimator], args, exact, test)

    return checked


assert_unbiased = asserting(unbiased)


def _exact_report(
    claim: str, program: str, args: tuple, expected: Measure, found: Measure, tolerance
) -> Report:
    means = [jax.tree_util.tree_flatten_with_path(measure.expectation())[0] for measure in (expected, found)]
    rows = [
        (jax.tree_util.keystr(path) or "x", np.asarray(one), np.asarray(other))
        for (path, one), (_, other) in zip(*means)
    ]
    errors = [
        float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(one)), initial=0.0))
        for _, one, other in rows
    ]
    worst = int(np.argmax(errors))
    holds = not errors[worst] > tolerance
    where, one, other = rows[worst]
    counterexample = None if holds else Counterexample(program, args, f"the mean of {where}", one, other)
    details = () if holds else tuple((where, str(one), str(other)) for where, one, other in rows)
    how = exact_over(len(found), tolerance)
    return Report(claim, holds, errors[worst], "largest error", how, float(holds), counterexample, details)
