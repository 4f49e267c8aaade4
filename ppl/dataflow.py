"""Dataflow: one pass over a program's jaxpr that follows a property of its values, without running anything.

What is followed is up to the subclass: which sites a value comes from, whether it is smooth in them. The pass goes
through calls and control flow; a subclass says what sites and plain equations do, and how properties join.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from . import compat
from .choices import Address
from .compat import scopes_of
from .effects import effect_primitives
from .staging import called_jaxpr, identity, survey

Property = TypeVar("Property")
Place = tuple[int, ...]  # where an equation is: its number, and that of each equation and branch around it


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
class Position:
    """Where the pass is.

    Attributes:
      reached: the property of what it depends on whether the program gets here.
      certain: the sites that all branches of each cond around have; None outside any.
    """

    reached: Any
    place: Place = ()
    scope: Address = ()
    plates: tuple[Plate, ...] = ()
    certain: frozenset[tuple[Address, bool]] | None = None

    def at(self, number: int, scope: Address = ()) -> Position:
        return replace(self, place=(*self.place, number), scope=(*self.scope, *scope))

    def inside(self, kind: str, size: int | None) -> Position:
        return replace(self, plates=(*self.plates, Plate(kind, size, self.place)))

    def among(self, branches) -> Position:
        common = frozenset.intersection(
            *(frozenset(map(identity, survey(b.jaxpr, self.scope))) for b in branches)
        )
        return replace(self, certain=common if self.certain is None else self.certain & common)


class Dataflow(Generic[Property]):
    """The pass. There must be finitely many properties that a loop's carry can have: it is followed until a step is
    like one before. A scan is followed for as many steps as it has, a ``while_loop`` for any number of them.

    Attributes:
      nothing: the property of what no equation has made yet; joined to any other, it gives the other.
    """

    nothing: Property

    def constant(self, value) -> Property:
        """The property of a literal, or of an array that the program closes over."""
        return self.nothing

    def site(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        raise NotImplementedError

    def plain(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        """The outputs of an equation that is no site, no call and no control flow."""
        raise NotImplementedError

    def join(self, *properties: Property) -> Property:
        """The property of what may be any of these."""
        raise NotImplementedError

    def chosen(self, predicate: Property, value: Property, eqn: compat.JaxprEqn, here: Position) -> Property:
        """The property of a value that control flow leads to."""
        return self.join(predicate, value)

    def called(self, eqn: compat.JaxprEqn, here: Position) -> Position:
        """The position inside the function that an equation calls or repeats."""
        return here

    def next_step(self, value: Property, here: Position, steps: int) -> Property:
        """A carried value as the next step of a loop sees it, after so many steps."""
        return value

    def advance(
        self, before: list[Property], after: list[Property], here: Position, steps: int
    ) -> list[Property]:
        """All that a loop carries as its next step sees it, given what this step saw and what it made of it."""
        return [self.next_step(value, here, steps) for value in after]

    def slice(self, value: Property, here: Position) -> Property:
        """What a scan runs over, as one of its steps sees it."""
        return value

    def after(self, value: Property, here: Position) -> Property:
        """A value as what comes after the loop sees it."""
        return value

    def walk(self, closed: compat.ClosedJaxpr, inputs: Sequence[Property], here: Position) -> list[Property]:
        """The properties of a jaxpr's outputs, given those of its inputs."""
        jaxpr = closed.jaxpr
        env = dict(zip(jaxpr.constvars, map(self.constant, closed.consts)))
        env.update(zip(jaxpr.invars, inputs))

        def read(atom) -> Property:
            if isinstance(atom, compat.Literal):
                return self.constant(atom.val)
            return env.get(atom, self.nothing)

        for number, eqn in enumerate(jaxpr.eqns):
            outs = self._equation(eqn, [read(atom) for atom in eqn.invars], here.at(number, scopes_of(eqn)))
            env.update(zip(eqn.outvars, outs))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        if eqn.primitive in effect_primitives:
            return self.site(eqn, operands, here)
        if (called := called_jaxpr(eqn)) is not None:
            return self.walk(called, operands, self.called(eqn, here))
        match eqn.primitive.name:
            case "scan":
                return self._scan(eqn, operands, self.called(eqn, here))
            case "cond":
                return self._cond(eqn, operands, self.called(eqn, here))
            case "while":
                return self._while_loop(eqn, operands, self.called(eqn, here))
        return self.plain(eqn, operands, here)

    def _provided(self, predicate: Property, eqn: compat.JaxprEqn, here: Position) -> Position:
        return replace(here, reached=self.chosen(predicate, here.reached, eqn, here))

    def _scan(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        num_consts, num_carry = compat.scan_counts(eqn)
        consts, carry = operands[:num_consts], operands[num_consts:][:num_carry]
        xs = [self.slice(x, here) for x in operands[num_consts + num_carry :]]

        def step(carry: list[Property]) -> list[Property]:
            return self.walk(body, [*consts, *carry, *xs], here.inside("scan", length))

        met: list[list[Property]] = []  # what the carry was at each step, until it is for a second time
        ys: list[Property] = [self.nothing for _ in body.jaxpr.outvars[num_carry:]]
        if length == 0:
            step(carry)  # its sites are there, though they have no values
        while len(met) < length and carry not in met:
            met.append(carry)
            outs = step(carry)
            carry = self.advance(carry, outs[:num_carry], here, len(met))
            ys = [self.join(y, out) for y, out in zip(ys, outs[num_carry:])]
        if carry in met:  # from its first time on, it goes round
            first = met.index(carry)
            carry = met[first + (length - first) % (len(met) - first)]
        return [self.after(out, here) for out in (*carry, *ys)]

    def _cond(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        index, *operands = operands
        branches = eqn.params["branches"]
        inside = self._provided(index, eqn, here.among(branches))
        outs = [self.walk(b, operands, inside.at(number)) for number, b in enumerate(branches)]
        return [self.chosen(index, self.join(*alternatives), eqn, here) for alternatives in zip(*outs)]

    def _while_loop(self, eqn: compat.JaxprEqn, operands: list[Property], here: Position) -> list[Property]:
        params = eqn.params
        num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
        cond_consts, body_consts = operands[:num_cond], operands[num_cond:][:num_body]
        inside = here.inside("while", None)
        # passed: what it depends on whether the loop has come this far
        carry, passed = operands[num_cond + num_body :], self.nothing
        met: list[tuple[list[Property], Property]] = []
        ends: list[list[Property]] = []
        while (carry, passed) not in met:
            met.append((carry, passed))
            provided = self._provided(passed, eqn, inside)
            (going,) = self.walk(params["cond_jaxpr"], [*cond_consts, *carry], provided.at(0))
            so_far = self.join(passed, going)
            provided = self._provided(so_far, eqn, inside)
            outs = self.walk(params["body_jaxpr"], [*body_consts, *carry], provided.at(1))
            ends.append([self.chosen(so_far, old, eqn, here) for old in carry])
            carry = self.advance(carry, outs, here, len(met))
            passed = self.join(passed, self.next_step(going, here, len(met)))
        return [self.after(self.join(*alternatives), here) for alternatives in zip(*ends)]
