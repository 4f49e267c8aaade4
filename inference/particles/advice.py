"""Advice for those who resample: what ``ppl.twist`` says, within bounds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...ppl.policy import Cloud

FLOOR = 0.01


class Advised(NamedTuple):
    """What to resample by.

    Attributes:
      log_weight: ``[n]``, log weight and log twist, beside the scale.
      log_twist: ``[n]``, relative to the mean by weight, which survivors have to be divided by; None if there is no
        advice.
    """

    log_weight: jax.Array
    log_twist: jax.Array | None

    def left(self, index):
        """The log weights ``[n]`` of members ``index``, chosen by weight and twist, beside what all of them share."""
        return 0.0 if self.log_twist is None else -self.log_twist[index]


def advised(cloud: Cloud) -> Advised:
    """The weights of a population, each times its twist psi.

    Members chosen by ``w psi`` go on with the weight ``1 / psi``, so that the result is properly weighted whatever is
    advised. For that, none that has weight may be without a chance, or with one that is lost to rounding: psi counts as
    at least ``FLOOR`` times its mean by weight. So a few go on of which it is zero: heavy if the advice was wrong, soon
    without weight if it was right. If it is zero for all, there is no advice; nor where it is infinite, or no number.

    Source: the idea is that of defensive importance sampling: Hesterberg, *Weighted average importance sampling and
    defensive mixture distributions*, Technometrics 37 (1995).

    >>> none = jnp.zeros((), int)
    >>> log_twist = jnp.log(jnp.array([0.0, 1.0]))
    >>> cloud = Cloud(jnp.zeros(2), jnp.zeros(()), jnp.arange(2), none, none, log_twist=log_twist)
    >>> [round(float(psi), 4) for psi in jnp.exp(advised(cloud).log_twist)]
    [0.01, 2.0]
    """
    log_weight, log_twist = cloud.log_weight, cloud.log_twist
    if log_twist is None:
        return Advised(log_weight, None)
    # Members without weight have no say in the mean, and may be advised of anything.
    is_advice = (log_twist < jnp.inf) & (log_weight > -jnp.inf)
    weighed = jnp.where(is_advice, log_weight, -jnp.inf)
    mean = jax.nn.logsumexp(weighed + jnp.where(is_advice, log_twist, 0.0)) - jax.nn.logsumexp(weighed)
    # Relative to the mean, so that what all are advised of does not take the digits of the weights.
    bounded = jnp.maximum(log_twist - jnp.where(jnp.isfinite(mean), mean, 0.0), jnp.log(FLOOR))
    log_twist = jnp.where(is_advice & jnp.isfinite(mean), bounded, 0.0)
    return Advised(log_weight + log_twist, log_twist)
