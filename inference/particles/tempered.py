"""tempered: a program whose weights count in part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from ...ppl.effects import Site, emit, factor_at, remake, sample_p
from ...ppl.interpreter import Handler, interpret
from ...ppl.staging import stage
from ...ppl.weigh import log_ratio, weigh_site


def tempered(program: Callable) -> Callable:
    """The program ``(beta, *args) -> value`` that weights its runs by ``exp(beta * log_weight)``.

    With q the density of what the sites draw, and w the weight of a run as :func:`ppl.weigh` has it (factors,
    observations, and density over proposal), it denotes the measure

        q(x) w(x) ** beta,

    for a ``beta`` (an inverse temperature) that may be traced: 0 is the draws alone, 1 is ``program`` itself. Sites
    keep their addresses. One with a proposal is drawn from it, so a good proposal is a good place to start from.
    At 0 a weight does not count, even where it is zero. Where the density of an observation is only an estimate, its
    draws are sites too, and the estimate is raised to the power.

    Source: Neal, *Annealed importance sampling*, Statistics and Computing 11 (2001), for the path of measures.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model():
    ...     x = ppl.sample("x", dist.Exponential(1.0))
    ...     ppl.factor(-2.0 * x)
    >>> float(ppl.log_density(inference.tempered(model))({"x": 3.0}, 0.5))
    -6.0
    """

    def run(beta, *args, **kwargs):
        return interpret(stage(program, *args, **kwargs), _Temper(beta), None)[0]

    return run


class _Temper(Handler):
    """Re-emits sites as they are drawn, and weights as factors."""

    def __init__(self, beta):
        self.beta = beta

    def site(self, kind, site: Site, operands, given, state):
        if kind == "deterministic":
            return emit(kind, site, operands), state, None
        if kind != "sample":
            outs, log_weight = weigh_site(kind, site, operands)
            factor_at(site, self._power(log_weight))
            return outs, state, None
        if site.effect(operands).proposal is None:
            return emit(kind, site, operands), state, None
        drawn, drawn_operands = remake(
            site, operands, lambda effect: replace(effect, distribution=effect.proposal, proposal=None)
        )
        (value,) = sample_p.bind(*drawn_operands, site=drawn)
        factor_at(site, self._power(site.sum(log_ratio, operands, value)))
        return [value], state, None

    def _power(self, log_weight):
        return jnp.where(self.beta == 0, 0.0, self.beta * log_weight)
