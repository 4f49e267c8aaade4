"""Carried choices: a program whose sites have the values of a given run as a part of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from . import compat
from .choices import Address, Masked
from .effects import Site, emit, remake, sample_p
from .interpreter import Handler, walk
from .members import Members, unpooled


def carrying(body: compat.ClosedJaxpr, given: Mapping[Address, Any]) -> compat.ClosedJaxpr:
    """A jaxpr with the leaves of ``given`` as its first inputs, which its sites carry."""
    jaxpr = body.jaxpr

    def made(given, *inputs):
        outs, _, _ = walk(jaxpr, body.consts, inputs, Carry(), None, given, ())
        return outs

    return jax.make_jaxpr(made)(given, *compat.shapes(jaxpr.invars))


class Carry(Handler):
    """Re-emits sites, with the given values as a part of them. What is made of them is up to a policy."""

    def site(self, kind, site: Site, operands, given, state):
        if kind != "sample":
            return emit(kind, site, operands), state, None
        if isinstance(given, Masked):
            carry = lambda effect, value, present: replace(effect, value=Masked(value, present))  # noqa: E731
            carrying, extended = remake(site, operands, carry, given.value, given.present)
            return sample_p.bind(*extended, site=carrying), state, None
        carrying, extended = remake(site, operands, lambda effect, x: replace(effect, value=x), given)
        return sample_p.bind(*extended, site=carrying), state, None


def carried(site: Site, operands):
    """The choice that a site carries."""
    return site.map(lambda effect: effect.value, operands)


def of_member_0(operands) -> list:
    """What a site is made of for member 0. The choice that it carries is that of all."""
    return [x.value[0] if isinstance(x, Members) else x for x in map(unpooled, operands)]
