"""A density to a power: an observation that counts more than once, in part, or not at all."""

from __future__ import annotations

import jax.numpy as jnp
from numpyro.distributions import Distribution


class Power(Distribution):
    """The density ``base(x) ** power``, element by element of the batch; 1 where the power is 0, whatever ``x``.

    It is not normalised, so it can be observed but not drawn.

    Args:
      base: the distribution.
      power: float ``[*base.batch_shape]``.

    >>> import numpyro.distributions as dist
    >>> twice = Power(dist.Exponential(jnp.ones(2)), jnp.array([2.0, 0.0]))
    >>> twice.log_prob(jnp.array([3.0, 3.0])).tolist()
    [-6.0, 0.0]
    """

    arg_constraints = {}
    pytree_data_fields = ("base", "power")

    def __init__(self, base: Distribution, power):
        self.base, self.power = base, power
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self):
        return self.base.support

    def log_prob(self, value, intermediates=None):
        return jnp.where(self.power == 0, 0.0, self.power * self.base.log_prob(value))
