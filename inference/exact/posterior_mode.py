"""posterior_mode: the most probable run of a finite program."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...ppl.population_walk import populate
from ...ppl.recorded import recorded
from .enumerate import refuse_nothing
from .merge import Best
from .run import Run


def posterior_mode(program: Callable, most: int = 100_000, states: int | None = None) -> Callable:
    """``(*args) -> Run``: the run of a finite program whose choices, all together, are the most probable.

    Nothing is drawn. After a step of a scan the best run into each state goes on, which is Viterbi's algorithm, and
    its outputs and choices with it: a scan may stack what it likes. Of several best runs it is one.

    Args:
      program: any program whose sites have finite support.
      most, states: as ``enumerate`` has them.

    Raises:
      UnsupportedError: as ``enumerate`` does.
      DegenerateError: no run has weight (outside ``jit``; inside, the log density is minus infinity).

    Source: Viterbi, *Error bounds for convolutional codes and an asymptotically optimum decoding algorithm*, IEEE
    Transactions on Information Theory 13 (1967).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def weather(walks):
    ...     def day(rains, walk):
    ...         rains = ppl.sample("rains", dist.Bernoulli(jnp.where(rains == 1, 0.75, 0.25)))
    ...         ppl.observe("walks", dist.Bernoulli(jnp.where(rains == 1, 0.125, 0.75)), walk)
    ...         return rains, None
    ...     jax.lax.scan(day, 0, walks)
    >>> inference.posterior_mode(weather)(jnp.array([1, 0, 0, 0, 1])).choices["rains"].tolist()
    [0, 1, 1, 1, 0]
    """

    def mode(*args, **kwargs) -> Run:
        population = populate(recorded(program), 1, Best(most=most, states=states))(*args, **kwargs)
        refuse_nothing(population, states)
        best = jnp.argmax(population.log_weight)
        value, choices = jax.tree.map(lambda x: x[best], population.value)
        return Run(value, choices, population.log_weight[best])

    return mode
