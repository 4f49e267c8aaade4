"""condition and do: fix some sites of a program, with or without weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax.numpy as jnp

from .choices import Masked, flatten, spell
from .density import reach, score, unreached
from .effects import (
    Effect,
    Site,
    deterministic_p,
    emit,
    factor_at,
    observe_p,
    remake,
    sample_p,
)
from .errors import ChoiceError
from .given import check_given, check_support
from .interpreter import Handler, interpret
from .partly import Partly, known_log_prob, remaining
from .staging import stage


def condition(program: Callable, choices: Mapping) -> Callable:
    """The program in which the given sites are observed at the given values.

    A site of which only some elements are given (:func:`partly`, :func:`prefix`) is observed there and stays a site for
    the others: it still draws, and traces, a whole value.

    Raises, when the program is traced:
      AddressError: an address that the program does not have (or that is observed already).
      ChoiceError: a wrong shape or dtype; a concrete value outside the support.

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> model = lambda: ppl.sample("y", dist.Normal(ppl.sample("x", dist.Normal(0.0, 1.0)), 1.0))
    >>> posterior = ppl.condition(model, {"y": 1.0})
    >>> list(ppl.simulate(posterior)(jax.random.key(0)).choices)
    ['x']
    """

    def conditioned(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        given = check_given(staged, choices, complete=False, partial=True)
        value, _, reached = interpret(staged, _Condition(), None, given)
        sites = {info.address: info.site for info in staged.sites}
        for address, record in reached.items():
            factor_at(sites[address], unreached(given[address], record))
        return value

    return conditioned


def do(program: Callable, choices: Mapping) -> Callable:
    """The program in which the given sites are set to the given values, without weight (an intervention).

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))
    >>> float(ppl.seed(ppl.do(model, {"x": 3.0}))(jax.random.key(0)))
    3.0
    """
    for address, value in flatten(choices).items():
        if isinstance(value, Masked):
            raise ChoiceError(
                f"do sets {spell(address)!r} wherever it is reached: give a plain value, not a Masked"
            )

    def done(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        return interpret(staged, _Do(), None, check_given(staged, choices, complete=False, partial=True))[0]

    return done


class _Condition(Handler):
    """Re-emits a given sample site as an observation. Records where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, state):
        if given is None:
            return emit(kind, site, operands), state, None
        reached = reach(site, operands, given) if isinstance(given, Masked) else None
        if partly := _in_part(given):
            check_support(site, operands, partly.value, partly.known)
            value = _draw_the_rest(site, operands, partly)
            factor_at(site, site.sum(_known_log_prob, operands, value, partly.known))
            return [value], state, reached
        if isinstance(given, Masked):
            factor_at(site, score(site, operands, given))
            return [given.value], state, reached
        check_support(site, operands, given)
        observed, operands = remake(site, operands, lambda e, x: replace(e, proposal=None, value=x), given)
        return observe_p.bind(*operands, site=observed), state, None


class _Do(Handler):
    """Replaces a given sample site by its value, recorded as deterministic."""

    def site(self, kind, site: Site, operands, given, state):
        if given is None:
            return emit(kind, site, operands), state, None
        if partly := _in_part(given):
            return [_draw_the_rest(site, operands, partly)], state, None
        value = given.value if isinstance(given, Masked) else given
        done, operands = remake(site, operands, lambda e, x: Effect(value=x, present=e.present), value)
        return deterministic_p.bind(*operands, site=done), state, None


def _in_part(given) -> Partly | None:
    """The choice, if it is known in part (:class:`Masked` if only some branches have its site)."""
    choice = given.value if isinstance(given, Masked) else given
    return choice if isinstance(choice, Partly) else None


def _draw_the_rest(site: Site, operands, given: Partly):
    """Re-emits a site whose known elements are fixed."""

    def fixed(effect: Effect, value, known) -> Effect:
        laws = (effect.distribution, effect.proposal)
        d, proposal = (law if law is None else remaining(law, value, known) for law in laws)
        return replace(effect, distribution=d, proposal=proposal)

    rest, operands = remake(site, operands, fixed, given.value, given.known)
    return sample_p.bind(*operands, site=rest)[0]


def _known_log_prob(effect: Effect, value, known):
    total = known_log_prob(effect.distribution, value, known)
    return total if effect.present is None else jnp.where(effect.present, total, 0.0)
