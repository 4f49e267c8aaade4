"""start: where chains start."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ... import ppl
from ...ppl import Trace
from ..unguided import unguided


def start(program: Callable, among: int = 10, most: int = 100) -> Callable:
    """``(key, *args) -> Trace``: one of ``among`` runs of the program, picked by weight.

    Under a wide prior a single run may be so far out that a chain never finds its way back. Runs whose density is zero
    or not finite are not picked; while there is no other, more are made, up to ``most``. If there is none by then the
    first one is returned.

    >>> import jax, numpyro.distributions as dist
    >>> def tail():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.factor(jnp.where(x > 1.5, 0.0, -jnp.inf))
    >>> bool(start(tail)(jax.random.key(0)).choices["x"] > 1.5)
    True
    """
    simulate = ppl.simulate(unguided(program))

    def started(key, *args) -> Trace:
        def run(number):
            """A run, and its height: the highest of several is picked by weight (Gumbel's maximum)."""
            run_key, pick_key = jax.random.split(jax.random.fold_in(key, number))
            trace = simulate(run_key, *args)
            height = trace.log_weight + jax.random.gumbel(pick_key)
            return trace, jnp.where(jnp.isfinite(trace.log_density), height, -jnp.inf)

        def is_searching(carry):
            number, _, highest = carry
            return (number < among) | ((number < most) & (highest == -jnp.inf))

        def search(carry):
            number, best, highest = carry
            trace, height = run(number)
            is_higher = height > highest
            best = jax.tree.map(lambda x, y: jnp.where(is_higher | (number == 0), x, y), trace, best)
            return number + 1, best, jnp.maximum(height, highest)

        shapes = jax.eval_shape(lambda: simulate(key, *args))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return lax.while_loop(is_searching, search, (0, nothing, -jnp.inf))[1]

    return started
