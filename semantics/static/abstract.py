"""What is known of a program's values before anything runs: which are equal, and between which bounds they lie."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions

from ...ppl import compat
from ...ppl.dataflow import Dataflow, Place, Plate, Position
from ...ppl.effects import Site
from ...ppl.staging import Staged, called_jaxpr
from .bounds import MOST, Bounds, anything, either, exactly, hull, same, through
from .region import Region, region_of

_DEEP = 50  # pending computations of bounds, one inside the other
_UNTIL_WIDENED = 3  # steps of a loop after which a carried value that still moves may be anything


class Value:
    """What is known of one value.

    Attributes:
      number: equal for values that are equal in every run.
      level: how many of the loops around its equation it may change in, counted from the outside.
      drawn: whether it depends on a draw.
      joined: whether it is one of several, of which nothing says which.
    """

    __slots__ = ("_bounds", "depth", "drawn", "joined", "level", "number")

    def __init__(
        self,
        number: int,
        bounds: Bounds | Callable[[], Bounds],
        level=0,
        drawn=False,
        *,
        joined=False,
        depth=0,
    ):
        self.number, self.level, self.drawn, self.joined = number, level, drawn, joined
        self.depth, self._bounds = depth, bounds
        if depth > _DEEP:
            self.bounds  # noqa: B018

    @property
    def bounds(self) -> Bounds:
        """Its bounds, which are computed when they are asked for."""
        if not isinstance(self._bounds, Bounds):
            self._bounds, self.depth = self._bounds(), 0
        return self._bounds

    def __eq__(self, other) -> bool:
        alike = self.number == other.number or (self.joined and other.joined)
        return alike and same(self.bounds, other.bounds)


class Terms:
    """The numbers of values: one for each way of computing a value. Programs that are compared share them."""

    def __init__(self):
        self.numbers: dict[Hashable, int] = {}
        self.kept: list = []  # what is known by its id must live

    def __call__(self, *key: Hashable) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def new(self) -> int:
        return self(object())

    def same(self, thing) -> int:
        """The number of an array that is known by being the same object."""
        self.kept.append(thing)
        return self("object", id(thing))


@dataclass(frozen=True)
class Visit:
    """A place where the program reaches a site, in one of the steps that are looked at.

    Attributes:
      operands: what is known of the leaves of its effect.
      avals: their shapes and dtypes.
      shape, dtype: of its value, without the axes of loops (None for a factor).
      plates: the loops around it.
      path: the branches around it that depend on a value: the number of the value, and which branch.
      certain: whether every run gets here.
    """

    kind: str
    site: Site
    operands: tuple[Value, ...]
    avals: tuple
    shape: tuple[int, ...] | None
    dtype: Any
    plates: tuple[Plate, ...]
    path: tuple[tuple[int, int], ...]
    certain: bool

    def value(self, name: str) -> Value | None:
        """What is known of a part of its effect that is a single array; None if it has no such part."""
        return getattr(self.site.effect(self.operands), name)


@dataclass(frozen=True)
class Use:
    """A place where random numbers are made of a key, or of the library function that makes them.

    Attributes:
      number: of the key.
      level: how many of the loops around the key may change in.
      plates: the loops around the place.
      source: the user's line.
    """

    number: int
    place: Place
    level: int
    plates: tuple[Plate, ...]
    source: str


class Abstract(Dataflow[Value]):
    """The pass. It follows a loop for some steps; then what the loop carries may be anything.

    Attributes:
      visits: of all sites, step by step.
      uses: of all keys; ``last`` has those of the last step that was looked at, by place.
      outputs: what the program returns.
    """

    nothing = Value(-1, Bounds(np.float64(np.inf), np.float64(-np.inf)))

    def __init__(self, staged: Staged, terms: Terms | None = None):
        self.terms = Terms() if terms is None else terms
        self.visits: list[Visit] = []
        self.uses: dict[tuple[Place, int], Use] = {}
        self.last: dict[Place, Use] = {}
        self.predicates: dict[Place, Value] = {}
        self.around: dict[Place, compat.JaxprEqn] = {}  # calls and control flow
        self.library: set[Place] = set()  # the calls of functions that are not the user's
        arguments = [self.constant(leaf) for leaf in staged.leaves]
        self.outputs = self.walk(staged.jaxpr, arguments, Position(self.nothing))

    def region(self, visit: Visit, *, of_proposal: bool = False) -> Region:
        """The region of a site's distribution, or of its proposal, with a :class:`Value` for each array."""
        return self._region(visit.site, visit.operands, visit.avals, of_proposal)

    def exclusive(self, one: Place, other: Place) -> bool:
        """Whether two places are in different branches of one cond."""
        ends = range(1, min(len(one), len(other)))
        parting = next((end for end in ends if one[:end] == other[:end] and one[end] != other[end]), None)
        return parting is not None and one[:parting] in self.predicates

    # ------------------------------------------------------------------ what the pass does

    def constant(self, value) -> Value:
        if not isinstance(value, (jax.Array, np.ndarray)):  # a number
            value = np.asarray(value, getattr(value, "dtype", None))
        is_number = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))
        if isinstance(value, jax.core.Tracer) or value.size > MOST or not is_number:
            return Value(self.terms.same(value), anything(value.dtype))
        array = np.asarray(value)
        number = self.terms("constant", array.dtype, array.shape, array.tobytes())
        return Value(number, lambda: exactly(array))

    def plain(self, eqn: compat.JaxprEqn, operands: list[Value], here: Position) -> list[Value]:
        name, level = eqn.primitive.name, max((x.level for x in operands), default=0)
        drawn = any(x.drawn for x in operands)
        if name in _CONSUMERS and not drawn:
            self._consume(eqn, operands[0], here)
        number = self._number(eqn, operands)
        if name == "mul" and operands[0].number == operands[1].number:
            name = "square"
        avals = [v.aval for v in eqn.invars], [v.aval for v in eqn.outvars]
        depth = 1 + max((x.depth for x in operands), default=0)

        def bounds() -> list[Bounds]:
            known = [x.bounds for x in (operands[:1] if name == "square" else operands)]
            return through(name, eqn.params, known, avals)

        if len(eqn.outvars) == 1:
            return [Value(number, lambda: bounds()[0], level, drawn, depth=depth)]
        return [
            Value(self.terms(number, i), anything(v.aval.dtype), level, drawn)
            for i, v in enumerate(eqn.outvars)
        ]

    def site(self, eqn: compat.JaxprEqn, operands: list[Value], here: Position) -> list[Value]:
        site, kind = eqn.params["site"].under(here.scope), eqn.primitive.name
        path, certain = self._path(here)
        avals = tuple((v.aval.shape, v.aval.dtype) for v in eqn.invars)
        out = eqn.outvars[0].aval if eqn.outvars else None
        shape, dtype = (out.shape, out.dtype) if out is not None else (None, None)
        present = site.effect(operands).present
        if present is not None and not np.all(present.bounds.lower == 1):
            path, certain = (*path, (present.number, 1)), False
        certain = certain and 0 not in (shape or ()) and all(axis.size for axis in site.axes)
        if path[:1] != (_NEVER,):
            self.visits.append(
                Visit(kind, site, tuple(operands), avals, shape, dtype, here.plates, path, certain)
            )
        if kind == "sample":
            number = self.terms("site", site.name)
            bounds = lambda: self._region(site, operands, avals, False).span(dtype)  # noqa: E731
            return [Value(number, bounds, len(here.plates), True, depth=1)]
        values = jax.tree.leaves(site.effect(operands).value)
        if site.axes:
            values = [_rearranged(self.terms("stacked", x.number), x) for x in values]
        return values if kind != "factor" else []

    def join(self, *values: Value) -> Value:
        values = [x for x in values if x is not self.nothing] or [self.nothing]
        if all(x.number == values[0].number for x in values):
            return values[0]
        level, drawn = max(x.level for x in values), any(x.drawn for x in values)
        bounds = either([hull(x.bounds) for x in values])
        return Value(self.terms.new(), bounds, level, drawn, joined=True)

    def chosen(self, predicate: Value, value: Value, eqn, here: Position) -> Value:
        if eqn.primitive.name == "cond":
            self.predicates[here.place] = predicate
        if not value.joined:
            return value
        level, drawn = max(predicate.level, value.level), predicate.drawn or value.drawn
        return Value(value.number, value.bounds, level, drawn, joined=True)

    def called(self, eqn: compat.JaxprEqn, here: Position) -> Position:
        self.around[here.place] = eqn
        if (called := called_jaxpr(eqn)) is not None and _is_library(compat.traced_from(called.jaxpr)):
            self.library.add(here.place)
        return here

    def slice(self, value: Value, here: Position) -> Value:
        return _rearranged(self.terms("slice", value.number, len(here.plates)), value, len(here.plates) + 1)

    def advance(
        self, before: Sequence[Value], after: Sequence[Value], here: Position, steps: int
    ) -> list[Value]:
        carried = []
        for i, (old, new) in enumerate(zip(before, after)):
            if new.number == old.number:
                carried.append(old)
                continue
            bounds = new.bounds
            if steps >= _UNTIL_WIDENED and not same(old.bounds, bounds):
                bounds = _ANYTHING
            number = self.terms("carried", id(self), here.place, i)
            carried.append(Value(number, bounds, len(here.plates) + 1, old.drawn or new.drawn))
        return carried

    def after(self, value: Value, here: Position) -> Value:
        return _rearranged(self.terms("after", id(self), here.place, value.number), value, len(here.plates))

    # ------------------------------------------------------------------ helpers

    def _region(self, site: Site, operands: Sequence[Value], avals: tuple, of_proposal: bool) -> Region:
        closed, tree = region_of(site.tree, site.axes, avals, of_proposal)
        return jax.tree.unflatten(tree, self.walk(closed, list(operands), Position(self.nothing)))

    def _number(self, eqn: compat.JaxprEqn, operands: list[Value]) -> int:
        """One for all equations that compute the same."""
        try:
            return self.terms(
                eqn.primitive.name, tuple(eqn.params.items()), tuple(x.number for x in operands)
            )
        except TypeError:  # parameters without a hash
            return self.terms.new()

    def _path(self, here: Position) -> tuple[tuple, bool]:
        path: list[tuple[int, int]] = []
        for end in range(1, len(here.place)):
            predicate = self.predicates.get(here.place[:end])
            if predicate is None:
                continue
            branch = here.place[end]
            if not predicate.bounds.known:
                path.append((predicate.number, branch))
            elif int(predicate.bounds.lower) != branch:
                return (_NEVER,), False
        endless = any(plate.size is None or plate.size == 0 for plate in here.plates)
        return tuple(path), not path and not endless

    def _consume(self, eqn: compat.JaxprEqn, key: Value, here: Position) -> None:
        around = [here.place[:end] for end in range(1, len(here.place))]
        place = next((outer for outer in around if outer in self.library), here.place)
        plates = tuple(plate for plate in here.plates if len(plate.place) < len(place))
        outwards = [eqn, *(self.around[outer] for outer in reversed(around) if outer in self.around)]
        use = Use(
            key.number, place, key.level, plates, next(filter(None, map(_source, outwards)), "the program")
        )
        self.uses.setdefault((place, key.number), use)
        self.last[place] = use


_CONSUMERS = {"random_bits", "random_split", "random_gamma"}
_NEVER = (-1, -1)  # the path of what no run reaches
_ANYTHING = Bounds(np.float64(-np.inf), np.float64(np.inf), nan=True)
_LIBRARIES = (str(Path(jax.__file__).parent), str(Path(distributions.__file__).parents[1]))
_OURS = tuple(
    str(Path(__file__).parents[2] / package) for package in ("ppl", "semantics", "inference", "models")
)


def _is_library(file: str | None) -> bool:
    return file is not None and file.startswith(_LIBRARIES)


def _source(eqn: compat.JaxprEqn) -> str | None:
    """The user's line that an equation is on."""
    for frame in compat.frames(eqn):
        if not frame.file.startswith((*_LIBRARIES, *_OURS)):
            return f"{frame.file.rsplit('/', 1)[-1]}:{frame.line}"
    return None


def _rearranged(number: int, x: Value, level: int | None = None) -> Value:
    """Elements of ``x``, in another shape."""
    return Value(
        number, lambda: hull(x.bounds), x.level if level is None else level, x.drawn, depth=x.depth + 1
    )
