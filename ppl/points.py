"""Suspension points: the places between factors and what is sampled next, numbered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from . import compat
from .effects import Site, effect_primitives
from .staging import Staged, called_jaxpr, count_draws, has_effects


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Position:
    """Where in a program a run is.

    There is a suspension point wherever the population walk may suspend: at the end of a scan step, or where
    straight-line code goes on sampling, if there were factors, observations or proposals since the last one. Which
    branches are taken does not matter: all runs that are at one place have as many points behind them.

    Attributes:
      count: how many points there were before, an integer.
      weighed: whether there were weights since.
    """

    count: Any = 0
    weighed: bool = field(default=False, metadata={"static": True})

    def at(self, kind: str) -> Position:
        """Where a site of that kind is: there is a point before one that draws."""
        return Position(self.count + self.weighed, False) if kind == "sample" else self

    def after(self, kind: str, site: Site) -> Position:
        """Behind a site."""
        return Position(self.at(kind).count, self.at(kind).weighed or _weighs(kind, site))

    def behind(self, eqns: Iterable[compat.JaxprEqn]) -> Position:
        """Behind some equations."""
        here = self
        for eqn in eqns:
            if eqn.primitive in effect_primitives:
                here = here.after(eqn.primitive.name, eqn.params["site"])
            elif called_jaxpr(eqn) is not None:
                here = here.behind(called_jaxpr(eqn).jaxpr.eqns)
            elif has_effects(eqn):
                here, _ = here.divided(eqn)
        return here

    def divided(self, eqn: compat.JaxprEqn) -> tuple[Position, Position]:
        """Behind a scan, cond or while_loop, and at the start of its parts: for a scan, with an axis for its steps."""
        here = self.at("sample") if any(map(count_draws, compat.inner_jaxprs(eqn))) else self
        ends = [Position().behind(jaxpr.eqns) for jaxpr in compat.inner_jaxprs(eqn)]
        weighed = any(end.weighed for end in ends) and eqn.params.get("length") != 0
        if eqn.primitive.name != "scan":
            rise = max(end.count for end in ends) if eqn.primitive.name == "cond" else 0
            return Position(here.count + rise, here.weighed or weighed), here
        length, each = eqn.params["length"], ends[0].count + weighed
        steps = np.arange(length, dtype=np.int32)[:: -1 if eqn.params["reverse"] else 1] * each
        # The last step ends in no point of its own: that is left to what follows.
        rise = max(length * each - weighed, 0)
        return Position(here.count + rise, here.weighed or weighed), Position(here.count + steps)


def count_points(staged: Staged) -> int:
    """How many suspension points a program has, counting its end if it is weighed there.

    >>> import jax.numpy as jnp
    >>> from borelax import ppl
    >>> from borelax.ppl.staging import stage
    >>> count_points(stage(lambda: jax.lax.map(lambda x: ppl.factor(x), jnp.zeros(5))))
    5
    """
    return int(Position().behind(staged.jaxpr.jaxpr.eqns).at("sample").count)


def _weighs(kind: str, site: Site) -> bool:
    if kind == "sample":
        return site.effect(range(site.tree.num_leaves)).proposal is not None
    return kind in ("observe", "factor")
