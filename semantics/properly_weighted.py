"""Whether an algorithm's result stands, on average, for the measure of its target."""

from __future__ import annotations

from collections.abc import Callable

from ..ppl.policy import Draw
from ..ppl.population_walk import populate
from .budget import Budget
from .denoted import Reading, members, side, spread
from .report import Report, asserting, name_of
from .same_mean import same_measure
from .verdict import by_test, decide, exactly

_MEMBERS = 16  # of the target, drawn for each run of the algorithm


def properly_weighted(
    algorithm: Callable, target: Callable, budget: Budget | None = None, read: Reading = members
) -> Callable:
    """``(*args) -> Report``: whether ``E[(1/n) sum_i w_i f(x_i)] = mu(f)`` for every f.

    mu is the measure that ``target`` denotes, factors and all, and the expectation is over runs of ``algorithm``: a
    program that returns a population, a trace (one weighted value) or a plain value. With f = 1 this says that the
    evidence is unbiased.

    Exact if both are finite. Otherwise the integrals of many test functions are compared with those by importance
    sampling of the target, by :func:`~borelax.semantics.same_mean.same_measure`.

    Args:
      read: what a result of ``algorithm`` stands for, if it is none of these: a function from it to members with a
        leading axis and their log weights, such as :func:`~borelax.semantics.weighted`.

    Source: Naesseth, Lindsten and Schön, *Nested sequential Monte Carlo methods*, ICML 2015, for the definition.

    >>> from borelax import inference, ppl, semantics
    >>> import numpyro.distributions as dist
    >>> def coins():
    ...     heads = ppl.sample("a", dist.Bernoulli(0.5)) + ppl.sample("b", dist.Bernoulli(0.5))
    ...     ppl.factor(0.5 * heads)
    ...     return heads
    >>> semantics.properly_weighted(inference.smc(coins, 2), coins)().holds
    True
    """
    return stands_for(
        f"the algorithm is properly weighted for {name_of(target)}", algorithm, target, budget, read
    )


assert_properly_weighted = asserting(properly_weighted)


def stands_for(
    claim: str, algorithm: Callable, target: Callable, budget: Budget | None, read: Reading
) -> Callable:
    """The check that what ``algorithm`` returns stands for the measure of ``target``."""
    budget = budget or Budget()

    def checked(*args) -> Report:
        def both(*args):
            expected = side("target", populate(target, _MEMBERS, Draw()))(*args)
            return (*expected, *side("algorithm", algorithm, read)(*args))

        def exact(expected, found, tolerance):
            return exactly(claim, name_of(target), args, expected, spread(found, read), tolerance)

        def test():
            outcome = same_measure(both, args, budget)
            return by_test(claim, name_of(target), args, outcome, budget.false_alarm_rate)

        return decide([target, algorithm], args, exact, test)

    return checked
