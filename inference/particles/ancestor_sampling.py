"""Ancestor sampling: another past for the retained particle, at every step."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl.choices import Address
from ...ppl.effects import sample_at
from ...ppl.policy import Cloud
from .follow import Follow
from .smc import ResampleOthers


class SampleAncestors(ResampleOthers):
    """Conditional SMC whose member 0 keeps its choices to come, and takes over the past of a member that is drawn.

    At the end of a scan step member i is drawn with a probability in proportion to ``w_i p(step | i)``: its weight, and
    the density of the retained choices of the next step from where it is. The members are turned until it is in place
    0. All schemes with a conditional law see them as a circle, or do not see their order.

    Source: Lindsten, Jordan and Schön, *Particle Gibbs with ancestor sampling*, JMLR 15 (2014).
    """

    ahead = Follow()

    def relink(self, address: Address, cloud: Cloud, log_ahead, final):
        places = jnp.arange(cloud.log_weight.shape[0], dtype=jnp.int32)
        log_weight = cloud.log_weight + log_ahead
        # No other past is as likely as one that is not: a run without weight stays where it is.
        stays = jnp.asarray(final) | (log_weight[0] == -jnp.inf)
        logits = jnp.where(stays, jnp.where(places == 0, 0.0, -jnp.inf), log_weight)
        first = sample_at(address, dist.Categorical(logits=logits))
        return (places + first.astype(places.dtype)) % len(places)
