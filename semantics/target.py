"""Target: a program of which some sites are seen, as the algorithms under test are given it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ..ppl import AddressError, Selection, Trace, UnsupportedError, condition, scope, select, update
from ..ppl.recorded import recorded
from ..ppl.staging import stage

# What is seen: an address, several, or a selection of them.
Observed = str | Iterable[str] | Selection


@dataclass(frozen=True, eq=False)
class Target:
    """The program ``condition(program, data)``. It returns its choices.

    Attributes:
      program: the program before it was conditioned.
      data: nested choices: the values of the sites that are seen, for algorithms that look at data and not at programs.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def model():
    ...     x = ppl.sample("x", dist.Bernoulli(0.5))
    ...     ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    >>> semantics.meaning(Target(model, {"y": 1}))().map(lambda choices: choices["x"])
    Measure on 2 values, total mass 0.5
      0.125  0
      0.375  1
    """

    program: Callable
    data: Mapping[str, Any]

    def __call__(self, *args) -> dict:
        return choices_of(condition(self.program, self.data))(*args)


def choices_of(program: Callable) -> Callable:
    """The program that returns its choices, nested, in place of its value. It still carries its weights."""

    return lambda *args: recorded(program)(*args)[1]


def trace_at(program: Callable, choices: Mapping, *args) -> Trace:
    """The trace of a program at complete choices."""
    nowhere = Trace(None, {}, jnp.zeros((), float), jnp.zeros((), float), {})
    with scope("at"):  # where a site is reached for which the choices have nothing, it is drawn
        return update(program, choices)(nowhere, *args).trace


def seen(program: Callable, observed: Observed, args: tuple) -> Selection:
    """The selection of what is seen.

    Raises:
      UnsupportedError: the program carries weights, so that to run it is not to draw from its measure.
      AddressError: an address that it does not have; nothing is seen, or nothing is left.
    """
    staged = stage(program, *args)
    weights = staged.weights
    if weights:
        raise UnsupportedError(
            f"the program carries weights, {', '.join(map(str, weights))}: data cannot be simulated by running it. "
            "Make what it observes a ppl.sample site, and name that site in observed"
        )
    if isinstance(observed, str):
        observed = (observed,)
    selection = observed if isinstance(observed, Selection) else select(*observed)
    sites = staged.of_kind("sample")
    chosen = selection.among(info.address for info in sites)
    there_are = f"the program has {', '.join(map(str, sites)) or 'no sites'}"
    if not chosen:
        raise AddressError(f"{selection!r} observes nothing, so there are no data; {there_are}")
    if len(chosen) == len(sites):
        raise AddressError(f"{selection!r} observes every site, so there is nothing to infer; {there_are}")
    return selection
