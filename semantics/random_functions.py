"""Random functions: their laws, and the symmetries of what programs draw: exchange of elements and of statements.

The PRNG key is the sample space and ``ppl.seed(program)`` a random element, a function ``key -> X``; its law is what
the program means. A program that returns a function is such an element of a space of functions. Two functions are
the same if they agree everywhere, so that a law of functions is known by those of their values on finite sets.

Source: Heunen, Kammar, Staton and Yang, *A convenient category for higher-order probability theory*, LICS 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.distributions import Categorical

from ..ppl import UnsupportedError, sample, scope
from .budget import Budget
from .denoted import is_weighted, members
from .measure import Measure
from .properly_weighted import stands_for
from .report import Report, asserting, name_of
from .representations import Programs
from .same_distribution import same_distribution
from .same_law import same_law
from .verdict import by_test, decide, exactly


def extensional(program: Callable, domain) -> Callable:
    """The program that returns the values of a random function in place of the function: one for each of ``domain``.

    Args:
      program: returns a function of one argument.
      domain: its arguments, a pytree with a leading axis.

    Functions are compared by their code and what it holds; their tables, by what they do.

    >>> import numpyro.distributions as dist
    >>> from jax.tree_util import Partial
    >>> from borelax import ppl, semantics
    >>> def step():
    ...     at = ppl.sample("at", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
    ...     return Partial(lambda at, x: (x >= at).astype(int), at)
    >>> semantics.meaning(semantics.extensional(step, jnp.arange(2)))()
    Measure on 3 values, total mass 1
      0.5  [1 1]
      0.25  [0 1]
      0.25  [0 0]
    """

    def tabulated(*args):
        return jax.vmap(program(*args))(domain)

    tabulated.__name__ = name_of(program)
    return tabulated


def same_function_law(one: Callable, other: Callable, domain, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether two programs without weights return functions with the same law on ``domain``.

    It is the joint law of the values at all its points that counts. Exact if both programs are finite, else by
    :func:`~borelax.semantics.same_law.same_law`. Nothing is said of what lies outside ``domain``.

    >>> import numpyro.distributions as dist
    >>> from jax.tree_util import Partial
    >>> from borelax import ppl, semantics
    >>> coin = lambda name: ppl.sample(name, dist.Bernoulli(0.5))
    >>> constant = lambda: Partial(lambda y, x: y, coin("y"))
    >>> changing = lambda: Partial(lambda y, z, x: jnp.where(x == 0, y, z), coin("y"), coin("z"))
    >>> bool(semantics.same_function_law(constant, changing, jnp.array([0]))())
    True
    >>> bool(semantics.same_function_law(constant, changing, jnp.array([0, 1]))())
    False
    """
    return same_distribution(extensional(one, domain), extensional(other, domain), budget)


def commutes(one: Callable, other: Callable, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether it does not matter which of two programs is run first (Fubini).

    For programs it never does: this fails for what is not one, such as a function that keeps a count of its calls.
    The two have sites under scopes of their own. Exact if they are finite, else by a test.

    >>> from borelax import semantics
    >>> from borelax.semantics.small_programs import chain, weighted_coin
    >>> semantics.commutes(chain, weighted_coin)().holds
    True
    """
    claim = f"{name_of(one)} and {name_of(other)} can change places"

    def first(*args):
        with scope("one"):
            return one(*args)

    def second(*args):
        with scope("other"):
            return other(*args)

    p = Programs()
    in_order = p.bind(first, lambda x: p.bind(second, lambda y: p.unit((x, y))))
    reversed_order = p.bind(second, lambda y: p.bind(first, lambda x: p.unit((x, y))))
    in_order.__name__ = f"{name_of(one)}, {name_of(other)}"
    return stands_for(claim, reversed_order, in_order, budget, members)


def exchangeable(program: Callable, budget: Budget | None = None) -> Callable:
    """``(*args) -> Report``: whether the order of the elements of what a program returns does not matter to its law.

    Args:
      program: returns a pytree whose leaves have a common leading axis, of two elements or more.

    Exchanging neighbours is enough, for that gives all orders. Exact if the program is finite, weighted or not.
    Otherwise draws are compared with draws in which two neighbours, taken at random, are exchanged: the laws are the
    same only if every exchange keeps the law.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def urn():
    ...     first = ppl.sample("first", dist.Bernoulli(0.25))
    ...     second = ppl.sample("second", dist.Bernoulli((1 - first) / 3))
    ...     return jnp.stack([first, second])
    >>> semantics.exchangeable(urn)().holds
    True
    """
    budget = budget or Budget()
    claim = f"what {name_of(program)} returns is exchangeable"

    def checked(*args) -> Report:
        def exact(measure: Measure, tolerance: float) -> Report:
            with jax.enable_x64(True):
                swapped = [measure.map(lambda x: _swap(x, i)) for i in range(_length(measure.stack, 1) - 1)]
            reports = [exactly(claim, name_of(program), args, measure, other, tolerance) for other in swapped]
            return max(reports, key=lambda report: report.error)

        def both(*args):
            with scope("as drawn"):
                x = program(*args)
            with scope("exchanged"):
                y = program(*args)
            pairs = _length(y, 0) - 1
            return x, _swap(y, sample("pair", Categorical(jnp.full(pairs, 1 / pairs))))

        def test() -> Report:
            if is_weighted(program, args):
                raise UnsupportedError(
                    f"{name_of(program)} carries weights and is not finite: whether it is exchangeable cannot be tested"
                )
            outcome = same_law(both, args, budget)
            return by_test(claim, name_of(program), args, outcome, budget.false_alarm_rate)

        return decide([program], args, exact, test)

    return checked


assert_same_function_law = asserting(same_function_law)
assert_commutes = asserting(commutes)
assert_exchangeable = asserting(exchangeable)


# ------------------------------------------------------------------------- helpers


def _swap(x, i):
    """Elements i and i + 1 of each leaf exchanged."""

    def one(leaf):
        leaf = jnp.asarray(leaf)
        order = jnp.arange(leaf.shape[0])
        order = jnp.where(order == i, i + 1, jnp.where(order == i + 1, i, order))
        return leaf[order]

    return jax.tree.map(one, x)


def _length(x, axis: int) -> int:
    """The length that all leaves have along an axis."""
    lengths = {
        leaf.shape[axis] if leaf.ndim > axis else None for leaf in map(jnp.asarray, jax.tree.leaves(x))
    }
    length = next(iter(lengths)) if len(lengths) == 1 else None
    if length is None or length < 2:
        raise UnsupportedError(
            "what is exchanged are the elements along the leading axis, which all leaves share and which has two or "
            f"more; got {[str(jnp.shape(leaf)[axis:]) for leaf in jax.tree.leaves(x)]}"
        )
    return length
