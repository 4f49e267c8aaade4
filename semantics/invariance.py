"""Whether a Markov kernel leaves a measure invariant, and whether it is reversible."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..ppl import factor, sample, scope, trace, weigh
from ..ppl.random_key import RandomKey
from .budget import Budget, Outcome
from .denoted import is_weighted
from .measure import Measure
from .report import Report, asserting, name_of
from .same_law import same_law
from .same_mean import same_measure
from .verdict import by_test, decide, exactly


def leaves_invariant(
    kernel: Callable, target: Callable, budget: Budget | None = None, steps: int = 1
) -> Callable:
    """``(*args) -> Report``: whether a state with the target's normalised measure has it still after a step.

    Args:
      kernel: one of ours (:class:`~borelax.inference.Kernel`), whose states are traces of ``target``; or any program
        ``(state, *args) -> state``, whose state is what ``target`` returns. A function ``(key, state, *args)``, such as
        those of other libraries, is made a program by :func:`keyed`.
      target: any program, factors and all.
      steps: how many steps are taken.

    Of a trace all is compared: choices, value, log density, log weight. So a kernel that hands on what it should have
    computed anew is found too.

    Exact if target and kernel are finite. Otherwise states are drawn from the target, weighted if it carries weights,
    moved, and compared with what they were: see :func:`~borelax.semantics.same_law.same_law` and
    :func:`~borelax.semantics.same_mean.same_measure`. With weights, little is seen where they are far from equal.

    >>> from borelax import ppl, semantics
    >>> import numpyro.distributions as dist
    >>> coin = lambda: ppl.sample("x", dist.Bernoulli(0.25))
    >>> flip = lambda x: 1 - x
    >>> semantics.leaves_invariant(flip, coin)()
    FAILS  the program leaves the program invariant
      exact, over 2 values; total variation distance 0.5
      counterexample: the program: at 0 0.25, not 0.75
      where  expected  found
      0      0.75      0.25
      1      0.25      0.75
    """
    claim = f"{name_of(kernel)} leaves {name_of(target)} invariant"
    return _checked(claim, kernel, target, steps, lambda before, after: (before, after), budget or Budget())


def detailed_balance(kernel: Callable, target: Callable, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether going from x to y is as probable as from y to x, x having the target's law.

    The arguments are those of :func:`leaves_invariant`, which follows from it; the converse does not hold.

    >>> from borelax import ppl, semantics
    >>> import numpyro.distributions as dist
    >>> die = lambda: ppl.sample("x", dist.Categorical(jax.numpy.ones(3) / 3))
    >>> turn = lambda x: (x + 1) % 3
    >>> bool(semantics.leaves_invariant(turn, die)()), bool(semantics.detailed_balance(turn, die)())
    (True, False)
    """
    claim = f"{name_of(kernel)} is reversible for {name_of(target)}"

    def swapped(before, after):
        return (before, after), (after, before)

    return _checked(claim, kernel, target, 1, swapped, budget or Budget())


assert_leaves_invariant = asserting(leaves_invariant)
assert_detailed_balance = asserting(detailed_balance)


def keyed(function: Callable) -> Callable:
    """A function ``(key, *args)`` as a program, which can be run but not enumerated.

    >>> from borelax import ppl, semantics
    >>> import numpyro.distributions as dist
    >>> redraw = semantics.keyed(lambda key, x: jax.random.normal(key))
    >>> semantics.leaves_invariant(redraw, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))().holds
    True
    """

    def program(*args):
        return function(sample("key", RandomKey()), *args)

    program.__name__ = name_of(function)
    return program


# ------------------------------------------------------------------------- helpers


def _checked(claim: str, kernel, target: Callable, steps: int, sides: Callable, budget: Budget) -> Callable:
    """The check that the two ``sides`` of a move have the same measure."""

    def checked(*args) -> Report:
        def moved(*args):
            return sides(*_move(kernel, target, steps, args))

        def exact(pairs: Measure, tolerance: float):
            one, other = (Measure.stacked(side, pairs.weights) for side in pairs.stack)
            return exactly(claim, name_of(target), args, one, other, tolerance)

        def test():
            outcome = _outcome(moved, args, budget)
            return by_test(claim, name_of(target), args, outcome, budget.false_alarm_rate)

        return decide([moved], args, exact, test)

    return checked


def _move(kernel, target: Callable, steps: int, args: tuple) -> tuple:
    """A state of the target and what it is after some steps of the kernel, weighted as the target is."""

    def moved(state, number=0):
        if number == steps:
            return state
        with scope(f"step {number + 1}"):
            state = kernel(state, *args)
        return moved(state, number + 1)

    if not hasattr(kernel, "program"):
        before = target(*args)
        return before, moved(before)
    start = trace(target)(*args)
    if is_weighted(target, args):
        factor(start.log_weight)
    with scope("init"):
        state = kernel.init(start, *args)
    return start, moved(state).trace


def _outcome(moved: Callable, args: tuple, budget: Budget) -> Outcome:
    if not is_weighted(moved, args):
        return same_law(moved, args, budget)

    def weighted(*args):
        sides, log_weight = weigh(moved)(*args)
        before, after = jax.tree.map(lambda x: jnp.asarray(x)[None], sides)
        return before, log_weight[None], after, log_weight[None]

    return same_measure(weighted, args, budget)
