"""Leaked values: kept from a run, or from a part of one, that is over, and used outside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from traceback import walk_tb

import jax

from . import compat
from .effects import Site, effect_primitives, is_the_users, source_line, spell_line
from .errors import LeakError

_WRONG = (
    "outside the run, or the part of a run, that it belongs to. Return it from there (from the program, and from any "
    "scan, vmap, cond or jit around the site), and pass it on as an argument"
)


def refuse_leaks(values: Iterable) -> None:
    """Raises LeakError if one of the values comes from a site whose run, or part of it, is over.

    JAX finds out when such a value is computed with, and cannot say whose it is. It never does when the value is only
    returned. A leaked value that comes from no site is left to JAX.
    """
    for x in values:
        if isinstance(x, jax.core.Tracer) and compat.is_over(x) and (site := next(_origins(x), None)):
            raise LeakError(f"the program that runs at {source_line()} uses a value of site {site} {_WRONG}")


def leaked(error: jax.errors.UnexpectedTracerError) -> LeakError:
    """What JAX found while it traced a program, with the user's line. It does not say which value it was."""
    lines = [spell_line(frame, line) for frame, line in walk_tb(error.__traceback__) if is_the_users(frame)]
    used = f" at {lines[-1]}" if lines else ""
    return LeakError(f"the program uses{used} a value {_WRONG}")


def _origins(tracer) -> Iterator[Site]:
    """The sites that a value comes from, the nearest first."""
    seen, waiting = set(), [tracer]
    while waiting:
        eqn = compat.equation_of(waiting.pop(0))
        if eqn is None or id(eqn) in seen:
            continue
        seen.add(id(eqn))
        if eqn.primitive in effect_primitives:
            yield eqn.params["site"]
        else:
            waiting += eqn.in_tracers
