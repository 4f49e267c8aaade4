"""seed: from a program to a function of a PRNG key."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import jax
import jax.numpy as jnp

from .errors import UnsupportedError
from .interpreter import Handler, interpret
from .staging import count_draws, stage


def seed(program: Callable) -> Callable:
    """``(key, *args) -> value``: runs the program, drawing every site from its own distribution.

    The only place where effects turn into ``jax.random`` calls. The result is an ordinary JAX function: jit
    it, vmap it over keys, differentiate it. The same key gives the same draws with and without ``jit``.

    Raises:
      UnsupportedError: the program carries factors or observations, which a plain run cannot honour.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> walk = lambda n: ppl.sample("steps", dist.Normal(0.0, 1.0).expand([n])).sum()
    >>> ppl.seed(walk)(jax.random.key(0), 5).shape
    ()
    """

    def seeded(key, *args, **kwargs):
        staged = stage(program, *args, **kwargs)
        weighted = staged.weights
        if weighted:
            raise UnsupportedError(
                f"the program carries weights, which seed cannot honour: {', '.join(map(str, weighted))}. "
                "Seed ppl.weigh(program) for a value with its log weight, or an inference such as "
                "inference.smc(program, n) for draws from the posterior"
            )
        keys = jax.random.split(_typed(key), count_draws(staged.jaxpr.jaxpr))
        value, _, _ = interpret(staged, _Seed(), keys)
        return value

    return seeded


class _Seed(Handler):
    """State: the keys of the sample sites to come. They are split off before a loop starts, not in it."""

    def site(self, kind, site, operands, given, keys):
        if kind != "sample":  # deterministic, or a twist
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), keys, None
        return [site.draw(keys[0], operands)], keys[1:], None

    def divide(self, keys, draws, eqn):
        total, length = sum(draws), eqn.params.get("length")
        if total == 0:
            empty = keys[:0] if length is None else jnp.broadcast_to(keys[:0], (length, 0))
            return keys, [empty for _ in draws]
        shape = total if length is None else (length, total)
        parts = jnp.split(jax.random.split(keys[0], shape), list(accumulate(draws))[:-1], axis=-1)
        return keys[1:], parts


def _typed(key):
    """A new-style key; old-style ``uint32[2]`` keys are accepted."""
    if jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        if key.shape != ():
            raise TypeError(f"a seeded program takes one key, got {key.shape} keys: use jax.vmap over keys")
        return key
    if getattr(key, "shape", None) == (2,) and key.dtype == jnp.uint32:
        return jax.random.wrap_key_data(key)
    raise TypeError(f"the first argument of a seeded program is a PRNG key (jax.random.key(0)), got {key!r}")
