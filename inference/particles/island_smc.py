"""Sequential Monte Carlo on islands: populations that resample by themselves, and are resampled as wholes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from ...ppl.policy import Cloud, Reduction
from ...ppl.population import Population
from ...ppl.population_walk import populate
from ...semantics.static.check import refuse
from .advice import advised
from .importance import check_size
from .resampling import Resampler, systematic
from .smc import Resample


def island_smc(
    program: Callable,
    num_islands: int,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    island_resampler: Resampler = systematic,
    island_ess_threshold: float = 0.5,
    check: bool = True,
) -> Callable:
    """The program that runs ``num_islands`` populations of ``n`` particles, and returns them as one ``Population``.

    Where ``smc`` would resample, first islands are, as wholes, if the effective sample size of their mean weights is
    below ``island_ess_threshold * num_islands``; then the particles of each island whose own effective sample size is
    below ``ess_threshold * n``, among themselves. Copies of an island part there. The result is properly weighted, as
    that of ``smc`` is.

    How the estimates of islands differ shows how wrong all are: ``log_evidence_se`` is that of a population of islands,
    which ``origin`` counts. With one island it is not known, and infinite.

    Args:
      program: any program.
      num_islands, n: the population has ``num_islands * n`` members, island by island.
      resampler, ess_threshold: as ``smc`` has them, for the particles of an island.
      island_resampler, island_ess_threshold: the same for islands. A threshold of 0 never resamples them: they are
        independent runs of ``smc``.
      check: as ``smc`` has it.

    Source: Vergé, Dubarry, Del Moral and Moulines, *On parallel implementation of sequential Monte Carlo methods: the
    island particle model*, Statistics and Computing 25 (2015).

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[0]
    >>> population = ppl.seed(inference.island_smc(walk, 4, 25))(jax.random.key(0), jnp.zeros(5))
    >>> population.value.shape, population.initial_size
    ((100,), 4)
    """
    islands = Resample(island_resampler, island_ess_threshold)
    policy = ResampleIslands(check_size(num_islands), islands, resampler, ess_threshold)
    run = populate(program, num_islands * check_size(n), policy, refuse if check else None)

    def populated(*args, **kwargs) -> Population:
        population = run(*args, **kwargs)
        return replace(population, origin=population.origin // n, initial_size=num_islands)

    return populated


class ResampleIslands(Resample):
    """Draw; resample islands whose weights differ, and the particles of an island whose weights differ.

    ``generations`` counts how often islands were resampled.
    """

    def __init__(self, num_islands: int, islands: Resample, resampler: Resampler, ess_threshold: float):
        super().__init__(resampler, ess_threshold)
        self.num_islands = num_islands
        self.islands = islands

    def reduce(self, address, cloud: Cloud, final) -> Reduction:
        by = advised(cloud)
        log_weight = by.log_weight.reshape(self.num_islands, -1)
        n = log_weight.shape[1]
        of_island = jax.nn.logsumexp(log_weight, axis=1) - jnp.log(n)
        islands = self.islands.choose((*address, "islands"), of_island, final)
        # An island that was drawn by its weight goes on with the mean weight of all.
        change = jnp.where(islands.active, islands.log_mean - of_island[islands.index], 0.0)
        log_weight = log_weight[islands.index] + change[:, None]
        choose = lambda log_weight: self.choose((*address, "particles"), log_weight, final)  # noqa: E731
        particles = jax.vmap(choose)(log_weight)
        log_weight = jnp.where(particles.active[:, None], particles.log_mean[:, None], log_weight)
        index = (n * islands.index[:, None] + particles.index).reshape(-1)
        cloud = cloud._replace(generations=cloud.generations + islands.active)
        moved = islands.active | jnp.any(particles.active)
        cloud = cloud.level(log_weight.reshape(-1) + by.left(index))
        return Reduction(cloud, index, moved, islands.log_growth)
