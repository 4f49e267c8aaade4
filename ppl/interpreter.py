"""The interpreter: one walk over a program's jaxpr.

The walk threads a state through the program, hands every site to a handler together with the value given for
it (if any), and collects what the handler records. Equations without effects are evaluated exactly as they
were traced. Given values and records are flat dicts keyed by address; inside a scan the walk slices the given
ones and stacks the recorded ones, so a handler only ever sees one site at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from . import compat
from .choices import Address, Masked, align
from .compat import scopes_of
from .effects import Site, effect_primitives
from .errors import UnsupportedError
from .staging import Staged, addresses, called_jaxpr, count_draws, has_effects, survey, unsupported


class Handler(Protocol):
    """What a transformation does at a site."""

    def site(self, kind: str, site: Site, operands: list, given, state) -> tuple[list, Any, Any]:
        """Handles a site.

        Args:
          kind: "sample", "observe", "factor" or "deterministic".
          site, operands: the site and the leaves of its effect.
          given: the value given for its address, or None.
          state: the threaded state.

        Returns:
          The site's outputs, the new state, and the value to record (None for nothing).
        """
        ...

    def divide(self, state, draws: Sequence[int], eqn: compat.JaxprEqn):
        """Divides the state over parts of the program instead of threading it through; None to thread it.

        Args:
          draws: how many sample sites each part has.
          eqn: what has these parts: a scan, a cond or a while_loop.

        Returns:
          The state afterwards, and a state for each part; for a scan, with a leading step axis.
        """
        return None

    def watches(self, eqn: compat.JaxprEqn) -> bool:
        """Whether an equation is to be handed over although it has no site: itself, or one that it contains."""
        return False

    def equation(self, eqn: compat.JaxprEqn, values: list, state) -> tuple[list, Any]:
        """Evaluates an equation that is watched: its outputs, and the new state."""
        return compat.bind(eqn, values), state


def interpret(staged: Staged, handler: Handler, state, given: Mapping[Address, Any] | None = None):
    """Runs a staged program under a handler.

    Returns:
      The program's value, the final state, and the records by address.
    """
    closed = staged.jaxpr
    outs, state, records = walk(closed.jaxpr, closed.consts, staged.leaves, handler, state, given or {}, ())
    return staged.value(outs), state, records


def walk(jaxpr: compat.Jaxpr, consts, args, handler: Handler, state, given, scope: Address):
    """Evaluates a jaxpr: ``(outputs, state, records)``."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    records: dict[Address, Any] = {}
    for eqn in jaxpr.eqns:
        values = [compat.read(env, v) for v in eqn.invars]
        if has_effects(eqn) or handler.watches(eqn):
            outs, state, new = visit(eqn, values, handler, state, given, scope)
            for address, record in new.items():
                records[address] = records[address] | record if address in records else record
        else:
            outs = compat.bind(eqn, values)
        env.update(zip(eqn.outvars, outs))
    return [compat.read(env, v) for v in jaxpr.outvars], state, records


def visit(eqn: compat.JaxprEqn, values: list, handler: Handler, state, given, scope: Address):
    """Evaluates one equation that is, or contains, a site or what the handler watches."""
    scope = (*scope, *scopes_of(eqn))
    name = eqn.primitive.name
    if eqn.primitive in effect_primitives:
        site = eqn.params["site"].under(scope)
        own = given.get(site.name) if name == "sample" else None  # a factor may be named like a site
        outs, state, record = handler.site(name, site, values, own, state)
        return outs, state, {} if record is None else {site.name: record}
    if called_jaxpr(eqn) is not None:
        return _call(eqn, values, handler, state, given, scope)
    if name in _RULES:
        return _RULES[name](eqn, values, handler, state, given, scope)
    if has_effects(eqn):
        raise unsupported(eqn)
    return *handler.equation(eqn, values, state), {}


# ------------------------------------------------------------------------------ control flow


def _call(eqn, values, handler, state, given, scope):
    """jit, remat and custom derivatives: walk into the function that is called."""
    closed = called_jaxpr(eqn)

    def called(state, given, *values):
        return walk(closed.jaxpr, closed.consts, values, handler, state, given, scope)

    if eqn.primitive.name in ("remat2", "checkpoint"):
        called = jax.checkpoint(called, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    elif eqn.primitive.name.startswith("custom_jvp") or eqn.primitive.name.startswith("custom_vjp"):
        called = _without_derivative(called, [str(info) for info in survey(closed.jaxpr, scope)])
    return called(state, given, *values)


def _without_derivative(called, sites: list[str]):
    """A function with a custom derivative and sites inside can be run, but not differentiated by its rule."""
    opaque = jax.custom_jvp(called)

    @opaque.defjvp
    def refuse(primals, tangents):
        raise UnsupportedError(
            f"a function with a custom derivative rule contains the sites {', '.join(sites)}: the rule knows "
            "nothing of them, so its derivative would be wrong; move the sites out of the function"
        )

    return opaque


def _scan(eqn, values, handler, state, given, scope):
    params = eqn.params
    closed, length = params["jaxpr"], params["length"]
    num_consts, num_carry = compat.scan_counts(eqn)
    consts, init, xs = values[:num_consts], values[num_consts:][:num_carry], values[num_consts + num_carry :]
    inside = addresses(survey(closed.jaxpr, scope))
    given_inside = {address: value for address, value in given.items() if address in inside}

    divided = handler.divide(state, [count_draws(closed.jaxpr)], eqn)
    after, steps = (None, None) if divided is None else (divided[0], divided[1][0])

    def body(carry, x):
        state, carry = carry
        xs, given, step = x
        outs, state, records = walk(
            closed.jaxpr,
            closed.consts,
            [*consts, *carry, *xs],
            handler,
            state if divided is None else step,
            given,
            scope,
        )
        return (state if divided is None else None, outs[:num_carry]), (outs[num_carry:], records)

    (state, carry), (ys, records) = lax.scan(
        body,
        (state if divided is None else None, list(init)),
        (list(xs), given_inside, steps),
        length=length,
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys], state if divided is None else after, records


def _cond(eqn, values, handler, state, given, scope):
    index, *operands = values
    branches = eqn.params["branches"]
    inside = (info for closed in branches for info in survey(closed.jaxpr, scope))
    infos = {info.address: info for info in inside if info.kind != "factor"}
    divided = handler.divide(state, [count_draws(closed.jaxpr) for closed in branches], eqn)
    after, states = (None, [None] * len(branches)) if divided is None else divided

    def run(closed, own_state):
        def branch(state, given, *operands):
            inner = state if divided is None else own_state
            outs, inner, records = walk(closed.jaxpr, closed.consts, operands, handler, inner, given, scope)
            return outs, inner if divided is None else None, records

        return branch

    # Each branch is walked once, though the form of its records depends on the others: nested ones would be walked
    # twice as often with every level.
    runs = [run(closed, own) for closed, own in zip(branches, states)]
    walked = [jax.make_jaxpr(run, return_shape=True)(state, given, *operands) for run in runs]
    recorded = [shape[2] for _, shape in walked]
    shapes = {address: shape for records in recorded for address, shape in records.items()}
    masked = {
        address
        for address in shapes
        if any(isinstance(records.get(address), Masked | None) for records in recorded)
    }

    def padded(closed, shape):
        def branch(*inputs):
            leaves = compat.evaluate(closed, jax.tree.leaves(inputs))
            outs, state, records = jax.tree.unflatten(jax.tree.structure(shape), leaves)
            for address in masked:
                records[address] = _mask(records.get(address), shapes[address], infos[address].present_shape)
            return outs, state, records

        return branch

    outs, state, records = lax.switch(index, [padded(*branch) for branch in walked], state, given, *operands)
    return outs, state if divided is None else after, records


def _mask(record, shape, present_shape) -> Masked:
    """A branch's record in the form that all branches share: present, or a masked nothing."""
    if isinstance(record, Masked):
        return record
    if record is not None:
        return Masked(record, jnp.ones(present_shape, bool))
    shape = shape.value if isinstance(shape, Masked) else shape
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    return Masked(nothing, jnp.zeros(present_shape, bool))


def _while(eqn, values, handler, state, given, scope):
    params = eqn.params
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = values[:num_cond], values[num_cond:][:num_body]
    init = values[num_cond + num_body :]

    # A state that is not threaded is divided anew in every iteration, from a part of it that goes round.
    draws = [count_draws(cond.jaxpr), count_draws(body.jaxpr)]
    divided = handler.divide(state, [int(any(draws))], eqn)
    after, state = (None, state) if divided is None else (divided[0], divided[1][0])

    def run(closed, args, state):
        inner, going_round = state, None
        if divided is not None:
            _, (going_round, inner) = handler.divide(state, [int(any(draws)), count_draws(closed.jaxpr)], eqn)
        outs, inner, records = walk(closed.jaxpr, closed.consts, args, handler, inner, {}, scope)
        if records:
            site = next(info for info in survey(closed.jaxpr, scope) if info.address == min(records))
            raise UnsupportedError(
                f"site {site} is inside a while_loop: it has no fixed number of values to "
                "trace or condition on; use lax.scan or lax.fori_loop with a fixed number of steps"
            )
        return outs, inner if divided is None else going_round

    # The predicate may have sites too, so it is evaluated once per iteration and carried. Under vmap it has an
    # axis: the loop goes on while any member does, and the others keep their values.
    def step(carry):
        state, go_on, old = carry
        new, state = run(body, [*body_consts, *old], state)
        if go_on.ndim:
            new = [jnp.where(align(go_on, x), x, y) for x, y in zip(new, old)]
        (go_on,), state = run(cond, [*cond_consts, *new], state)
        return state, go_on, new

    (go_on,), state = run(cond, [*cond_consts, *init], state)
    state, _, outs = lax.while_loop(lambda carry: jnp.any(carry[1]), step, (state, go_on, list(init)))
    return outs, state if divided is None else after, {}


_RULES = {"scan": _scan, "cond": _cond, "while": _while}
