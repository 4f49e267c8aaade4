"""pick: one member of a population."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ..ppl import sample
from ..ppl.population import Population


def pick(population: Population):
    """The value of a member that is drawn by weight, at a ``sample`` site "member"; of any, if none has weight.

    >>> from borelax import inference, ppl
    >>> def coin():
    ...     heads = ppl.sample("heads", dist.Bernoulli(0.5))
    ...     ppl.factor(jnp.where(heads == 1, 0.0, -jnp.inf))
    ...     return heads
    >>> int(ppl.seed(lambda: pick(inference.enumerate(coin)()))(jax.random.key(0)))
    1
    """
    log_weight = population.log_weight
    logits = jnp.where(jnp.max(log_weight) == -jnp.inf, 0.0, log_weight)
    member = sample("member", dist.Categorical(logits=logits))
    return jax.tree.map(lambda x: x[member], population.value)
