"""Whether two samplers have one distribution."""

from __future__ import annotations

from collections.abc import Callable

from ..ppl import scope
from .budget import Budget
from .report import Report, asserting, name_of
from .same_law import same_law
from .verdict import by_test, decide, exactly


def same_distribution(one: Callable, other: Callable, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether two programs without weights return values with the same law.

    Exact if both are finite, else by :func:`~borelax.semantics.same_law.same_law`. A function of a PRNG key is made a
    program by :func:`~borelax.semantics.keyed`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> one = lambda: ppl.sample("x", dist.Exponential(1.0))
    >>> other = lambda: -jnp.log(ppl.sample("u", dist.Uniform(0.0, 1.0)))
    >>> semantics.same_distribution(one, other)().holds
    True
    """
    budget = budget or Budget()
    claim = f"{name_of(one)} and {name_of(other)} have the same distribution"

    def checked(*args) -> Report:
        def both(*args):
            with scope("one"):
                x = one(*args)
            with scope("other"):
                y = other(*args)
            return x, y

        def exact(expected, found, tolerance):
            return exactly(claim, name_of(one), args, expected, found, tolerance)

        def test():
            outcome = same_law(both, args, budget)
            return by_test(claim, name_of(one), args, outcome, budget.false_alarm_rate)

        return decide([one, other], args, exact, test)

    return checked


assert_same_distribution = asserting(same_distribution)
