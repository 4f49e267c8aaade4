"""sweep: the elements of a site drawn one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from ... import ppl
from ...ppl import Masked, Trace
from ...ppl.choices import Address, align, flatten, nest


def sweep(program: Callable, address: Address, shape: tuple[int, ...], draw: Callable) -> Callable:
    """A program ``(trace, *args) -> Trace`` that draws each element of a site given all other choices.

    Args:
      shape: the leading axes of the site's value that count its elements. Those that are not present stay.
      draw: ``(i, element, log_density, choices) -> element``, a program: element number i, drawn anew, given what it
        is, the log density of the whole program as a function of what it might be, and the present choices.
    """

    def swept(trace: Trace, *args) -> Trace:
        rest = flatten(trace.choices)
        before = rest.pop(address)
        start, present = (before.value, before.present) if isinstance(before, Masked) else (before, True)
        elements = (math.prod(shape), *start.shape[len(shape) :])
        here = jnp.broadcast_to(align(present, jnp.zeros(shape)), shape).reshape(-1)

        def choices(values) -> dict:
            value = values.reshape(start.shape)
            return nest({**rest, address: Masked(value, present) if isinstance(before, Masked) else value})

        def step(values, i):
            def log_density(element):
                return ppl.log_density(program)(choices(values.at[i].set(element)), *args)

            element = draw(i, values[i], log_density, choices(values))
            return values.at[i].set(jnp.where(here[i], element, values[i])), None

        values, _ = lax.scan(step, start.reshape(elements), jnp.arange(elements[0]))
        with ppl.scope("program"):
            return ppl.update(program, choices(values))(trace, *args).trace

    return swept
