"""unguided: a program without the proposals of its sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ppl.effects import Site, emit, remake
from ..ppl.interpreter import Handler, interpret
from ..ppl.staging import stage


def unguided(program: Callable) -> Callable:
    """The program in which every site is drawn from its own distribution, whatever its proposal. It means the same.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import ppl
    >>> guided = lambda: ppl.sample("x", dist.Bernoulli(0.5), proposal=dist.Bernoulli(1.0))
    >>> _, log_weight = ppl.seed(ppl.weigh(unguided(guided)))(jax.random.key(0))
    >>> float(log_weight)
    0.0
    """

    def run(*args, **kwargs):
        return interpret(stage(program, *args, **kwargs), _Unguided(), None)[0]

    return run


class _Unguided(Handler):
    """Re-emits every site, without its proposal."""

    def site(self, kind, site: Site, operands, given, state):
        if kind == "sample":
            site, operands = remake(site, operands, lambda effect: replace(effect, proposal=None))
        return emit(kind, site, operands), state, None
