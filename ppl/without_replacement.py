"""The uniform choice without replacement, as a distribution over vectors of indices."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from .errors import UnsupportedError

_MOST_ENUMERABLE = 100_000


class WithoutReplacement(Distribution):
    """``count`` different indices out of ``range(size)``, in order of choice, each of the ``size! / (size - count)!``
    possibilities equally likely.

    >>> int(jnp.exp(-WithoutReplacement(4, 2).log_prob(jnp.array([3, 0]))) + 0.5)
    12
    """

    arg_constraints = {}
    pytree_aux_fields = ("size", "count")
    has_enumerate_support = True

    def __init__(self, size: int, count: int):
        self.size, self.count = size, count
        super().__init__(batch_shape=(), event_shape=(count,), validate_args=False)

    @property
    def support(self):
        return constraints.independent(constraints.integer_interval(0, self.size - 1), 1)

    def sample(self, key, sample_shape=()):
        choose = lambda key: jax.random.choice(key, self.size, (self.count,), replace=False)  # noqa: E731
        keys = jax.random.split(key, math.prod(sample_shape))
        return jax.vmap(choose)(keys).reshape(*sample_shape, self.count)

    def log_prob(self, value, intermediates=None):
        different = jnp.all(jnp.diff(jnp.sort(value, axis=-1), axis=-1) > 0, axis=-1)
        within = jnp.all((value >= 0) & (value < self.size), axis=-1)
        log_possibilities = math.lgamma(self.size + 1) - math.lgamma(self.size - self.count + 1)
        return jnp.where(different & within, -log_possibilities, -jnp.inf)

    def enumerate_support(self, expand=True):
        """``int[size! / (size - count)!, count]``: every possibility."""
        if math.perm(self.size, self.count) > _MOST_ENUMERABLE:
            raise UnsupportedError(
                f"{self.count} out of {self.size} without replacement are {math.perm(self.size, self.count)} "
                "possibilities: too many to enumerate; fix the choice with ppl.do or ppl.condition"
            )
        return jnp.asarray(np.array(list(itertools.permutations(range(self.size), self.count)), int))
