"""discrete_smc: sequential Monte Carlo that tries every value of a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from ...ppl import Selection
from ...ppl.choices import Address
from ...ppl.effects import Site, sample_at
from ...ppl.policy import Cloud, Draw, Extension
from ...ppl.population import Population
from ...ppl.population_walk import populate
from ...ppl.staging import Staged, stage
from ...semantics.branch import has_finite_support
from .advice import advised
from .beam import Heaviest
from .importance import check_size
from .optimal_resampling import OptimalResampling, threshold


def discrete_smc(
    program: Callable, n: int, enumerated: Selection | None = None, most: int = 100_000
) -> Callable:
    """The program that goes through ``program`` with ``n`` runs, trying every value, and returns a ``Population``.

    At sites with finite support a run branches into one for every value: none is missed by chance, and none is tried
    twice. At other sites it draws one value, from the proposal if there is one. Where ``smc`` would resample, n of the
    runs are drawn without replacement (at a ``sample`` site under the address "resample"), the heavy ones for sure. The
    result is properly weighted: for the measure mu that ``program`` denotes, ``E[(1/m) sum_i w_i f(x_i)] = mu(f)`` for
    every f, m being the size of the population.

    If all sites branch, and there are no more than n runs, it is ``enumerate``. ``beam`` keeps the heaviest runs, and
    draws nothing.

    Args:
      program: any program.
      n: the number of runs that go on.
      enumerated: the sites that branch (``ppl.select``); by default all that have finite support.
      most: the most runs that there may be at a time: n times the values of a site, or of all sites of a scan step.

    Raises, when the program is traced:
      UnsupportedError: a site that is to branch has infinite support; a site lies in a while_loop; there are more runs
        than ``most``.
      AddressError: the selection names a site that the program does not have.

    Source: Fearnhead and Clifford, *On-line inference for hidden Markov models via particle filters*, JRSS B 65 (2003);
    of language models, Lew, Zhi-Xuan, Grand and Mansinghka, *Sequential Monte Carlo steering of large language models
    using probabilistic programs* (2023).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coins():
    ...     return jax.lax.map(lambda p: ppl.sample("heads", dist.Bernoulli(p)), jnp.array([0.75, 0.5, 0.125]))
    >>> population = ppl.seed(inference.discrete_smc(coins, 4))(jax.random.key(0))
    >>> round(float(jnp.exp(population.log_evidence)), 4)
    1.0
    """
    check_size(n)

    def populated(*args, **kwargs) -> Population:
        staged = stage(program, *args, **kwargs)
        branching = _branching(staged, enumerated)
        # From one run on, if all that may become of it can be tried; else from as many as go on.
        start = 1 if branching == {info.address for info in staged.of_kind("sample")} else n
        population = populate(program, start, Survivors(n, most, branching))(*args, **kwargs)
        log_size = jnp.log(population.size / start)
        return replace(population, log_weight=population.log_weight + log_size)

    return populated


class Survivors(Heaviest):
    """Members branch or draw; those that go on are drawn without replacement, without bias."""

    def __init__(self, n: int, most: int, branching: set[Address]):
        super().__init__(n, most)
        self.branching = branching

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        if site.name in self.branching:
            return super().extend(site, operands, cloud)
        return Draw().extend(site, operands, cloud)

    def survivors(self, address: Address, cloud: Cloud):
        by = advised(cloud)
        index = sample_at(address, OptimalResampling(by.log_weight, self.n))
        cut = threshold(by.log_weight, self.n)
        kept = jnp.arange(self.n) < cut.kept
        return index, jnp.where(kept, cloud.log_weight[index], cut.log_weight + by.left(index))


def _branching(staged: Staged, enumerated: Selection | None) -> set[Address]:
    draws = staged.of_kind("sample")
    if enumerated is not None:
        return enumerated.among([info.address for info in draws])
    return {
        info.address for info in draws if has_finite_support(info.site.effect(info.operands).distribution)
    }
