"""condition and do: fix some sites of a program, with or without weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from .choices import Masked, flatten, spell
from .density import reach, score, unreached
from .effects import (
    Effect,
    Site,
    deterministic_p,
    effect_primitives,
    factor_at,
    observe_p,
    remake,
)
from .errors import ChoiceError
from .given import check_given, check_support
from .interpreter import Handler, interpret
from .staging import stage


def condition(program: Callable, choices: Mapping) -> Callable:
    """The program in which the given sites are observed at the given values.

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
        given = check_given(staged, choices, complete=False)
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
        return interpret(staged, _Do(), None, check_given(staged, choices, complete=False))[0]

    return done


class _Condition(Handler):
    """Re-emits a given sample site as an observation. Records where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, state):
        if given is None:
            return _PRIMITIVES[kind].bind(*operands, site=site), state, None
        if isinstance(given, Masked):
            factor_at(site, score(site, operands, given))
            return [given.value], state, reach(site, operands, given)
        check_support(site, operands, given)
        observed, operands = remake(site, operands, lambda e, x: replace(e, proposal=None, value=x), given)
        return observe_p.bind(*operands, site=observed), state, None


class _Do(Handler):
    """Replaces a given sample site by its value, recorded as deterministic."""

    def site(self, kind, site: Site, operands, given, state):
        if given is None:
            return _PRIMITIVES[kind].bind(*operands, site=site), state, None
        value = given.value if isinstance(given, Masked) else given
        done, operands = remake(site, operands, lambda e, x: Effect(value=x, present=e.present), value)
        return deterministic_p.bind(*operands, site=done), state, None


_PRIMITIVES = {primitive.name: primitive for primitive in effect_primitives}
