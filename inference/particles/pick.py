"""pick: one member of a population."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl import sample
from ...ppl.population import Population


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
    member, _ = pick_index("member", population.log_weight)
    return jax.tree.map(lambda x: x[member], population.value)


def pick_index(name: str, log_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An index that is drawn with these log weights ``[n]``, at a ``sample`` site, and whether any of them is one.

    NaN and infinite weights are none.
    """
    log_weight = jnp.where(log_weight < jnp.inf, log_weight, -jnp.inf)
    possible = jnp.any(log_weight > -jnp.inf)
    index = sample(name, dist.Categorical(logits=jnp.where(possible, log_weight, 0.0)))
    return index, possible
