"""The policies of dynamic programming: members that are in one state become one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ...ppl import compat
from ...ppl.choices import Address
from ...ppl.effects import Site, sample_at
from ...ppl.members import rows
from ...ppl.policy import Cloud, Reduction
from ...semantics.branch import Branch, TooManyRuns
from ..gradients.held import held
from .reachable import count_states


class Merge(Branch):
    """Members branch at every site. After a step of a scan those in the same state become one, which has the sum of
    their weights: the forward algorithm.

    The scan needs room for its states: as many as :func:`count_states` finds, or ``states``, if that is less or if it
    does not find how many there are. Where there are more, all weights become NaN. Without either, and where the scan
    stacks outputs that differ between members (so that two in one state are not the same), it is unrolled and members
    stay apart.

    Args:
      most: the most members that there may be at a time.
      states: the most states that a scan may have.
    """

    moves = True
    keeps_outputs = False  # whether the member that goes on has outputs that may stand for those of all

    def __init__(self, *, most: int, states: int | None = None):
        super().__init__(prune=False, most=most)
        self.states = states
        self.unrolled: list[str] = []

    def room(
        self, eqn: compat.JaxprEqn, values: Sequence, size: int, apart: bool, stacks: bool
    ) -> int | None:
        if eqn.params["length"] < 2:  # nothing to save
            return None
        if stacks and not self.keeps_outputs:
            self.unrolled.append("a scan stacks outputs that differ between runs in one state")
            return None
        found = count_states(eqn, values, size)
        if found is None:
            if self.states is None:
                self.unrolled.append(
                    "the states that a scan can carry were not found: say how many with states="
                )
            return self.states
        room = size * found if apart else found
        return room if self.states is None else min(room, self.states)

    def contract(self, address: Address, cloud: Cloud, live: Sequence, room: int) -> Reduction:
        log_weight = cloud.log_weight
        columns = [rows(x, len(log_weight)) for x in live]
        state, count = classes(columns, log_weight != -jnp.inf)
        index, merged = self.represent(address, log_weight, jnp.minimum(state, room), room)
        refusal = (
            "runs in one state are added up, but their states are numbers that move with what is differentiated; carry "
            "the discrete draws that they come from instead"
        )
        moving = [x for x in columns if jnp.issubdtype(x.dtype, jnp.inexact)]
        merged = held(merged, moving, refusal) if moving else merged
        cloud = cloud.level(merged)
        log_scale = cloud.log_scale + jnp.where(count > room, jnp.nan, 0.0)
        return Reduction(cloud._replace(log_scale=log_scale), index)

    def represent(self, address: Address, log_weight, state, room: int):
        """For each state a member that goes on, and its new log weight: ``[room]``, minus infinity where there is none.

        Args:
          log_weight: of each member, ``[n]``.
          state: the number of its state, ``int32[n]``; ``room`` if it has no weight.
        """
        return _first(state, room, log_weight), add_up(log_weight, state, room)

    def _check_size(self, site: Site, size: int) -> None:
        try:
            super()._check_size(site, size)
        except TooManyRuns as error:
            reasons = "".join(f" ({reason})" for reason in dict.fromkeys(self.unrolled))
            raise TooManyRuns(f"{error}{reasons}") from None


class Best(Merge):
    """The one that goes on is the best of those in its state, with its own weight: Viterbi's algorithm."""

    keeps_outputs = True

    def represent(self, address: Address, log_weight, state, room: int):
        best = jax.ops.segment_max(lax.stop_gradient(log_weight), state, room + 1)
        index = _first(jnp.where(log_weight == best[state], state, room), room, log_weight)
        known = jnp.where(jnp.isnan(best[:room]), jnp.nan, log_weight[index])
        return index, jnp.where(best[:room] == -jnp.inf, -jnp.inf, known)


class Drawn(Merge):
    """The one that goes on is drawn by weight from those in its state, and has the sum of their weights.

    So it stands for all that they are, outputs included: of a member that is drawn by weight in the end, the line is
    drawn from the posterior, as backward sampling would draw it.
    """

    keeps_outputs = True

    def represent(self, address: Address, log_weight, state, room: int):
        of_state = state == jnp.arange(room)[:, None]
        logits = jnp.where(of_state, log_weight, -jnp.inf)
        nobody = jnp.where(jnp.arange(len(log_weight)) == jnp.argmax(log_weight), 0.0, -jnp.inf)
        logits = jnp.where(jnp.any(of_state, axis=1, keepdims=True), logits, nobody)
        index = sample_at(address, dist.Categorical(logits=logits))
        return index.astype(jnp.int32), add_up(log_weight, state, room)


def classes(columns: Sequence, alive):
    """Which members are alike: the number of each one's class, from 0 on, and how many classes there are.

    Args:
      columns: arrays ``[n, ...]``; members are alike where all are the same, bit by bit (0.0 and -0.0 are the same).
      alive: ``bool[n]``; the others are in no class: their number is 2^30.

    >>> number, count = classes([jnp.array([3, 1, 3, 2])], jnp.array([True, True, True, False]))
    >>> number.tolist(), int(count)
    ([1, 0, 1, 1073741824], 2)
    """
    n = len(alive)
    keys = [part for x in columns for part in _bits(x).reshape(n, math.prod(x.shape[1:])).T]
    order = jnp.lexsort([*keys, ~alive])
    starts = jnp.arange(n) == 0
    for key in keys:
        ordered = key[order]
        starts |= ordered != jnp.roll(ordered, 1)
    starts &= alive[order]
    number = jnp.zeros(n, jnp.int32).at[order].set(jnp.cumsum(starts, dtype=jnp.int32) - 1)
    return jnp.where(alive, number, 2**30), jnp.sum(starts)


def add_up(log_weight, state, room: int):
    """The log of the sum of the weights of each state's members, ``[room]``."""
    top = jax.ops.segment_max(lax.stop_gradient(log_weight), state, room + 1)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jax.ops.segment_sum(jnp.exp(log_weight - top[state]), state, room + 1)[:room]
    return jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1.0, total)) + top[:room])


def _first(state, room: int, log_weight):
    """The first member in each state, ``int32[room]``. Where there is none the likeliest of all stands in, which goes
    where things are defined."""
    first = jax.ops.segment_min(jnp.arange(len(state), dtype=jnp.int32), state, room + 1)[:room]
    return jnp.where(first < len(state), first, jnp.argmax(log_weight).astype(jnp.int32))


def _bits(x):
    """Integers that are equal where the elements of ``x`` are the same."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jnp.stack([_bits(x.real), _bits(x.imag)], axis=-1)
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = lax.stop_gradient(jnp.where(x == 0, 0, x))
        return lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return x
