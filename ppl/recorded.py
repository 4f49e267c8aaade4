"""recorded: a program that returns its choices beside its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from . import compat
from .choices import nest
from .effects import Site, emit
from .interpreter import Handler, interpret, walk
from .staging import stage


def recorded(program: Callable) -> Callable:
    """The program that returns ``(value, choices)`` and carries all its sites and weights.

    Unlike a trace it computes no density on the way: there is no more for a scan to carry.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> coin = lambda: 2 * ppl.sample("heads", dist.Bernoulli(0.25))
    >>> for (value, choices), weight in semantics.meaning(recorded(coin))():
    ...     print(value, choices["heads"], weight)
    0 0 0.75
    2 1 0.25
    """

    def returning(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        value, _, records = interpret(staged, Record(), None)
        return value, nest(staged.unmasked(records))

    return returning


def recording(body: compat.ClosedJaxpr) -> tuple[compat.ClosedJaxpr, Any]:
    """A jaxpr that gives its choices after its outputs, and the pytree structure of these: flat, by address."""
    jaxpr = body.jaxpr

    def returning(*inputs):
        outs, _, records = walk(jaxpr, body.consts, inputs, Record(), None, {}, ())
        return outs, records

    closed, (_, records) = jax.make_jaxpr(returning, return_shape=True)(*compat.shapes(jaxpr.invars))
    return closed, jax.tree.structure(records)


class Record(Handler):
    """Re-emits every site. Records the values of sample sites."""

    def site(self, kind, site: Site, operands, given, state):
        outs = emit(kind, site, operands)
        return outs, state, site.masked(operands, outs[0]) if kind == "sample" else None
