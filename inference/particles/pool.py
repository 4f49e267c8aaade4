"""pool: independent populations as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...ppl.population import Population


def pool(populations: Population) -> Population:
    """One population of the members of several that know nothing of each other, all for the measure of one program.

    Its evidence is the mean of theirs, and as properly weighted as they are; so it is not the mean of their averages
    that its averages are, but that weighted by their evidences. ``log_evidence_se`` comes from how they differ, with
    Z_r the evidence of population r:

        sqrt(sum_r (Z_r / mean(Z) - 1)^2 / (R (R - 1)))

    Args:
      populations: a batch ``[run]``, such as ``jax.vmap(ppl.seed(smc(program, n)))(keys)``. Its arrays become
        ``[run * n]``; ``origin`` says of each member which population it is of.

    Raises:
      TypeError, ValueError: this is no batch of populations.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin():
    ...     heads = ppl.sample("heads", dist.Bernoulli(0.25))
    ...     ppl.factor(1.0 * heads)
    >>> keys = jax.random.split(jax.random.key(0), 8)
    >>> populations = jax.vmap(ppl.seed(inference.importance(coin, 100)))(keys)
    >>> pooled = inference.pool(populations)
    >>> pooled.size, bool(jnp.isclose(pooled.log_evidence, jnp.log(jnp.exp(populations.log_evidence).mean())))
    (800, True)
    """
    if not isinstance(populations, Population):
        raise TypeError(f"pool takes a batch of populations, not {type(populations).__name__}")
    if populations.log_weight.ndim != 2:
        raise ValueError(
            "pool takes a batch of populations, with log weights [run, member]; these have the shape "
            f"{populations.log_weight.shape}"
        )
    runs, size = populations.log_weight.shape
    if runs == 1:  # nothing differs, but the population may know of its own error
        return jax.tree.map(lambda x: x[0], populations)
    is_dead = jnp.all(populations.log_weight == -jnp.inf, axis=1)
    return Population(
        jax.tree.map(lambda x: x.reshape(runs * size, *x.shape[2:]), populations.value),
        populations.log_weight.reshape(-1),
        origin=jnp.repeat(jnp.arange(runs, dtype=jnp.int32), size),
        generations=jnp.int32(0),
        died=jnp.where(jnp.all(is_dead), jnp.max(populations.died), -1),
        factors=populations.factors,
        initial_size=runs,
        exact=populations.exact,
    )
