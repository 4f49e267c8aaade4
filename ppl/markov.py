"""Scans that are Markov chains: nothing is left of the past after a step, but by way of the step's sites.

There a run may be given another past, of another member. That a scan is one is seen by letting all members make the
same choices in a step: what bears on later weights must then be shared by them, and so must all be that lives on beside
what the scan carries.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import compat
from .errors import UnsupportedError
from .members import kind_of
from .staging import sites_within


def weighed_beside(eqn: compat.JaxprEqn, values: Sequence, bears: Sequence[bool]) -> list:
    """The inputs of a scan in which members differ in all its steps, and that bear on weights."""
    num_consts, num_carry = compat.scan_counts(eqn)
    inputs = list(zip(eqn.invars, values, bears))
    beside = [*inputs[:num_consts], *inputs[num_consts + num_carry :]]
    return [v for v, value, weighed in beside if kind_of(value) and weighed]


def refuse_memory(eqn: compat.JaxprEqn, outs: Sequence, matters: Sequence[bool]) -> None:
    """Refuses a scan of whose body, where all make the same choices, members still get outputs that differ."""
    for v, out, matter in zip(eqn.outvars, outs, matters):
        if kind_of(out) and matter:
            raise has_memory(
                eqn, f"{spell_type(v)} that is made of what was carried before, not of sites alone"
            )


def has_memory(eqn: compat.JaxprEqn, what: str) -> UnsupportedError:
    site = next(sites_within(eqn))
    return UnsupportedError(
        f"the scan of {site} is not seen to be a Markov chain, so no other past can be given to a run: what comes "
        f"later depends on {what}. Let it carry and stack the values of sites alone, and condition on what is drawn "
        "before it (particle_gibbs has sites=), or do without ancestor sampling and backward simulation"
    )


def spell_type(v) -> str:
    return f"a value of type {v.aval.str_short(short_dtypes=False)}"
