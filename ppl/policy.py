"""Policies: how a population moves through a program, and what is known of it on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from . import compat
from .choices import Address
from .effects import Site, sample_p
from .members import Kind, map_members
from .weigh import weigh_site


class Cloud(NamedTuple):
    """The weights of a population, and what is known of its past.

    The log weight of member i is ``log_weight[i] + log_scale``: what all members share is kept apart, so that
    float32 keeps the differences between members however long the program runs.

    Attributes:
      log_weight: ``[n]``.
      log_scale: a scalar.
      origin: int32 ``[n]``, the initial member that each descends from.
      generations: int32, how often the policy says that members were resampled.
      died: int32, the number of the factor after which no member had weight left, or -1.
      suspensions: int32, how often the walk has suspended.
      log_growth: a scalar, what that has done to lines of descent (see ``Population``).
      log_twist: ``[n]``, the members' advice since then (``ppl.twist``); None if the program has none.
    """

    log_weight: jax.Array
    log_scale: jax.Array
    origin: jax.Array
    generations: jax.Array
    died: jax.Array
    suspensions: jax.Array | int = 0
    log_growth: jax.Array | float = 0.0
    log_twist: jax.Array | None = None

    @classmethod
    def begin(cls, size: int, *, twisted: bool = False) -> Cloud:
        """Members at the beginning, of weight one."""
        return cls(
            log_weight=jnp.zeros(size, float),
            log_scale=jnp.zeros((), float),
            origin=jnp.arange(size, dtype=jnp.int32),
            generations=jnp.zeros((), jnp.int32),
            died=jnp.full((), -1, jnp.int32),
            suspensions=jnp.zeros((), jnp.int32),
            log_growth=jnp.zeros((), float),
            log_twist=jnp.zeros(size, float) if twisted else None,
        )

    def level(self, log_weight) -> Cloud:
        """The cloud of members with these weights, beside the scale: the largest of them goes into it."""
        top = jnp.max(log_weight)
        top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
        return self._replace(log_weight=log_weight - top, log_scale=self.log_scale + top)

    def taken(self, index) -> Cloud:
        """Members ``index[i]`` in place of member i."""
        twist = None if self.log_twist is None else self.log_twist[index]
        return self._replace(log_weight=self.log_weight[index], origin=self.origin[index], log_twist=twist)

    def suspended(self, final) -> Cloud:
        """The cloud after a suspension: what was advised for it is over, unless the loop ends here."""
        twist = self.log_twist
        if twist is not None:
            twist = jnp.where(final, twist, jnp.zeros_like(twist))
        return self._replace(suspensions=self.suspensions + 1, log_twist=twist)


class Extension(NamedTuple):
    """What an extend policy makes of a site.

    ``value`` has one row per new member, ``log_weight`` their weight increments (or None). New member i continues
    old member ``index[i]``; None if each member continues itself. ``suspends``: whether these weights are a reason to
    suspend.
    """

    value: jax.Array
    log_weight: jax.Array | None = None
    index: jax.Array | None = None
    suspends: bool = True


class Reduction(NamedTuple):
    """What a reduce policy makes of a population: members ``index`` go on, with the weights of ``cloud``.

    Where ``moved`` is false, ``index`` is the identity (None: not known). ``log_growth`` is what that does to lines of
    descent (see ``Population``); None leaves it to the walk, which takes members to be chosen by their weights.
    """

    cloud: Cloud
    index: jax.Array
    moved: jax.Array | None = None
    log_growth: jax.Array | None = None


class Policy(Protocol):
    """How a population moves.

    Attributes:
      moves: whether ``reduce`` ever reindexes it.
      records: whether ``deterministic`` sites are kept as sites of the resulting program.
      suspends_for_all: whether a weight that all members share is a reason to suspend.
      draws: ``Kind.SHARED`` if ``extend`` gives all members one value, which has no member axis then; else
        ``Kind.MEMBERS``.
      ahead: a policy by which each member is weighed in the next step of a scan, for ``relink``; None if it is not.
      behind: a policy by which, when a scan is over, each member of a step is weighed in the next step of each member
        of that, for ``link``; None if lineages are kept as they are.
    """

    moves: bool
    records: bool
    suspends_for_all: bool
    draws: Kind
    ahead: Policy | None
    behind: Policy | None

    def grows(self, site: Site) -> bool:
        """Whether ``extend`` may return more members than it was given."""
        ...

    def room(
        self, eqn: compat.JaxprEqn, values: Sequence, size: int, apart: bool, stacks: bool
    ) -> int | None:
        """How many members there are between the steps of a scan in which they grow; None if it is to be unrolled.

        Args:
          values: the inputs of the scan, of ``size`` members.
          apart: whether members that the scan carries in one state may yet differ in what lives on around it.
          stacks: whether they may differ in what it stacks, too.
        """
        ...

    def extend(self, site: Site, operands: Sequence, cloud: Cloud) -> Extension: ...

    def reduce(self, address: Address, cloud: Cloud, final) -> Reduction | None:
        """Called where the walk suspends; ``final`` says that the loop it suspends in ends here."""
        ...

    def relink(self, address: Address, cloud: Cloud, log_ahead, final) -> jax.Array:
        """Called before ``reduce`` at the end of a scan step, if the policy looks ahead: who is to be in each place.

        ``log_ahead`` has the members' log weights ``[n]`` in the next step; without meaning if ``final``.
        """
        ...

    def link(self, address: Address, log_weight, came_from) -> jax.Array:
        """Called for each step of a scan from the last but one to the first, when the scan is over, if the policy looks
        behind: which member each of the next step is to come from.

        ``log_weight`` has what they weigh together ``[n, n]``, with one row for each of the next step;
        ``came_from`` says which one that came from when it was drawn.
        """
        ...

    def contract(self, address: Address, cloud: Cloud, live: Sequence, room: int) -> Reduction:
        """Called before a scan that has room for so many members, and after each of its steps, in place of ``reduce``.

        ``live`` is all in which members may differ from here on.
        """
        ...


class Draw:
    """Every member draws one value, from the proposal if there is one; members are kept as they are."""

    moves = False
    records = True
    suspends_for_all = False
    draws = Kind.MEMBERS
    ahead = None
    behind = None

    def grows(self, site: Site) -> bool:
        return False

    def extend(self, site: Site, operands: Sequence, cloud: Cloud) -> Extension:
        size = cloud.log_weight.shape[0]
        if site.effect(operands).proposal is None:
            draw = lambda *operands: sample_p.bind(*operands, site=site)[0]  # noqa: E731
            return Extension(map_members(draw, operands, size))
        propose = lambda *operands: weigh_site("sample", site, operands)  # noqa: E731
        (value,), log_weight = map_members(propose, operands, size)
        return Extension(value, log_weight)

    def reduce(self, address: Address, cloud: Cloud, final) -> None:
        return None
