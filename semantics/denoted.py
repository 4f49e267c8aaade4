"""What the result of a program stands for: the value itself, or weighted members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl import Trace, scope, weigh
from ..ppl.population import Population
from ..ppl.staging import stage
from .measure import Measure

# From a result to the members that it stands for, with a leading axis n, and their log weights [n].
Reading = Callable[[Any], tuple[Any, jax.Array]]


def members(result) -> tuple[Any, jax.Array]:
    """A :class:`~borelax.ppl.trace.Trace` stands for its value with its weight, a population for its members, and
    anything else for itself."""
    if isinstance(result, Population):
        return result.value, result.log_weight
    if isinstance(result, Trace):
        return weighted((result.value, result.log_weight))
    return weighted((result, 0.0))


def weighted(result) -> tuple[Any, jax.Array]:
    """A pair of a value and its log weight, as :func:`~borelax.ppl.weigh` returns it."""
    value, log_weight = result
    alone = lambda x: jnp.asarray(x)[None]  # noqa: E731
    return jax.tree.map(alone, value), alone(jnp.asarray(log_weight, float))


def spread(measure: Measure, read: Reading = members) -> Measure:
    """The measure that results with this one stand for on average: each member weighs ``w / n`` of its result."""
    with jax.enable_x64(True):
        values, log_weight = jax.vmap(read, axis_size=len(measure))(jax.tree.map(jnp.asarray, measure.stack))
    values, log_weight = jax.tree.map(np.asarray, (values, log_weight))
    weight = measure.weights[:, None] * np.exp(log_weight) / log_weight.shape[1]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), values)
    return Measure.stacked(flat, weight.reshape(-1))


def side(name: str, program: Callable, read: Reading = members) -> Callable:
    """The program that returns the members that a program's result stands for, weighted by its factors too.

    Its sites are under ``name``, so that two programs can be run side by side.
    """

    def drawn(*args):
        with scope(name):
            result, log_weight = weigh(program)(*args)
            values, own = read(result)
        return values, own + log_weight

    return drawn


def is_weighted(program: Callable, args: tuple) -> bool:
    """Whether a program has factors, observations, or sites that are drawn from a proposal."""
    return any(
        info.kind in ("factor", "observe") or info.site.effect(info.operands).proposal is not None
        for info in stage(program, *args).sites
    )
