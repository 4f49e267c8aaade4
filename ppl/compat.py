"""What borelax needs of JAX beyond its everyday interface, gathered where versions can differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

Jaxpr, ClosedJaxpr, JaxprEqn, Literal, DropVar = (
    jex.Jaxpr,
    jex.ClosedJaxpr,
    jex.JaxprEqn,
    jex.Literal,
    jex.DropVar,
)

_SCOPE = "scope:"


def named_scope(name: str):
    """Marks the equations traced inside with ``name``. JAX keeps the mark per equation, so it survives the
    tracing cache: one cached inner function gets the right mark at each of its call sites."""
    return jax.named_scope(_SCOPE + name)


def scopes_of(eqn: JaxprEqn) -> tuple[str, ...]:
    """The ``named_scope`` names around an equation, outermost first, within its own jaxpr."""
    stack = getattr(eqn.source_info.name_stack, "stack", ())
    names = (getattr(entry, "name", "") for entry in stack)
    return tuple(name[len(_SCOPE) :] for name in names if name.startswith(_SCOPE))


def bind(eqn: JaxprEqn, values) -> list:
    """Evaluates an equation exactly as it was traced (same primitive, parameters and context)."""
    params = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = params if isinstance(params, tuple) else ((), params)
    with eqn.ctx.manager:
        outs = eqn.primitive.bind(*subfuns, *values, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def read(env: dict, atom):
    """The value of a variable or literal."""
    return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, Literal) else env[atom]


def shapes(variables) -> list[jax.ShapeDtypeStruct]:
    """The shapes and dtypes of variables."""
    return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters (of a scan, a cond, a jit, ...)."""
    yield from jex.jaxprs_in_params(eqn.params)


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many constants a scan has and how many values it carries; they are its first inputs, in this order."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()  # jax 0.11 and later
    return len(consts), len(carry)


def evaluate(closed: ClosedJaxpr, args) -> list:
    """Evaluates a closed jaxpr."""
    return jex.jaxpr_as_fun(closed)(*args)


def needed(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A closed jaxpr without the equations that no output depends on."""
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def trace_state():
    """Which trace JAX is in: equal for two calls in one trace, and different inside a transformation."""
    return jex.get_opaque_trace_state(convention="borelax")


def is_over(tracer: jax.core.Tracer) -> bool:
    """Whether JAX has left the trace that a tracer belongs to."""
    trace = trace_state()._trace_ref()
    while trace is not None and trace is not tracer._trace:
        trace = getattr(trace, "parent_trace", None)
    return trace is None


def equation_of(tracer: jax.core.Tracer):
    """What computed a tracer while its jaxpr was made: its ``primitive``, ``params`` and ``in_tracers``; None if it is
    an argument, or not of a jaxpr."""
    return getattr(tracer, "parent", None)


class Frame(NamedTuple):
    """Where Python was: the function's own name, the file and the line."""

    function: str
    file: str
    line: int


def frames(eqn: JaxprEqn) -> list[Frame]:
    """Where Python was when an equation was traced, innermost first, up to the function that its jaxpr is of."""
    traceback = eqn.source_info.traceback
    found = () if traceback is None else traceback.frames
    return [Frame(f.function_name.rsplit(".", 1)[-1], f.file_name, f.line_num) for f in found]


def traced_from(jaxpr: Jaxpr) -> str | None:
    """The file of the function that a jaxpr was traced from."""
    return jaxpr.debug_info.func_filename
