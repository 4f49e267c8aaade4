"""Which sites' values flow into which sites: one pass over a program's jaxpr, without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import jax

from .dataflow import Dataflow, Place, Plate, Position
from .effects import Effect, Site, factor_p
from .staging import SiteInfo, Staged

# The sites that a value comes from, each with the outermost loop of which it was an earlier step, if it was.
Origins = frozenset[tuple[Place, Place | None]]

NOTHING: Origins = frozenset()


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
    found = _Pass()
    found.walk(staged.jaxpr, [NOTHING for _ in staged.leaves], Position(NOTHING))
    return Flow(found.visits, frozenset(found.edges))


class _Pass(Dataflow[Origins]):
    """The pass, with what it has found so far."""

    nothing = NOTHING

    def __init__(self):
        self.visits: dict[Place, Visit] = {}
        self.edges: set[tuple[Place, Place, bool]] = set()

    def join(self, *origins: Origins) -> Origins:
        return NOTHING.union(*origins)

    def plain(self, eqn, operands: list[Origins], here: Position) -> list[Origins]:
        return [NOTHING.union(*operands) for _ in eqn.outvars]

    def site(self, eqn, operands: list[Origins], here: Position) -> list[Origins]:
        site = eqn.params["site"].under(here.scope)
        self.visits[here.place] = _visit(eqn, site, here)
        parameters = [operands[i] for i in _parameters(site)]
        for origin, earlier in here.reached.union(*parameters):
            self.edges.add((origin, here.place, earlier is not None))
        return [frozenset({(here.place, None)}) for _ in eqn.outvars]

    def next_step(self, value: Origins, here: Position, steps: int) -> Origins:
        return frozenset(
            (place, here.place if earlier is None and place[: len(here.place)] == here.place else earlier)
            for place, earlier in value
        )

    def after(self, value: Origins, here: Position) -> Origins:
        """Which of the loop's steps a value comes from does not matter any more."""
        return frozenset((place, None if earlier == here.place else earlier) for place, earlier in value)


def _visit(eqn, site: Site, here: Position) -> Visit:
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
