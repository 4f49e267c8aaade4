"""start: where chains start."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .. import ppl
from ..ppl import Trace
from .unguided import unguided


def start(program: Callable, most: int = 100) -> Callable:
    """``(key, *args) -> Trace``: a run of the program, drawn anew until its density is finite and not zero.

    After ``most`` runs the last one is returned as it is.

    >>> import jax, numpyro.distributions as dist
    >>> def tail():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.factor(jnp.where(x > 1.5, 0.0, -jnp.inf))
    >>> bool(start(tail)(jax.random.key(0)).choices["x"] > 1.5)
    True
    """
    simulate = ppl.simulate(unguided(program))

    def started(key, *args) -> Trace:
        def is_searching(carry):
            number, trace = carry
            return (number == 0) | ((number < most) & ~jnp.isfinite(trace.log_density))

        def draw(carry):
            number, _ = carry
            return number + 1, simulate(jax.random.fold_in(key, number), *args)

        shapes = jax.eval_shape(lambda key: simulate(key, *args), key)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return lax.while_loop(is_searching, draw, (0, nothing))[1]

    return started
