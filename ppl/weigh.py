"""weigh: a program with weights, as a program without them that returns its weight."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from .effects import Effect, Site, deterministic_p, log_prob, remake, sample_p
from .interpreter import Handler, interpret
from .staging import stage


def weigh(program: Callable) -> Callable:
    """A program that returns ``(value, log_weight)`` and carries no factors.

    Sites with a proposal are drawn from it. The log weight collects factors, observations and ``d / proposal``:
    the program is properly weighted for the measure that the original denotes.

    >>> from borelax import ppl
    >>> import jax
    >>> value, log_weight = ppl.seed(ppl.weigh(lambda: ppl.factor(2.0)))(jax.random.key(0))
    >>> float(log_weight)
    2.0
    """

    def weighed(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        value, log_weight, _ = interpret(staged, Weigh(), jnp.zeros((), float))
        return value, log_weight

    return weighed


class Weigh(Handler):
    """State: the log weight."""

    def site(self, kind, site: Site, operands, given, log_weight):
        if kind == "deterministic":
            return deterministic_p.bind(*operands, site=site), log_weight, None
        outs, increment = weigh_site(kind, site, operands)
        return outs, log_weight + increment.astype(log_weight.dtype), None


def weigh_site(kind: str, site: Site, operands) -> tuple[list, jnp.ndarray]:
    """A site's outputs and its log weight; a ``sample`` is re-emitted, at its proposal if it has one."""
    if kind == "observe":
        value = site.map(lambda effect: effect.value, operands)
        return [value], site.log_prob(operands, value)
    if kind == "factor":
        return [], site.sum(_log_weight, operands)
    if site.effect(operands).proposal is None:
        return sample_p.bind(*operands, site=site), jnp.zeros((), float)
    at_proposal, proposal_operands = remake(
        site, operands, lambda effect: Effect(distribution=effect.proposal, present=effect.present)
    )
    (value,) = sample_p.bind(*proposal_operands, site=at_proposal)
    return [value], site.sum(log_ratio, operands, value)


def _log_weight(effect: Effect):
    return effect.log_weight if effect.present is None else jnp.where(effect.present, effect.log_weight, 0.0)


def log_ratio(effect: Effect, value):
    """log d - log proposal. A proposal without mass at its own draw is one that has no mass at all: a particle
    that has nowhere to go, of weight zero."""
    log_d, log_q = log_prob(effect.distribution, value), log_prob(effect.proposal, value)
    ratio = jnp.where(log_q == -jnp.inf, -jnp.inf, log_d - log_q)
    return ratio if effect.present is None else jnp.where(effect.present, ratio, 0.0)
