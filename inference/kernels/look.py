"""look: what sites are like at given choices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from ...ppl import Masked
from ...ppl.choices import Address
from ...ppl.effects import Site
from ...ppl.given import check_given
from ...ppl.interpreter import Handler, interpret
from ...ppl.staging import Staged
from ...ppl.weigh import weigh_site


def look(staged: Staged, choices: Mapping, at: Collection[Address], record: Callable) -> dict[Address, Any]:
    """Runs a program at given choices, and records ``record(site, operands)`` at some of its ``sample`` sites.

    What is recorded gets a leading axis for each scan around the site, and is :class:`ppl.Masked` like its choice.
    """
    given = check_given(staged, choices, complete=True)
    return interpret(staged, _Look(at, record), None, given)[2]


class _Look(Handler):
    def __init__(self, at: Collection[Address], record: Callable):
        self.at = at
        self.record = record

    def site(self, kind, site: Site, operands, given, state):
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), state, None
        if kind != "sample":
            return weigh_site(kind, site, operands)[0], state, None
        record = site.masked(operands, self.record(site, operands)) if site.name in self.at else None
        return [given.value if isinstance(given, Masked) else given], state, record
