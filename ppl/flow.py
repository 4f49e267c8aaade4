"""Which sites' values flow into which sites: one pass over a program's jaxpr, without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import jax

from . import compat
from .choices import Address
from .compat import scopes_of
from .effects import Effect, Site, effect_primitives, factor_p
from .staging import SiteInfo, Staged, called_jaxpr, has_effects, identity, survey

Place = tuple[int, ...]  # where an equation is: its number, and that of each equation and branch around it

# The sites that a value comes from, each with the outermost loop of which it was an earlier step, if it was.
Origins = frozenset[tuple[Place, Place | None]]

NOTHING: Origins = frozenset()


@dataclass(frozen=True)
class Plate:
    """What repeats the sites inside it: a scan, a ``while_loop``, or an axis of ``vmap``.

    Attributes:
      kind: "scan", "while" or "vmap".
      size: how many times; None for a ``while_loop``.
      place: where the loop is. A vmap leaves no trace of itself but the size of its axis, so this is empty for it.
    """

    kind: str
    size: int | None
    place: Place = ()

    def __str__(self) -> str:
        return self.kind if self.size is None else f"{self.kind} {self.size}"


@dataclass(frozen=True)
class Visit:
    """A place where the program reaches a site.

    Attributes:
      info: the site. Its shape has no axes for ``while_loop``.
      plates: what repeats it, in the order of its leading axes: loops, then vmaps, outermost first.
      value: the shapes of its value's leaves, with all those axes.
    """

    info: SiteInfo
    plates: tuple[Plate, ...]
    value: tuple[jax.ShapeDtypeStruct, ...]


@dataclass(frozen=True)
class Flow:
    """The sites of a program by place, in program order, and ``(from, to, earlier)`` for each flow between them."""

    visits: dict[Place, Visit]
    edges: frozenset[tuple[Place, Place, bool]]


def flow(staged: Staged) -> Flow:
    """The flows of a staged program.

    A value flows from one site to another if a path of equations leads from it to a parameter of the other's
    distribution, to its observed or recorded value or log weight, or to a predicate on which it depends whether the
    other is reached; a path ends at the first site on it. Calls and control flow are followed inside; of any other
    equation, every output comes from every input (so ``0 * x`` comes from ``x``). A scan is followed for as many
    steps as it has, and a ``while_loop`` for any number of them.
    """
    found = _Pass({}, set())
    jaxpr = staged.jaxpr.jaxpr
    found.walk(jaxpr, [NOTHING for _ in jaxpr.invars], _Position())
    return Flow(found.visits, frozenset(found.edges))


@dataclass(frozen=True)
class _Position:
    """Where the pass is.

    Attributes:
      reached: what it depends on whether the program gets here.
      certain: the sites that all branches of each cond around have; None outside any.
    """

    place: Place = ()
    scope: Address = ()
    plates: tuple[Plate, ...] = ()
    reached: Origins = NOTHING
    certain: frozenset[tuple[Address, bool]] | None = None

    def at(self, number: int, scope: Address = ()) -> _Position:
        return replace(self, place=(*self.place, number), scope=(*self.scope, *scope))

    def inside(self, kind: str, size: int | None) -> _Position:
        return replace(self, plates=(*self.plates, Plate(kind, size, self.place)))

    def provided(self, predicate: Origins) -> _Position:
        return replace(self, reached=self.reached | predicate)

    def among(self, branches) -> _Position:
        common = frozenset.intersection(
            *(frozenset(map(identity, survey(b.jaxpr, self.scope))) for b in branches)
        )
        return replace(self, certain=common if self.certain is None else self.certain & common)


@dataclass(frozen=True)
class _Pass:
    """The pass, with what it has found so far. A loop is followed until a step is like one before."""

    visits: dict[Place, Visit]
    edges: set[tuple[Place, Place, bool]]

    def walk(self, jaxpr: compat.Jaxpr, inputs: list[Origins], here: _Position) -> list[Origins]:
        """From where the outputs come, given from where the inputs come."""
        env = dict(zip(jaxpr.invars, inputs))

        def read(atom) -> Origins:  # constants come from nowhere
            return NOTHING if isinstance(atom, compat.Literal) else env.get(atom, NOTHING)

        for number, eqn in enumerate(jaxpr.eqns):
            operands = [read(atom) for atom in eqn.invars]
            if any(operands) or has_effects(eqn):
                outs = self.equation(eqn, operands, here.at(number, scopes_of(eqn)))
                env.update(zip(eqn.outvars, outs))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: compat.JaxprEqn, operands: list[Origins], here: _Position) -> list[Origins]:
        if eqn.primitive in effect_primitives:
            return self.site(eqn, operands, here)
        if (called := called_jaxpr(eqn)) is not None:
            return self.walk(called.jaxpr, operands, here)
        match eqn.primitive.name:
            case "scan":
                return self.scan(eqn, operands, here)
            case "cond":
                return self.cond(eqn.params["branches"], operands, here)
            case "while":
                return self.while_loop(eqn.params, operands, here)
        return [NOTHING.union(*operands) for _ in eqn.outvars]

    def site(self, eqn, operands, here: _Position) -> list[Origins]:
        site = eqn.params["site"].under(here.scope)
        self.visits[here.place] = _visit(eqn, site, here)
        parameters = [operands[i] for i in _parameters(site)]
        for origin, earlier in here.reached.union(*parameters):
            self.edges.add((origin, here.place, earlier is not None))
        return [frozenset({(here.place, None)}) for _ in eqn.outvars]

    def scan(self, eqn: compat.JaxprEqn, operands, here: _Position) -> list[Origins]:
        params, length = eqn.params, eqn.params["length"]
        num_consts, num_carry = compat.scan_counts(eqn)
        consts, carry = operands[:num_consts], operands[num_consts:][:num_carry]
        xs = operands[num_consts + num_carry :]

        def step(carry: list[Origins]) -> list[Origins]:
            return self.walk(params["jaxpr"].jaxpr, [*consts, *carry, *xs], here.inside("scan", length))

        met: list[list[Origins]] = []  # what the carry was at each step, until it is for a second time
        ys: list[Origins] = [NOTHING for _ in params["jaxpr"].jaxpr.outvars[num_carry:]]
        if length == 0:
            step(carry)  # its sites are there, though they have no values
        while len(met) < length and carry not in met:
            met.append(carry)
            outs = step(carry)
            carry = [_next_step(out, here.place) for out in outs[:num_carry]]
            ys = [y | out for y, out in zip(ys, outs[num_carry:])]
        if carry in met:  # from its first time on, it goes round
            first = met.index(carry)
            carry = met[first + (length - first) % (len(met) - first)]
        return [_after(out, here.place) for out in (*carry, *ys)]

    def cond(self, branches, operands, here: _Position) -> list[Origins]:
        index, *operands = operands
        inside = here.among(branches).provided(index)
        outs = [self.walk(b.jaxpr, operands, inside.at(number)) for number, b in enumerate(branches)]
        return [index.union(*alternatives) for alternatives in zip(*outs)]

    def while_loop(self, params, operands, here: _Position) -> list[Origins]:
        cond, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
        num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
        cond_consts, body_consts = operands[:num_cond], operands[num_cond:][:num_body]
        inside = here.inside("while", None)
        carry, passed = (
            operands[num_cond + num_body :],
            NOTHING,
        )  # passed: what the predicates so far come from
        met: list[tuple[list[Origins], Origins]] = []
        ends: list[list[Origins]] = []
        while (carry, passed) not in met:
            met.append((carry, passed))
            (going,) = self.walk(cond, [*cond_consts, *carry], inside.provided(passed).at(0))
            outs = self.walk(body, [*body_consts, *carry], inside.provided(passed | going).at(1))
            ends.append([old | passed | going for old in carry])
            carry = [_next_step(out, here.place) for out in outs]
            passed = passed | _next_step(going, here.place)
        return [_after(NOTHING.union(*alternatives), here.place) for alternatives in zip(*ends)]


def _visit(eqn, site: Site, here: _Position) -> Visit:
    loops = tuple(plate.size for plate in here.plates if plate.size is not None)
    avals = [v.aval for v in eqn.outvars]
    value = tuple(jax.ShapeDtypeStruct((*loops, *aval.shape), aval.dtype) for aval in avals)
    own = (site.name, eqn.primitive is factor_p)
    lacking = here.certain is not None and own not in here.certain
    info = SiteInfo(
        eqn.primitive.name,
        site.name,
        site,
        value[0].shape if value else None,
        value[0].dtype if value else None,
        tuple(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars),
        optional=lacking or any(guard.optional for guard in site.guards),
        unbounded=any(plate.size is None for plate in here.plates),
        present_shape=(*loops, *(axis.size for axis in site.axes)),
    )
    return Visit(info, (*here.plates, *(Plate("vmap", axis.size) for axis in site.axes)), value)


def _parameters(site: Site) -> Iterable[int]:
    """The operands of a site that say what it means: all but those of its proposal."""
    numbered: Effect = jax.tree.unflatten(site.tree, range(site.tree.num_leaves))
    return jax.tree.leaves(replace(numbered, proposal=None))


def _next_step(origins: Origins, loop: Place) -> Origins:
    """Origins as the next step of the loop sees them."""
    return frozenset(
        (place, loop if earlier is None and place[: len(loop)] == loop else earlier)
        for place, earlier in origins
    )


def _after(origins: Origins, loop: Place) -> Origins:
    """Origins as what comes after the loop sees them: which of its steps it was does not matter any more."""
    return frozenset((place, None if earlier == loop else earlier) for place, earlier in origins)
