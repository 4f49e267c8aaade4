"""Which sites a program's sites, and what it returns, are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax

from ...ppl import compat
from ...ppl.dataflow import Dataflow, Place, Position
from ...ppl.effects import Effect, Site
from ...ppl.staging import Staged

Places = frozenset[Place]


@dataclass(frozen=True)
class Origin:
    """A site, and the places of the sites that flow into it, in any step of the loops around them.

    Attributes:
      law: into what it means: its distribution, log weight or recorded value, and whether it is reached.
      value: into the value that it observes.
      proposal: into its proposal.
    """

    kind: str
    site: Site
    law: Places = frozenset()
    value: Places = frozenset()
    proposal: Places = frozenset()

    @property
    def sources(self) -> Places:
        return self.law | self.value


class Origins(Dataflow[Places]):
    """The pass: the sites by place, in program order, and the places of those that flow into what is returned."""

    nothing: Places = frozenset()

    def __init__(self, staged: Staged):
        self.sites: dict[Place, Origin] = {}
        outputs = self.walk(staged.jaxpr, [self.nothing for _ in staged.leaves], Position(self.nothing))
        self.returned = self.join(*outputs)

    def join(self, *places: Places) -> Places:
        return self.nothing.union(*places)

    def plain(self, eqn: compat.JaxprEqn, operands: list[Places], here: Position) -> list[Places]:
        return [self.join(*operands) for _ in eqn.outvars]

    def site(self, eqn: compat.JaxprEqn, operands: list[Places], here: Position) -> list[Places]:
        site, kind = eqn.params["site"].under(here.scope), eqn.primitive.name
        old = self.sites.get(here.place, Origin(kind, site))
        effect: Effect = jax.tree.unflatten(site.tree, range(site.tree.num_leaves))
        value = effect.value if kind == "observe" else None
        law = replace(effect, proposal=None, value=None if kind == "observe" else effect.value)
        self.sites[here.place] = Origin(
            kind,
            site,
            old.law | here.reached | self._of(law, operands),
            old.value | self._of(value, operands),
            old.proposal | self._of(effect.proposal, operands),
        )
        return [frozenset({here.place}) for _ in eqn.outvars]

    def _of(self, part, operands: Sequence[Places]) -> Places:
        return self.join(*(operands[i] for i in jax.tree.leaves(part)))
