"""Backward simulation: particles whose pasts are drawn anew from all that were there."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ...ppl.choices import Address
from ...ppl.effects import sample_at
from ...ppl.population_walk import populate
from ...ppl.random_key import refuse_keys
from ...ppl.staging import Staged
from ...semantics.static.check import refuse
from .follow import Follow
from .importance import check_size
from .resampling import Resampler, systematic
from .smc import Resample


def backward_simulation(
    program: Callable,
    n: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    check: bool = True,
) -> Callable:
    """``smc`` whose particles have pasts of their own, where those of ``smc`` soon come from one: a smoother.

    When a scan is over, each particle's path is drawn anew, from its last step to the first: the particle j of step t
    from which step t + 1 of the path comes has a probability in proportion to

        w_t^j p(step t + 1 | j),

    its weight, and the density of what the path chose in step t + 1 from where j was. All T steps of n particles take
    O(T n^2). The result is a ``Population`` that is properly weighted, as that of ``smc`` is, with the same weights.

    Args:
      program: any program in which a step of a scan gives nothing that is not made of its sites alone: what it carries
        and stacks depends on what was carried into it by way of its sites. What is not wanted does not count.
      n, resampler, ess_threshold, check: as ``smc`` has them.

    Raises, when the program is traced:
      UnsupportedError: a scan is not seen to be such a Markov chain; a density is only an estimate; as ``smc`` does.

    Source: Godsill, Doucet and West, *Monte Carlo smoothing for nonlinear time series*, JASA 99 (2004).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 0.5), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> run = jax.jit(ppl.seed(inference.backward_simulation(walk, 20)))
    >>> paths = run(jax.random.key(0), jnp.zeros(50))
    >>> paths.value.shape, len(set(paths.value[:, 0].tolist())) > 5
    ((20, 50), True)
    """

    def inspect(staged: Staged) -> None:
        refuse_keys(staged.of_kind("sample"))
        staged.refuse_estimates("That of a step is needed from each particle that it may come from")
        if check:
            refuse(staged)

    return populate(program, check_size(n), _Resimulate(resampler, ess_threshold), inspect)


class _Resimulate(Resample):
    """Draw and resample; when a scan is over, draw all lineages anew."""

    behind = Follow()

    def link(self, address: Address, log_weight, came_from) -> jax.Array:
        # Where none seems possible (the path has no weight, or a transition without noise is rounded) it stays.
        possible = jnp.any(log_weight > -jnp.inf, axis=1, keepdims=True)
        stay = jnp.log(jax.nn.one_hot(came_from, log_weight.shape[1]))
        logits = jnp.where(possible, log_weight, stay)
        return sample_at(address, dist.Categorical(logits=logits)).astype(jnp.int32)
