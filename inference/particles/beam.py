"""beam: the best partial runs of a finite program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from ...ppl.choices import Address
from ...ppl.policy import Cloud, Reduction
from ...ppl.population import Population
from ...ppl.population_walk import populate
from ...semantics.branch import Branch
from .advice import advised
from .importance import check_size


def beam(program: Callable, n: int, most: int = 100_000) -> Callable:
    """The program that goes through a finite ``program`` with the ``n`` heaviest runs at a time: beam search.

    A run branches into one for every value of each site. Where ``smc`` would resample (after factors: at the end of a
    scan step, or where straight-line code goes on sampling) the n heaviest go on, with their weights. A ``ppl.twist``
    counts in this, and not in their weights. Nothing is drawn.

    The population stands for the runs that were kept: its evidence is a lower bound of that of the program, and it is
    not properly weighted. ``discrete_smc`` is.

    Args:
      program: any program whose sites have finite support.
      n: the number of runs that go on.
      most: the most runs that there may be at a time: n times the values of a site, or of all sites of a scan step.

    Raises, when the program is traced:
      UnsupportedError: a site has infinite support, or lies in a while_loop; there are more runs than ``most``.

    Source: Lowerre, *The Harpy speech recognition system*, Carnegie Mellon University (1976).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coins():
    ...     return jax.lax.map(lambda p: ppl.sample("heads", dist.Bernoulli(p)), jnp.array([0.75, 0.5, 0.125]))
    >>> kept = inference.beam(coins, 2)()
    >>> kept.value.tolist(), round(float(jnp.exp(kept.log_evidence)), 3)
    ([[1, 0, 0], [1, 1, 0]], 0.656)
    """
    check_size(n)

    def populated(*args, **kwargs) -> Population:
        population = populate(program, 1, Heaviest(n, most))(*args, **kwargs)
        return replace(population, log_weight=population.log_weight + jnp.log(population.size))

    return populated


class Heaviest(Branch):
    """Members branch; then the heaviest go on."""

    moves = True

    def __init__(self, n: int, most: int):
        super().__init__(prune=False, most=most)
        self.n = n

    def room(self, eqn, values, size: int, apart: bool, stacks: bool) -> int:
        return self.n

    def reduce(self, address: Address, cloud: Cloud, final) -> Reduction | None:
        return self.contract(address, cloud, (), self.n) if len(cloud.log_weight) > self.n else None

    def contract(self, address: Address, cloud: Cloud, live: Sequence, room: int) -> Reduction:
        size = len(cloud.log_weight)
        if size > room:
            index, log_weight = self.survivors(address, cloud)
        else:  # copies without weight fill the room
            index = jnp.where(jnp.arange(room) < size, jnp.arange(room), jnp.argmax(cloud.log_weight))
            log_weight = jnp.where(jnp.arange(room) < size, cloud.log_weight[index], -jnp.inf)
        return Reduction(cloud.level(log_weight), index.astype(jnp.int32))

    def survivors(self, address: Address, cloud: Cloud):
        """Which members go on, ``int[n]``, and their log weights."""
        _, index = lax.top_k(advised(cloud).log_weight, self.n)
        return index, cloud.log_weight[index]
