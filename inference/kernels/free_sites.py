"""Some sites of a program as a position in R^n, given all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ... import ppl
from ...ppl import Selection, Trace, Unconstrained, UnsupportedError
from ...ppl.choices import flatten, nest, spell
from ...ppl.staging import SiteInfo, stage
from .lebesgue import is_discrete


@dataclass(frozen=True)
class FreeSites:
    """The sites that a kernel moves over R^n, at a trace: nothing else varies.

    Attributes:
      program: the target.
      density: that of the sites, given the others: its positions are nested dicts.
      choices: their values in the trace.
      trace: where the others stay.
      args: of the program.
    """

    program: Callable
    density: Unconstrained
    choices: dict
    trace: Trace
    args: tuple

    @property
    def position(self) -> dict:
        """Where the sites are. Not finite for a value on the edge of its support."""
        return self.density.unconstrain(self.choices, *self.args)

    @property
    def shapes(self) -> dict:
        """The shapes and dtypes of a position."""
        return self.density.shapes(*self.args)

    def log_density(self, position: dict) -> jax.Array:
        return self.density.log_density(position, *self.args)

    def moved(self, position: dict) -> Trace:
        """The trace of the program with the sites at another position: a program, like ``update``."""
        choices = self.density.constrain(position, *self.args)
        return ppl.update(self.program, choices)(self.trace, *self.args).trace

    def moved_if(self, condition, position: dict) -> Trace:
        """The same where the condition holds, else the trace as it is: mapped there and back, it would be rounded."""
        return jax.tree.map(lambda x, y: jnp.where(condition, x, y), self.moved(position), self.trace)


def free_sites(name: str, program: Callable, sites: Selection, trace: Trace, args: tuple) -> FreeSites:
    """The selected sites of a program at a trace.

    Args:
      name: of the kernel that moves them.

    Raises:
      AddressError: an address that the program does not have.
      UnsupportedError: there is no such site, or one of them is discrete.
    """
    infos = stage(program, *args).of_kind("sample")
    chosen = sites.among(info.address for info in infos)
    _check(name, infos, chosen)
    choices = flatten(trace.choices)
    moving = {address: x for address, x in choices.items() if address in chosen}
    rest = {address: x for address, x in choices.items() if address not in chosen}
    conditioned = ppl.condition(program, nest(rest)) if rest else program
    return FreeSites(program, ppl.unconstrain(conditioned), nest(moving), trace, args)


def selected(sites: Sequence[str] | Selection | None) -> Selection:
    """The selection that some sites are; of all if None.

    Raises:
      TypeError: a single address, not in a list.
    """
    if sites is None:
        return ppl.select(lambda address: True)
    if isinstance(sites, str):
        raise TypeError(f"sites are a list of addresses, or a selection; write [{sites!r}]")
    return sites if isinstance(sites, Selection) else ppl.select(*sites)


def _check(name: str, infos: list[SiteInfo], chosen: set) -> None:
    if not chosen:
        raise UnsupportedError(f"there is no site for {name} to move: the program has none that is selected")
    moved = [info for info in infos if info.address in chosen]
    discrete = [info for info in moved if is_discrete(info)]
    if discrete:
        free = _spelled(info for info in moved if info not in discrete)
        remedy = f"inference.gibbs(program, {_spelled(discrete)})"
        if free:
            remedy = f"inference.cycle(inference.{name}(program, {free}), {remedy})"
        raise UnsupportedError(
            f"site {discrete[0]} is discrete, so that there is no gradient to follow: write {remedy}, with "
            "inference.mh in place of gibbs if its support is not finite; or sum it out (ppl.marginal with "
            "inference.enumerate)"
        )


def _spelled(infos) -> list[str]:
    return list(dict.fromkeys(spell(info.address) for info in infos))
