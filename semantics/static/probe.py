"""probe: whether a program jumps where its comparisons change, by bisection along lines through prior draws."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...ppl import BorelaxError, compat, simulate
from ...ppl.choices import Address, Masked, flatten, spell
from ...ppl.effects import Site
from ...ppl.interpreter import Handler, interpret, walk
from ...ppl.staging import Staged, stage
from .smooth_flow import Cause, SmoothFlow, smooth_flow
from .smooth_rules import outcome

LINES = 64  # through prior draws, for each site
CELLS = 64  # of each line, in which a change is looked for
PLACES = 24  # at which each equation's changes are measured
_HALVINGS = 46  # of a cell of a line, which has length 1
_ROUNDING = 1e-12  # relative: what is less is no jump
_VISIBLE = 1e-9  # relative: what is more, and does not shrink, is one
_SHRUNK = 2.0**-6  # in the second half of the halvings; a square root shrinks by 2^-11.5
_FALLEN = 8.0  # what a log density falls by in the second half of the halvings if it goes to minus infinity


@dataclass(frozen=True)
class Place:
    """Where an equation changes, and what that does.

    Attributes:
      cause: the equation.
      value: that of the site there.
      jump: the change in the log density (or value) from one side to the other, at the smallest step.
      jumps: whether it is a jump; None if it cannot be told.
    """

    cause: Cause
    value: np.ndarray
    jump: float
    jumps: bool | None


@dataclass(frozen=True)
class Probe:
    """What was tried at one site.

    Attributes:
      places: where equations that might jump changed, and what was found there.
      left: those that were not seen to change, or for which it cannot be told.
      reason: why nothing could be tried.
    """

    places: tuple[Place, ...] = ()
    left: frozenset[Cause] = frozenset()
    reason: str = ""

    @property
    def jump(self) -> Place | None:
        """The largest jump; None if there was none."""
        jumps = [place for place in self.places if place.jumps]
        return max(jumps, key=lambda place: place.jump, default=None)

    def __str__(self) -> str:
        if self.reason:
            return f"not probed: {self.reason}"
        if (jump := self.jump) is not None:
            return f"jumps by {jump.jump:.4g} at {np.array2string(jump.value, precision=6, threshold=6)}"
        met = f"largest change {max((p.jump for p in self.places), default=0.0):.1g} at {len(self.places)} places"
        if not self.left:
            return met
        missed = f"nothing to see on {LINES} lines of {', '.join(sorted(map(str, self.left)))}"
        return f"{missed}; {met}" if self.places else missed


def probe(
    program: Callable, of: str, moves: Callable[[Site], bool], suspects: dict[Address, frozenset[Cause]]
):
    """``(*args) -> {address: Probe}`` for the sites that may jump, each with the causes that are suspected.

    In float64, with fixed keys. For each site there are lines from one prior draw of its value to another, all other
    draws held fixed (for "value", the noise of those that move with it). Where an equation that might jump comes out
    differently at two neighbours of a grid on the line, the place is found by bisection, and what the log density (or
    the value) changes by across it is measured as the step shrinks to 2^-52 of the line. A jump stays; the change of a
    continuous function shrinks. What no line meets is not found: a cleared site is one without counterexample.
    """

    def probed(*args, **kwargs) -> dict[Address, Probe]:
        try:
            with jax.enable_x64(True):
                args, kwargs = jax.tree.map(_widened, (args, kwargs))
                keys = jax.random.split(jax.random.key(0), LINES)
                draw = jax.jit(jax.vmap(lambda key: simulate(program)(key, *args, **kwargs).choices))
                draws = {address: _values(value) for address, value in flatten(draw(keys)).items()}
                search = _Search(stage(program, *args, **kwargs), of, moves, keys, draws)
                return {address: search.at(address, suspected) for address, suspected in suspects.items()}
        except (BorelaxError, TypeError) as error:
            reason = str(error).splitlines()[0]
            return {address: Probe(left=suspected, reason=reason) for address, suspected in suspects.items()}

    return probed


# ------------------------------------------------------------------------- the search


class _Search:
    """Looks along lines from each prior draw of a site to the next."""

    def __init__(
        self, staged: Staged, of: str, moves: Callable[[Site], bool], keys, draws: dict[Address, jax.Array]
    ):
        self.staged = staged
        self.flow = smooth_flow(staged, of, moves)
        self.keys = keys
        self.draws = draws
        self.outcomes = jax.jit(self._outcomes, static_argnums=0)
        self.bisect = jax.jit(self._bisect, static_argnums=0)

    def at(self, address: Address, suspects: frozenset[Cause]) -> Probe:
        """What is found at one site, of the causes that are suspected there."""
        own = {cause for site, cause in self.flow.result.causes if site == address}
        held = address if self.flow.of == "value" else None  # of a density every site is
        lines = self.keys, self.draws, {**self.draws, address: jnp.roll(self.draws[address], 1, axis=0)}
        outcomes = np.asarray(self.outcomes(held, *lines))
        changes = outcomes[:, 1:] != outcomes[:, :-1]
        places, left = [], set(suspects - own)
        for which, causes in enumerate(self.flow.switches.values()):
            if not causes & own:
                continue
            found = self._measure(address, held, lines, which, np.argwhere(changes[..., which]))
            places += [Place(min(causes & own), *each) for each in found]
            if not found or len(causes) > 1 or any(jumps is None for *_, jumps in found):
                left |= causes & suspects
        return Probe(tuple(places), frozenset(left))

    def _measure(self, address, held, lines, which: int, changes: np.ndarray) -> list[tuple]:
        """Where an equation changes: the value of the site, the change across it, and whether it is a jump."""
        if len(changes) == 0:
            return []
        spread = np.unique(np.linspace(0, len(changes) - 1, PLACES).astype(int))
        line, cell = map(jnp.asarray, changes[np.resize(spread, PLACES)].T)
        key, start, end = jax.tree.map(lambda x: x[line], lines)
        t, sides = self.bisect(held, which, key, start, end, cell)
        value = np.asarray(jax.vmap(_between)(start[address], end[address], t))
        return [(value[i], *_judge(self.flow.of, np.asarray(sides[i]))) for i in range(len(spread))]

    def _run(self, held: Address | None, key, start, end, t):
        """The log density with the value, and the outcome of each watched equation, at a point of a line."""
        given = {name: _between(x, end[name], t) for name, x in start.items()}
        state = jnp.zeros(()), jnp.zeros(len(self.flow.switches), int)
        outs, (total, outcomes), _ = interpret(self.staged, _Watching(self.flow, held, key), state, given)
        returned = jax.tree.leaves(outs) if self.flow.of == "value" else []
        return jnp.concatenate([jnp.ravel(x).astype(float) for x in (total, *returned)]), outcomes

    def _outcomes(self, held, keys, start, end):
        grid = jnp.linspace(0.0, 1.0, CELLS + 1)
        return jax.vmap(lambda *line: lax.map(lambda t: self._run(held, *line, t)[1], grid))(keys, start, end)

    def _bisect(self, held, which, keys, start, end, cell):
        """Where an outcome changes in a cell, and the values on both sides of it after each halving."""

        def one(key, start, end, cell):
            run = partial(self._run, held, key, start, end)
            ends = jnp.stack([cell, cell + 1]) / CELLS
            sides, outcomes = jax.vmap(run)(ends)

            def halve(carry, _):
                ends, sides = carry
                middle = ends.mean()
                there, came_to = run(middle)
                side = jnp.where(came_to[which] == outcomes[0, which], 0, 1)
                carry = ends.at[side].set(middle), sides.at[side].set(there)
                return carry, carry[1]

            (ends, _), after = lax.scan(halve, (ends, sides), None, length=_HALVINGS)
            return ends[1], after

        return jax.vmap(one)(keys, start, end, cell)


def _between(start, end, t):
    """A point of the line, which is exactly one of its ends at 0 and at 1. What is discrete has no line."""
    if not jnp.issubdtype(start.dtype, jnp.inexact):
        return start
    return jnp.where(t == 1, end, start + t * (end - start))


def _judge(of: str, sides: np.ndarray) -> tuple[float, bool | None]:
    """The size of a change, and whether it is a jump, from the values on both sides ``[halving, side, :]``."""
    earlier, finest = sides[_HALVINGS // 2], sides[-1]
    if np.isnan(finest).any() or np.isnan(earlier).any():
        return np.nan, None
    with np.errstate(invalid="ignore"):
        before, change = (np.where(x[0] == x[1], 0.0, np.abs(x[0] - x[1])) for x in (earlier, finest))
    size = float(change.max())
    if of == "density" and np.isinf(size):  # a density that falls to zero, or that is cut off
        return (0.0, False) if finest.max() < earlier.max() - _FALLEN else (size, True)
    if np.isinf(finest).any():
        return size, None
    scale = 1.0 + np.abs(finest).max(0)
    if np.all((change <= _ROUNDING * scale) | (change <= _SHRUNK * before)):
        return size, False
    stays = (change > _VISIBLE * scale) & (change >= before / 2)
    return size, True if stays.any() else None


class _Watching(Handler):
    """Runs a program at given draws. State: the log density so far, and a number for what each watched equation has
    come to so far."""

    def __init__(self, flow: SmoothFlow, held: Address | None, key):
        self.flow = flow
        self.key = key
        self.watched = {number: position for position, number in enumerate(flow.switches)}
        self.held = held

    def watches(self, eqn: compat.JaxprEqn) -> bool:
        inner = (inner for jaxpr in compat.inner_jaxprs(eqn) for inner in jaxpr.eqns)
        return id(eqn) in self.watched or any(map(self.watches, inner))

    def equation(self, eqn, values, state):
        total, outcomes = state
        outs = compat.bind(eqn, values)
        if id(eqn) in self.watched and (came_to := outcome(eqn, values, outs)) is not None:
            position = self.watched[id(eqn)]
            outcomes = outcomes.at[position].set(31 * outcomes[position] + _digest(came_to))
        return outs, (total, outcomes)

    def site(self, kind, site: Site, operands, given, state):
        moves = kind == "sample" and self.flow.of == "value" and self.flow.moves(site)
        if kind == "sample" and (given is None or (moves and site.name != self.held)):
            return [site.draw(_key(self.key, site), operands)], state, None
        if kind == "sample":
            value = _values(given)
            return [value], state if moves else self._weigh(kind, site, [*operands, value], state), None
        if kind != "deterministic" and self.flow.of == "density":
            state = self._weigh(kind, site, operands, state)
        outs = [] if kind == "factor" else jax.tree.leaves(site.map(lambda effect: effect.value, operands))
        return outs, state, None

    def _weigh(self, kind: str, site: Site, inputs, state):
        closed = self.flow.term(kind, site, inputs)
        within = inputs[-1:] if kind == "sample" else []
        (term,), (total, outcomes), _ = walk(
            closed.jaxpr, closed.consts, [*inputs, *within], self, state, {}, ()
        )
        return total + term, outcomes


def _key(key, site: Site):
    return jax.random.fold_in(key, zlib.crc32(spell(site.name).encode()))


def _digest(outcome) -> jax.Array:
    """A number that differs where outcomes differ."""
    flat = jnp.ravel(jnp.nan_to_num(outcome)).astype(int)
    weights = np.random.default_rng(0).integers(1, 2**62, flat.shape) | 1
    return jnp.sum(flat * weights)


def _values(choice):
    return choice.value if isinstance(choice, Masked) else choice


def _widened(x):
    if isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x, jnp.float64)
    return x
