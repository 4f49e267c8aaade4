"""How smooth a program's values are in the values of its sites: an abstract interpretation of its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl import compat
from ...ppl.choices import Address
from ...ppl.dataflow import Dataflow, Position
from ...ppl.effects import Site
from ...ppl.staging import Staged
from .bounds import REAL, Bounds, anything, either, exactly, hull, same
from .density_term import density_term, support_ends
from .poles import Pole, pole_of, pole_of_sum
from .signs import coarse
from .smooth_rules import (
    Break,
    bounds_of,
    breaks,
    is_immaterial,
    is_regular_solve,
    keeps_infinity,
    keeps_regular,
    most,
    users_line,
)

_UNTIL_COARSE = 3  # steps of a loop after which only the signs of carried values are followed


class Cause(NamedTuple):
    """An equation that is not smooth: how, its primitive, and the user's source line (empty where there is none)."""

    kind: Break
    primitive: str
    source: str

    def __str__(self) -> str:
        return f"{self.primitive} ({self.source})" if self.source else self.primitive


@dataclass(frozen=True, eq=False)
class Value:
    """What is known of a value as a function of the values of sites.

    Attributes:
      sites: those it depends on.
      causes: for each of them, the equations that may keep it from being smooth.
      cuts: equations that jump likewise, but to infinity: the density of a value that leaves its support.
      bounds: between which its elements lie, where they are finite.
      pole: where they may go to infinity.
      regular: whether it is triangular, with no zero on the diagonal.
    """

    sites: frozenset[Address] = frozenset()
    causes: frozenset[tuple[Address, Cause]] = frozenset()
    cuts: frozenset[tuple[Address, Cause]] = frozenset()
    bounds: Bounds | None = None
    pole: Pole = Pole.NONE
    regular: bool = False

    def __eq__(self, other) -> bool:
        flags = [(x.sites, x.causes, x.cuts, x.pole, x.regular) for x in (self, other)]
        if flags[0] != flags[1]:
            return False
        if self.bounds is None or other.bounds is None:
            return self.bounds is other.bounds
        return same(self.bounds, other.bounds)

    @property
    def uncut(self) -> Value:
        """With jumps to infinity counted as jumps."""
        return replace(self, causes=self.causes | self.cuts, cuts=frozenset())


NOTHING = Value()


def jumps(staged: Staged, moves: Callable[[Site], bool]) -> dict[Address, Cause]:
    """The sites through which the value of a staged program may jump, each with an equation that may be why."""
    causes = smooth_flow(staged, "value", moves).result.causes
    return {site: cause for site, cause in sorted(causes, reverse=True) if cause.kind >= Break.JUMP}


def smooth_flow(staged: Staged, of: str, moves: Callable[[Site], bool]) -> SmoothFlow:
    """Follows a staged program.

    Args:
      of: "density" or "value".
      moves: for "value", whether the draws of a site move with its parameters; where not, they stay and its log
        density counts.
    """
    found = SmoothFlow(of, moves)
    outs = found.walk(staged.jaxpr, list(map(found.constant, staged.leaves)), _Here(NOTHING))
    if of == "value":
        found.result = found.join(found.result, *outs)
    return found


@dataclass(frozen=True)
class _Here(Position):
    """A position, with what an equation without a line of its own is blamed on, and the worst that it can be.

    Attributes:
      aside: whether this is inside the density of a site.
    """

    source: str = ""
    most: Break = Break.UNKNOWN
    aside: bool = False


class SmoothFlow(Dataflow[Value]):
    """The pass.

    Attributes:
      result: what is known of the log density (or of the value).
      switches: the equations that may jump, by ``id``, each with the causes that it is: a function that is called on
        several lines has one jaxpr. The equations are kept, so that their ids stay theirs.
      terms: the densities of sites, as jaxprs.
    """

    nothing = NOTHING

    def __init__(self, of: str, moves: Callable[[Site], bool]):
        self.of = of
        self.moves = moves
        self.result = NOTHING
        self.switches: dict[int, frozenset[Cause]] = {}
        self.kept: list[compat.JaxprEqn] = []
        self.terms: dict[tuple, compat.ClosedJaxpr] = {}

    def term(self, kind: str, site: Site, values: Sequence) -> compat.ClosedJaxpr:
        """The log density of a site at values of these shapes: see :func:`density_term`."""
        shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in values)
        if (kind, site, shapes) not in self.terms:
            self.terms[kind, site, shapes] = density_term(kind, site, shapes)
        return self.terms[kind, site, shapes]

    # ------------------------------------------------------------------ what Dataflow asks

    def constant(self, value) -> Value:
        value = value if hasattr(value, "dtype") else np.asarray(value)
        concrete = not isinstance(value, jax.core.Tracer) and _is_number(value)
        return Value(bounds=replace(exactly(value), nan=False) if concrete else _unknown(value))

    def join(self, *values: Value) -> Value:
        bounds = [hull(value.bounds) for value in values if value.bounds is not None]
        return Value(
            frozenset().union(*(value.sites for value in values)),
            frozenset().union(*(value.causes for value in values)),
            frozenset().union(*(value.cuts for value in values)),
            either(bounds) if bounds else None,
            Pole(int(np.bitwise_or.reduce([int(value.pole) for value in values]))),
        )

    def chosen(self, predicate: Value, value: Value, eqn, here: _Here) -> Value:
        return replace(value, sites=value.sites | predicate.sites, causes=value.causes | predicate.causes)

    def plain(self, eqn: compat.JaxprEqn, operands: list[Value], here: _Here) -> list[Value]:
        known = [_unknown(v.aval) if x.bounds is None else x.bounds for x, v in zip(operands, eqn.invars)]
        bounds = bounds_of(eqn, known)
        regular = keeps_regular(eqn, [x.regular for x in operands])
        used = [] if is_immaterial(eqn) else _used(eqn, operands)
        if not keeps_infinity(eqn):
            used = [x.uncut for x in used]
        joined = self.join(NOTHING, *used)
        if not joined.sites:
            return [Value(bounds=b, regular=regular) for b in bounds]
        kind, blamed = (Break.NONE, ()) if is_regular_solve(eqn, operands[0].regular) else breaks(eqn, known)
        pole, has_limit = pole_of(eqn, known, [x.pole for x in operands], [not x.sites for x in operands])
        if not has_limit:
            kind, blamed = max(kind, Break.JUMP), range(len(operands))
        sites = frozenset().union(*(operands[i].sites for i in blamed))
        kind = min(kind, here.most, most(eqn)) if kind and sites else Break.NONE
        if kind:
            cause = Cause(kind, eqn.primitive.name, _source(eqn, here))
            joined = replace(joined, causes=joined.causes | {(site, cause) for site in sites})
            if kind >= Break.JUMP:
                self.switches[id(eqn)] = self.switches.get(id(eqn), frozenset()) | {cause}
                self.kept.append(eqn)
        joined = replace(joined, pole=pole, regular=regular)
        return [Value(bounds=b) if b.known else replace(joined, bounds=b) for b in bounds]

    def called(self, eqn: compat.JaxprEqn, here: _Here) -> _Here:
        return replace(here, source=_source(eqn, here), most=min(here.most, most(eqn)))

    def next_step(self, value: Value, here: _Here, steps: int) -> Value:
        if steps < _UNTIL_COARSE or value.bounds is None:
            return value
        return replace(value, bounds=coarse(value.bounds))

    def slice(self, value: Value, here: _Here) -> Value:
        return value if value.bounds is None else replace(value, bounds=hull(value.bounds))

    def site(self, eqn: compat.JaxprEqn, operands: list[Value], here: _Here) -> list[Value]:
        site, kind = eqn.params["site"].under(here.scope), eqn.primitive.name
        if kind == "sample":
            return [self._draw(site, eqn, operands, here)]
        if self.of == "density" and kind != "deterministic" and not here.aside:
            self._weigh(self.term(kind, site, [v.aval for v in eqn.invars]), site, operands, here)
        values = jax.tree.leaves(site.effect(operands).value) if kind != "factor" else []
        return [self.slice(value, here) for value in values] if site.axes else values

    # ------------------------------------------------------------------ sites

    def _draw(self, site: Site, eqn: compat.JaxprEqn, operands: list[Value], here: _Here) -> Value:
        avals, aval = [v.aval for v in eqn.invars], eqn.outvars[0].aval
        if here.aside:
            return Value(bounds=_unknown(aval))
        if not jnp.issubdtype(aval.dtype, jnp.inexact):
            drawn = Value(bounds=anything(aval.dtype))
        else:
            ends = self.walk(support_ends(site, avals), operands, replace(here, aside=True))
            least, greatest = (hull(end.bounds) for end in ends)
            drawn = Value(frozenset({site.name}), bounds=Bounds(least.lower, greatest.upper, True, True))
        if self.of == "value" and self.moves(site):
            parameters = self.join(NOTHING, *(operands[i] for i in _parameters(site)))
            return replace(drawn, sites=drawn.sites | parameters.sites, causes=parameters.uncut.causes)
        within = replace(drawn, sites=frozenset())
        self._weigh(self.term("sample", site, [*avals, aval]), site, [*operands, drawn, within], here)
        return drawn

    def _weigh(self, closed: compat.ClosedJaxpr, site: Site, inputs: list[Value], here: _Here) -> None:
        """Adds a term of the log density to the result."""
        (term,) = self.walk(closed, inputs, replace(here, source=site.source, aside=True, most=Break.UNKNOWN))
        term = self.chosen(here.reached, term.uncut, None, here)
        pole, has_limit = pole_of_sum(self.result.pole, term.pole)
        sites = frozenset() if has_limit else self.result.sites & term.sites
        clash = frozenset((address, Cause(Break.JUMP, "add", site.source)) for address in sites)
        joined = self.join(self.result, term)
        self.result = replace(joined, causes=joined.causes | clash, pole=pole)


def _used(eqn: compat.JaxprEqn, operands: list[Value]) -> list[Value]:
    """The operands, but for cases that are never selected. Where the other case is infinite, the predicate cuts."""
    if eqn.primitive.name != "select_n":
        return operands
    which, *cases = operands
    selected = None if which.bounds is None else hull(which.bounds)
    if selected is not None and selected.known:
        return [cases[int(selected.lower)]]
    if any(map(_is_infinite, cases)):
        which = replace(which, causes=frozenset(), cuts=which.causes)
    return [which, *cases]


def _is_infinite(value: Value) -> bool:
    return value.bounds is not None and value.bounds.known and bool(np.all(np.isinf(value.bounds.lower)))


def _parameters(site: Site):
    numbered = site.effect(range(site.tree.num_leaves))
    return jax.tree.leaves(numbered.distribution)


def _is_number(x) -> bool:
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _unknown(x) -> Bounds:
    return REAL if jnp.issubdtype(x.dtype, jnp.floating) else anything(x.dtype)


def _source(eqn: compat.JaxprEqn, here: _Here) -> str:
    """The user's line that an equation is on: its own, or that of the call around it."""
    return users_line(eqn) or here.source
