"""A site that draws a PRNG key: randomness that can be run, but has no density."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from .errors import UnsupportedError
from .staging import SiteInfo


class RandomKey(Distribution):
    """The law of a PRNG key. It can be drawn, and that is all.

    The key is a threefry key whatever kind of key the program is seeded with. So what is derived from it is the
    same inside and outside ``vmap``, which not all of JAX's generators promise.
    """

    arg_constraints = {}

    def __init__(self):
        super().__init__(validate_args=False)

    @property
    def support(self):
        return _AnyKey()

    def sample(self, key, sample_shape=()):
        bits = jax.random.bits(key, (*sample_shape, 2), jnp.uint32)
        return jax.random.wrap_key_data(bits, impl="threefry2x32")

    def log_prob(self, value, intermediates=None):
        raise UnsupportedError(f"a PRNG key was drawn, which has no density: {_ADVICE}")


class _AnyKey(constraints.Constraint):
    """The support of :class:`RandomKey`."""

    is_discrete = True

    def __call__(self, x):
        return jnp.ones(jnp.shape(x), bool)

    def tree_flatten(self):
        return (), ((), {})


def refuse_keys(sites: Iterable[SiteInfo]) -> None:
    """Raises UnsupportedError if one of the sites draws a key: for what asks for densities or takes choices."""
    for info in sites:
        if jnp.issubdtype(info.dtype, jax.dtypes.prng_key):
            raise UnsupportedError(
                f"{info} draws a PRNG key, which has no density and cannot be given: {_ADVICE}"
            )


_ADVICE = (
    "a function memoised over an unbounded domain has no fixed set of values. It can be run (ppl.seed, ppl.weigh, "
    "inference.importance, inference.smc); where a density is asked for, give ppl.mem a finite domain"
)
