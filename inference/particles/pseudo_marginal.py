"""A program of parameters alone: what depends on them is integrated out by an algorithm, exactly or without bias."""

from __future__ import annotations

from collections.abc import Callable

from ...ppl import deterministic, factor, scope
from ...ppl.program_law import Algorithm, log_mean
from .pick import pick

PARTICLES = "particles"
LOG_EVIDENCE = "log evidence"


def pseudo_marginal(prior: Callable, model: Callable, algorithm: Algorithm) -> Callable:
    """The program ``(*args) -> (parameters, value)`` that weights parameters by an estimate of their evidence.

    It draws the parameters, runs ``algorithm`` for the model at these parameters, multiplies by the evidence Z of the
    population and picks a member of it:

        prior(parameters) r(population | parameters) Z(population).

    Since E[Z] is the evidence, the measure of ``(parameters, value)`` is that of the program
    ``model(prior(*args), *args)``. The algorithm's draws are sites under "particles", so that the estimate is a part of
    a trace, and inference for this program is exact, however few the particles. The trace records it, at the address
    "particles/log evidence".

    Args:
      prior: a program ``(*args) -> parameters``, a pytree.
      model: a program ``(parameters, *args) -> value``.
      algorithm: ``program -> program of a Population``, such as ``partial(inference.smc, n=100)``.

    Source: Andrieu and Roberts, *The pseudo-marginal approach for efficient Monte Carlo computations*, Annals of
    Statistics 37 (2009).

    >>> from functools import partial
    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl, semantics
    >>> prior = lambda: ppl.sample("p", dist.Bernoulli(0.5))
    >>> def model(p):
    ...     x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * p))
    ...     ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)
    ...     return x
    >>> estimated = pseudo_marginal(prior, model, partial(inference.smc, n=2))
    >>> semantics.meaning(lambda: estimated()[0])()
    Measure on 2 values, total mass 0.5
      0.1875  0
      0.3125  1
    """

    def program(*args):
        parameters = prior(*args)
        with scope(PARTICLES):
            population = algorithm(model)(parameters, *args)
            log_evidence = deterministic(LOG_EVIDENCE, log_mean(population))
            value = pick(population)
        factor(log_evidence, LOG_EVIDENCE)
        return parameters, value

    return program
