"""A population with a given run of the program as its member 0: what conditional algorithms have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ...ppl import Masked
from ...ppl.carried import Carry, carried, of_member_0
from ...ppl.choices import Address
from ...ppl.density import reach, unreached
from ...ppl.effects import Site, only_where, remake
from ...ppl.given import check_given
from ...ppl.interpreter import Handler, interpret
from ...ppl.members import Members, map_members
from ...ppl.policy import Cloud, Draw, Extension
from ...ppl.population import Population
from ...ppl.population_walk import populate
from ...ppl.reweigh import reweigh_site
from ...ppl.staging import Staged, stage
from ...ppl.weigh import weigh_site


class Retain(Draw):
    """Member 0 makes the choices that the sites carry; the others draw.

    The walk suspends where it would without the retained run: that a choice is impossible is a weight, but not a reason
    to suspend.
    """

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        size = cloud.log_weight.shape[0]

        def draw(is_free, *operands):
            free, free_operands = only_where(is_free, *_without_choice(site, operands))
            (value,), log_weight = weigh_site("sample", free, free_operands)
            return jnp.where(is_free, value, _value(carried(site, operands))), log_weight

        is_free = Members(jnp.arange(size) > 0)
        value, log_weight = map_members(draw, [is_free, *operands], size)
        own = of_member_0(operands)
        kept = reweigh_site(site, own, carried(site, own))
        log_weight = log_weight.at[0].set(kept.astype(log_weight.dtype))
        return Extension(value, log_weight, suspends=site.effect(operands).proposal is not None)


def populate_retaining(
    program: Callable,
    size: int,
    policy: Retain,
    choices: Mapping,
    inspect: Callable[[Staged], object] | None = None,
) -> Callable:
    """``populate``, with the run of these choices as member 0. Its weight is zero if there is no such run.

    Raises, when the program is traced:
      AddressError, ChoiceError: as ``log_density`` does.
      UnsupportedError: a density is only an estimate; a site is inside a while_loop.
    """

    def populated(*args, **kwargs) -> Population:
        staged = stage(program, *args, **kwargs)
        staged.refuse_estimates(
            "The retained run would need the one that weighted it, which is not among its choices"
        )
        given = check_given(staged, choices, complete=True)
        population = populate(_carrying(program, choices), size, policy, inspect)(*args, **kwargs)
        log_weight = population.log_weight.at[0].add(_log_weight_of_absent(staged, given))
        return replace(population, log_weight=log_weight)

    return populated


def _carrying(program: Callable, choices: Mapping) -> Callable:
    """The program whose sites carry their values of these choices."""

    def carrying(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        value, _, _ = interpret(staged, Carry(), None, check_given(staged, choices, complete=True))
        return value

    return carrying


def _log_weight_of_absent(staged: Staged, given: Mapping[Address, Any]):
    """Minus infinity if a choice is present in a branch that is not taken."""
    if not any(isinstance(choice, Masked) for choice in given.values()):
        return 0.0
    _, _, reached = interpret(staged, _Reach(), None, given)
    return sum(unreached(given[a], record) for a, record in reached.items())


class _Reach(Handler):
    """Makes the given choices. Records where the sites of masked ones were reached."""

    def site(self, kind, site: Site, operands, given, state):
        if kind != "sample":
            values = [] if kind == "factor" else site.map(lambda effect: effect.value, operands)
            return jax.tree.leaves(values), state, None
        return [_value(given)], state, reach(site, operands, given) if isinstance(given, Masked) else None


def _value(choice):
    return choice.value if isinstance(choice, Masked) else choice


def _without_choice(site: Site, operands):
    """The site without what it carries."""
    return remake(site, operands, lambda effect: replace(effect, value=None))
