"""update and regenerate: another trace from a trace, with the weight of the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from .choices import Address, Masked, align, flatten, nest
from .density import reach, unreached
from .effects import Effect, Guard, Site, log_prob, remake
from .errors import ChoiceError, UnsupportedError
from .given import check_given
from .interpreter import Handler, interpret
from .partly import Partly
from .selection import Selection
from .staging import Staged, stage
from .trace import Trace
from .weigh import log_ratio, weigh_site


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Edit:
    """A changed trace.

    Attributes:
      trace: the new :class:`Trace`.
      log_weight: the log weight of the change; see :func:`update` and :func:`regenerate`.
      discarded: nested choices: the values of the old trace that are not in the new one.
    """

    trace: Trace
    log_weight: jax.Array
    discarded: dict


def update(program: Callable, choices: Mapping | None = None) -> Callable:
    """A program ``(trace, *args) -> Edit``: the trace at new arguments, new choices, or both.

    Sites keep their values unless ``choices`` has another one. A site that the old trace lacks, because another branch
    is taken now, is drawn. With x the old choices, y the new ones and u those of them that are drawn, from q,

        log_weight = log p'(y) - log p(x) - log q(u),

    p' being the density at the new arguments. If no branch changes there is nothing to draw, and the weight is the
    difference of the log densities. ``update`` with ``discarded`` undoes the change.

    Args:
      choices: nested dicts like those of ``condition``, of whole or part values (:func:`partly`, :func:`prefix`).

    Raises:
      AddressError, ChoiceError: as ``condition`` does; and where a value of the trace does not fit the program any
        more, because its shape depends on the arguments.

    Source: Cusumano-Towner et al., *Gen: a general-purpose probabilistic programming system with programmable
    inference*, PLDI 2019.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda scale: ppl.sample("x", dist.Exponential(1.0 / scale))
    >>> old = ppl.simulate(model)(jax.random.key(0), jnp.array(1.0))
    >>> new = ppl.update(model, {"x": 2.0})(old, jnp.array(2.0))
    >>> float(new.trace.log_density), bool(new.discarded["x"] == old.value)
    (-1.6931471824645996, True)
    """

    def updated(trace: Trace, *args, **kwargs) -> Edit:
        staged = _stage(program, args, kwargs)
        new = check_given(staged, choices or {}, complete=False, partial=True)
        old = flatten(trace.choices)
        given = _merged(staged, old, new)
        rerun = _rerun(staged, given, new)
        log_weight = _difference(rerun.total, trace.log_density)
        return Edit(rerun.trace, log_weight, _discarded(old, new, given, rerun.kept))

    return updated


def regenerate(program: Callable, selection: Selection, choices: Mapping | None = None) -> Callable:
    """A program ``(trace, *args) -> Edit``: the selected sites drawn anew, with the weight for Metropolis-Hastings.

    With x the old choices, y the new ones, and q(y | x) the density of the draws that lead from x to y (each site's own
    distribution, or its proposal),

        log_weight = log p(y) q(x | y) - log p(x) q(y | x),

    both at ``args``: accept with probability ``min(1, exp(log_weight))`` and the measure of the program at these
    arguments is kept. Sites that another branch brings are drawn too; those that it drops are discarded.

    Args:
      choices: new values of other sites, like those of ``update``, where they come from a proposal: its density of
        them over that of ``discarded``, which the way back proposes, is not in the weight. The proposal is in charge
        of these sites, so none of them is drawn here: where one is reached without a value, the weight is minus
        infinity.

    Raises:
      AddressError: the selection or the choices name an address that the program does not have.
      ChoiceError: as ``update`` does.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> def model():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     return ppl.observe("y", dist.Normal(x, 1.0), 2.0)
    >>> old = ppl.simulate(model)(jax.random.key(0))
    >>> new = ppl.seed(ppl.regenerate(model, ppl.select("x")))(jax.random.key(1), old)
    >>> bool(jnp.allclose(new.log_weight, new.trace.log_weight - old.log_weight))  # the likelihood ratio
    True
    """

    def regenerated(trace: Trace, *args, **kwargs) -> Edit:
        staged = _stage(program, args, kwargs)
        redrawn = selection.among(info.address for info in staged.of_kind("sample"))
        new = check_given(staged, choices or {}, complete=False, partial=True)
        old = check_given(staged, trace.choices, complete=True)
        given = _merged(staged, {address: x for address, x in old.items() if address not in redrawn}, new)
        rerun = _rerun(staged, given, new)
        back = {a: jnp.ones_like(kept) if a in new else kept for a, kept in rerun.kept.items()}
        log_weight = _difference(rerun.total + _without_value(rerun, new), _retraced(staged, old, back))
        return Edit(rerun.trace, log_weight, _discarded(old, new, given, rerun.kept))

    return regenerated


def _stage(program: Callable, args: tuple, kwargs: Mapping[str, Any]) -> Staged:
    staged = stage(program, *args, **kwargs)
    for info in staged.sites:
        if info.is_estimated:
            raise UnsupportedError(
                f"the density of {info} is only an estimate, so a weight that divides by it would be biased; give its "
                "program an exact algorithm, such as inference.enumerate"
            )
    return staged


@dataclass(frozen=True)
class _Rerun:
    """A run with some of its choices given: its trace, the log weight of what was given and drawn, and which
    values are the given ones (bool, an axis for each scan and vmap around the site)."""

    trace: Trace
    total: jax.Array
    kept: dict[Address, jax.Array]


def _rerun(staged: Staged, given: Mapping[Address, Any], new: Mapping[Address, Any]) -> _Rerun:
    zero = jnp.zeros((), float)
    value, state, records = interpret(staged, _Given(), (zero, zero, zero), given)
    computed = {info.address for info in staged.of_kind("deterministic")}
    records = staged.unmasked(records)
    choices, kept, lost = {}, {}, jnp.zeros((), float)
    for address, record in records.items():
        if address in computed:
            continue
        if isinstance(record, Masked):
            choices[address] = Masked(record.value[0], record.present)
            kept[address] = record.value[1] & record.present
            if address in new:
                lost = lost + unreached(new[address], record)
        else:
            choices[address], kept[address] = record
    log_density, log_weight, total = (x + lost for x in state)
    deterministic = nest({address: records[address] for address in computed if address in records})
    return _Rerun(Trace(value, nest(choices), log_density, log_weight, deterministic), total, kept)


class _Given(Handler):
    """Uses what is given and draws the rest.

    State: the log density; the log weight as ``weigh`` has it; and the log weight of what was given and drawn. Records
    the values of sites, for ``sample`` sites together with whether they were given.
    """

    def site(self, kind, site: Site, operands, given, state):
        if kind == "deterministic":
            outs = jax.tree.leaves(site.map(lambda effect: effect.value, operands))
            return outs, state, site.masked(operands, site.value_of(outs))
        if kind != "sample":
            outs, increment = weigh_site(kind, site, operands)
            return outs, tuple(total + increment.astype(total.dtype) for total in state), None
        value, kept = _chosen(site, operands, given)
        increments = (
            site.log_prob(operands, value),
            site.sum(log_ratio, operands, value) if site.effect(operands).proposal is not None else 0.0,
            site.sum(_kept_or_drawn, operands, value, kept),
        )
        state = tuple(total + jnp.asarray(x, total.dtype) for total, x in zip(state, increments))
        return [value], state, site.masked(operands, (value, kept))


def _without_value(rerun: _Rerun, new: Mapping[Address, Any]):
    """Minus infinity where a site with new choices is reached and was not given a value."""
    reached = flatten(rerun.trace.choices)
    lacking = [
        jnp.any(reached[a].present & ~rerun.kept[a]) for a in new if isinstance(reached.get(a), Masked)
    ]
    return jnp.where(jnp.any(jnp.array(lacking, bool)), -jnp.inf, 0.0)


def _retraced(staged: Staged, old: Mapping[Address, Any], kept: Mapping[Address, jax.Array]):
    """The log weight of old choices as the reverse move has it: of what it keeps, and of what it draws."""
    given = {
        address: (choice.value, kept[address], choice.present)
        if isinstance(choice, Masked)
        else (choice, kept[address], None)
        for address, choice in old.items()
    }
    _, total, reached = interpret(staged, _Retrace(), jnp.zeros((), float), given)
    return total + sum(unreached(old[address], record) for address, record in reached.items())


class _Retrace(Handler):
    """State: the log weight so far. Records where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, total):
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), total, None
        if kind != "sample":
            outs, increment = weigh_site(kind, site, operands)
            return outs, total + increment.astype(total.dtype), None

        def term(effect: Effect, value, kept, chosen):
            log_weight = _kept_or_redrawn(effect, value, kept)
            if chosen is None:
                return log_weight
            here = True if effect.present is None else effect.present
            return jnp.where(here & ~chosen, -jnp.inf, log_weight)

        value, kept, present = given
        total = total + site.sum(term, operands, value, kept, present).astype(total.dtype)
        return [value], total, None if present is None else reach(site, operands, Masked(value, present))


def _chosen(site: Site, operands, given):
    """A site's value, given or drawn, and whether it was given."""
    shape = tuple(axis.size for axis in site.axes)
    if given is None:
        (value,), _ = weigh_site("sample", site, operands)
        return value, jnp.zeros(shape, bool)
    if not isinstance(given, Masked):
        return given, jnp.ones(shape, bool)
    lacking = ~given.present if site.present(operands) is None else ~given.present & site.present(operands)
    absent, absent_operands = remake(site, operands, lambda e, here: replace(e, present=here), lacking)
    absent = replace(absent, guards=(*absent.guards, Guard(object(), 0, optional=True)))
    (drawn,), _ = weigh_site("sample", absent, absent_operands)
    return jnp.where(align(given.present, drawn), given.value, drawn), given.present


def _kept_or_drawn(effect: Effect, value, kept):
    """The log density of a kept value; of a drawn one over that of its draw, which is one without a proposal."""
    drawn = 0.0 if effect.proposal is None else log_ratio(effect, value)
    total = jnp.where(kept, log_prob(effect.distribution, value), drawn)
    return total if effect.present is None else jnp.where(effect.present, total, 0.0)


def _kept_or_redrawn(effect: Effect, value, kept):
    """The same for the way back. What its proposal cannot draw makes it impossible: infinite, as it is subtracted."""
    total = _kept_or_drawn(effect, value, kept)
    if effect.proposal is None:
        return total
    here = True if effect.present is None else effect.present
    possible = kept | (log_prob(effect.proposal, value) > -jnp.inf)
    lost = here & ~possible & (log_prob(effect.distribution, value) > -jnp.inf)
    return jnp.where(lost, jnp.inf, total)


def _merged(staged: Staged, old: Mapping[Address, Any], new: Mapping[Address, Any]) -> dict[Address, Any]:
    """The new choices, and the old ones where there are no new ones."""
    sites = {info.address: info for info in staged.of_kind("sample")}
    replaced = {a for a, x in new.items() if not isinstance(x, Masked | Partly)}
    staying = {a: x for a, x in old.items() if a in sites and a not in replaced}
    merged = dict(check_given(staged, nest(staying), complete=False))
    for address, choice in new.items():
        before = merged.get(address)
        if not isinstance(choice, Masked | Partly):
            merged[address] = choice
        elif isinstance(choice, Masked) and not isinstance(choice.value, Partly):
            merged[address] = choice if before is None else choice | before
        elif isinstance(choice, Partly) and before is not None:
            known = align(choice.known, before)
            merged[address] = jnp.where(known, choice.value, before)
        else:
            raise ChoiceError(
                f"{sites[address]} needs a whole value here: the trace has none for the other elements"
            )
    return merged


def _discarded(
    old: Mapping[Address, Any],
    new: Mapping[Address, Any],
    given: Mapping[Address, Any],
    kept: Mapping[Address, jax.Array],
) -> dict:
    """The old values that were replaced or drawn anew, or whose sites are gone."""
    discarded = {}
    for address, before in old.items():
        choice = new.get(address)
        if isinstance(before, Masked) and address in kept:
            stays = kept[address] if choice is None else kept[address] & ~choice.present
            discarded[address] = Masked(before.value, before.present & ~stays)
        elif isinstance(choice, Partly):
            discarded[address] = Partly(before, choice.known)
        elif choice is not None or address not in given:
            discarded[address] = before
    return nest(discarded)


def _difference(new, old):
    """``new - old``; minus infinity, not NaN, from one impossible trace to another."""
    return jnp.where(new == -jnp.inf, -jnp.inf, new - old)
