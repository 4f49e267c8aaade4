"""Metropolis-Hastings, over the choices of any program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from ... import ppl
from ...ppl import AddressError, Masked, Selection, Trace
from ...ppl.choices import Address, align, flatten, nest, spell
from ...ppl.errors import did_you_mean
from ...ppl.staging import SiteInfo, Staged, stage
from ...semantics.target import trace_at
from .involution import involute
from .kernel import Kernel
from .metropolis import draw_proposal, metropolis


def mh(
    program: Callable,
    proposal: Selection | Callable,
    involution: Callable | None = None,
    redrawn: Selection | None = None,
) -> Kernel:
    """The Metropolis-Hastings kernel: proposes other choices, and accepts or stays.

    With a selection, the selected sites are drawn anew, each from its own distribution (or its ``proposal``).

    With a proposal program ``(choices, *args)``, its sites are the new values of the sites of ``program`` of the same
    addresses; the rest stay. With x the choices, y the new ones and q the density of the proposal, y is accepted with
    probability

        min(1, p(y) q(x | y) / p(x) q(y | x)).

    Where other sites appear because a branch changes, and the proposal has none of their addresses, they are drawn from
    their own distributions, which is counted on both ways. Masked sites of the proposal propose where they are present.
    The sites ``redrawn`` are drawn anew as well, given what is proposed.

    With an involution as well, the sites of the proposal are auxiliary values u, whatever their addresses, and
    ``(choices, auxiliary, *args) -> (choices, auxiliary)`` says where choices and auxiliary values go together. It has
    to be its own inverse, and is differentiated: (y, v) = f(x, u) is accepted with probability

        min(1, p(y) q(v | y) / p(x) q(u | x) |det df/d(x, u)|).

    Sites may be Masked, so that x and y can have different sites: what counts is that (x, u) and (y, v) have equally
    many continuous values. Points that f does not come back to in two steps are never left, so that the target is kept
    even by a map that is no involution.

    A proposal whose density is zero or not a number is not accepted; where the present density is zero or not a
    number, any other proposal is. The state's ``info`` is an :class:`Acceptance`.

    Raises, when the program is traced:
      AddressError: the selection or the proposal has an address that the program does not have.
      UnsupportedError: the proposal carries weights, or a density is only an estimate.
      ChoiceError: the involution does not keep the sites, their shapes and dtypes.

    Source: Hastings, *Monte Carlo sampling methods using Markov chains and their applications*, Biometrika 57 (1970);
    Green, *Reversible jump Markov chain Monte Carlo computation and Bayesian model determination*, Biometrika 82
    (1995).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model(y):
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(x, 1.0), y)
    >>> kernel = inference.mh(model, lambda choices, y: ppl.sample("x", dist.Normal(choices["x"], 0.5)))
    >>> y = jnp.array(2.0)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0), y), y)
    >>> state = ppl.seed(kernel)(jax.random.key(1), state, y)
    >>> round(float(state.info.probability), 2)
    0.93
    """
    if isinstance(proposal, Selection):
        if involution is not None:
            raise TypeError(
                "an involution needs a proposal program for its auxiliary values, not a selection"
            )
        propose = _resimulate(program, proposal if redrawn is None else proposal | redrawn)
    elif involution is None:
        propose = _replace(program, proposal, ppl.select() if redrawn is None else redrawn)
    elif redrawn is None:
        propose = _involute(program, proposal, involution)
    else:
        raise TypeError("an involution says where all choices go: leave out redrawn")

    return metropolis("mh", program, propose)


# ------------------------------------------------------------------------- ways to propose


def _resimulate(program: Callable, selection: Selection) -> Callable:
    """Draws the selection anew."""

    def propose(trace: Trace, *args):
        with ppl.scope("program"):
            edit = ppl.regenerate(program, selection)(trace, *args)
        return edit.trace, edit.log_weight

    return propose


def _replace(program: Callable, proposal: Callable, redrawn: Selection) -> Callable:
    """Puts what the proposal draws in place. The way back proposes what that discards."""

    def propose(trace: Trace, *args):
        forward = draw_proposal(proposal, trace.choices, *args)
        old, drawn = flatten(trace.choices), flatten(forward.choices)
        _check_addresses(drawn, old)
        new = {address: _put(x, old[address]) for address, x in drawn.items()}
        with ppl.scope("program"):
            edit = ppl.regenerate(program, redrawn, nest(new))(trace, *args)
        discarded = flatten(edit.discarded)
        back = {address: _put_back(x, discarded[address]) for address, x in drawn.items()}
        backward = ppl.log_density(proposal)(nest(back), edit.trace.choices, *args)
        # A site that the proposal always has cannot propose what was not there.
        lacking = [_lacks(x, discarded[address]) for address, x in drawn.items()]
        backward = jnp.where(jnp.any(jnp.array(lacking)), -jnp.inf, backward)
        return edit.trace, edit.log_weight + backward - forward.log_density

    return propose


def _involute(program: Callable, proposal: Callable, involution: Callable) -> Callable:
    """Moves choices and auxiliary values together. The way back draws the new auxiliary values."""

    def propose(trace: Trace, *args):
        forward = draw_proposal(proposal, trace.choices, *args)
        sites = {
            **_sites("choices", stage(program, *args)),
            **_sites("auxiliary", stage(proposal, trace.choices, *args)),
        }
        point = trace.choices, forward.choices
        (choices, auxiliary), log_volume = involute(lambda x, u: involution(x, u, *args), point, sites)
        new = _trace_at(program, choices, *args)
        backward = ppl.log_density(proposal)(auxiliary, choices, *args)
        log_ratio = new.log_density - trace.log_density + backward - forward.log_density
        return new, log_ratio + log_volume

    return propose


def _trace_at(program: Callable, choices: dict, *args) -> Trace:
    """The trace with exactly these choices; of density zero if there is none."""
    with ppl.scope("program"):
        new = trace_at(program, choices, *args)
    given = flatten(choices)
    drawn = [
        jnp.any(x.present & ~given[address].present)
        for address, x in flatten(new.choices).items()
        if isinstance(x, Masked)
    ]
    lost = jnp.any(jnp.array(drawn, bool))
    return replace(new, log_density=jnp.where(lost, -jnp.inf, new.log_density))


# ------------------------------------------------------------------------- sites of a proposal


def _check_addresses(drawn: dict[Address, Any], old: dict[Address, Any]) -> None:
    known = [spell(address) for address in old]
    for address in drawn:
        if address not in old:
            name = spell(address)
            raise AddressError(
                f"the proposal draws {name!r}, which is no site of the program{did_you_mean(name, known)}; it has "
                f"{', '.join(map(repr, known)) or 'none'}. Auxiliary draws need an involution that says where they go"
            )


def _put(drawn, old):
    """The new value of a site: the old one where a branch of the proposal does not draw it."""
    if isinstance(drawn, Masked) and not isinstance(old, Masked):
        return jnp.where(align(drawn.present, old), drawn.value, old)
    return drawn


def _put_back(drawn, discarded):
    """The old value of a site, as the proposal would have drawn it."""
    if isinstance(drawn, Masked) == isinstance(discarded, Masked):
        return discarded
    return Masked(discarded, drawn.present) if isinstance(drawn, Masked) else discarded.value


def _lacks(drawn, discarded):
    if isinstance(drawn, Masked) or not isinstance(discarded, Masked):
        return jnp.array(False)
    return ~jnp.all(discarded.present)


def _sites(side: str, staged: Staged) -> dict[Address, SiteInfo]:
    return {(side, *info.address): info for info in staged.of_kind("sample")}
