"""The population walk: many weighted runs of a program, moved through its jaxpr together.

One walk, two policies. *Extend* says what happens at a ``sample`` site: each member draws one value, or branches
into one member per value of the support. *Reduce* says what happens where the walk suspends: nothing, or the
members are replaced by some of them (resampling, top-k, merging). A population is only ever extended by a value and
reindexed by an integer vector.

The walk suspends once factors have changed the weights: at the end of a scan step, or where straight-line code goes
on sampling. There it reindexes whatever is still live, which it reads off the jaxpr. Values that no draw has
touched are shared by all members and never copied (see ``members.py``).

Where members branch, a scan stays a scan if the policy gives it room for so many members between its steps, and
contracts them to that after each; else it is unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from . import compat
from .branches import select_branches
from .choices import Address
from .compat import scopes_of
from .effects import Site, deterministic_p, effect_primitives, sample_p
from .errors import UnsupportedError
from .interpreter import visit
from .members import (
    HISTORY,
    Kind,
    Members,
    as_kind,
    concerns_population,
    evaluate,
    flow,
    flow_scan,
    kind_of,
    map_members,
    reindex,
    rows,
)
from .population import Population
from .staging import SiteInfo, Staged, called_jaxpr, has_effects, sites_within, stage, survey, unsupported
from .weigh import Weigh, weigh_site


class Cloud(NamedTuple):
    """The weights of a population, and what is known of its past.

    The log weight of member i is ``log_weight[i] + log_scale``: what all members share is kept apart, so that
    float32 keeps the differences between members however long the program runs.
    """

    log_weight: jax.Array
    log_scale: jax.Array
    origin: jax.Array
    generations: jax.Array
    died: jax.Array

    def level(self, log_weight) -> Cloud:
        """The cloud of members with these weights, beside the scale: the largest of them goes into it."""
        top = jnp.max(log_weight)
        top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
        return self._replace(log_weight=log_weight - top, log_scale=self.log_scale + top)


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

    Where ``moved`` is false, ``index`` is the identity (None: not known).
    """

    cloud: Cloud
    index: jax.Array
    moved: jax.Array | None = None


class Policy(Protocol):
    """How a population moves.

    Attributes:
      moves: whether ``reduce`` ever reindexes it.
      records: whether ``deterministic`` sites are kept as sites of the resulting program.
      suspends_for_all: whether a weight that all members share is a reason to suspend.
    """

    moves: bool
    records: bool
    suspends_for_all: bool

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


def populate(
    program: Callable, size: int, policy: Policy, inspect: Callable[[Staged], object] | None = None
) -> Callable:
    """The program that runs a population through ``program`` and returns it. ``inspect`` sees the program first."""

    def populated(*args, **kwargs) -> Population:
        staged = stage(program, *args, **kwargs)
        if inspect is not None:
            inspect(staged)
        walk = _Walk(policy, size, _free_name("resample", [info.address for info in staged.sites]))
        cloud = Cloud(
            jnp.zeros(size, float),
            jnp.zeros((), float),
            jnp.arange(size, dtype=jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.full((), -1, jnp.int32),
        )
        closed = staged.jaxpr
        outs, cloud, _ = walk.run(closed.jaxpr, closed.consts, staged.leaves, cloud, (), track=False)
        value = staged.value([rows(x, walk.size) for x in outs])
        return Population(
            value,
            cloud.log_weight + cloud.log_scale,
            cloud.origin,
            cloud.generations,
            cloud.died,
            tuple(walk.factors),
            size,
        )

    return populated


class _Walk:
    """One population walk. Its attributes are known when the program is traced, none depends on data.

    Attributes:
      size: the number of members at this point of the program.
      pending: the factors met since the population was last reduced.
      factors: every factor met.
      points: how many suspension points were met; names their sites.
    """

    def __init__(self, policy: Policy, size: int, name: str):
        self.policy = policy
        self.size = size
        self.name = name
        self.pending: list[str] = []
        self.factors: list[str] = []
        self.points = 0

    def run(
        self,
        jaxpr: compat.Jaxpr,
        consts,
        args,
        cloud: Cloud,
        scope: Address,
        *,
        track: bool,
        used: Sequence[bool] | None = None,
        also=(),
    ):
        """Moves the population through a jaxpr.

        Args:
          track: whether the caller has values of its own to reindex.
          used: which outputs are wanted (None: all); the others are None.
          also: variables wanted beside the outputs.

        Returns:
          The outputs and those variables, the cloud, and the vector by which members were reindexed (None if they
          were not, or if not tracked).
        """
        wanted = (
            jaxpr.outvars if used is None else [v if use else None for v, use in zip(jaxpr.outvars, used)]
        )
        outvars = [*wanted, *also]
        last_use = _last_uses(jaxpr, outvars)
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
        index = None
        for i, eqn in enumerate(jaxpr.eqns):
            live = [v for v in env if last_use.get(v, -1) >= i and kind_of(env[v])]
            if self.pending and _samples(eqn) and called_jaxpr(eqn) is None:
                cloud, moved, values = self.reduce(cloud, [env[v] for v in live], track)
                env.update(zip(live, values))
                index = _compose(index, moved)
            values = [compat.read(env, v) for v in eqn.invars]
            if not concerns_population(eqn) or eqn.primitive in HISTORY:
                outs = evaluate(eqn, values, self.size)
            else:
                live = [v for v in live if last_use[v] > i]
                used = [v in last_use for v in eqn.outvars]
                outs, cloud, moved = self.visit(
                    eqn, values, cloud, scope, track=track or bool(live), used=used
                )
                if moved is not None:
                    env.update(zip(live, reindex([env[v] for v in live], moved)))
                    index = _compose(index, moved if track else None)
            env.update(zip(eqn.outvars, outs))
            for v in [v for v in env if last_use.get(v, -1) <= i]:
                del env[v]
        return [None if v is None else compat.read(env, v) for v in outvars], cloud, index

    def visit(
        self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address, *, track: bool, used: Sequence[bool]
    ):
        """One equation that is a site or contains sites or histories: outputs, cloud and reindexing."""
        outer_scope, scope = scope, (*scope, *scopes_of(eqn))
        name = eqn.primitive.name
        if eqn.primitive in effect_primitives:
            return self.site(name, eqn.params["site"].under(scope), values, cloud, track=track)
        called = called_jaxpr(eqn)
        if called is not None:
            return self.run(called.jaxpr, called.consts, values, cloud, scope, track=track, used=used)
        if name == "scan":
            if not self.grows(eqn):
                return self.scan(eqn, values, cloud, scope, track=track, used=used)
            room = self.room(eqn, values, track=track, used=used)
            if room is None:
                return self.unrolled(eqn, values, cloud, scope, track=track)
            return self.scan(eqn, values, cloud, scope, track=track, used=used, room=room)
        if name == "cond":
            return self.cond(eqn, values, cloud, scope, track=track)
        if name == "while":
            return self.loop(eqn, values, cloud, outer_scope)
        raise unsupported(eqn)

    def grows(self, eqn: compat.JaxprEqn) -> bool:
        return any(map(self.policy.grows, sites_within(eqn)))

    # ------------------------------------------------------------------ sites and suspension

    def site(self, kind: str, site: Site, operands, cloud: Cloud, *, track: bool):
        if kind == "deterministic":
            record = deterministic_p.bind if self.policy.records else _unrecorded
            bind = lambda *operands: record(*operands, site=site)  # noqa: E731
            if not any(map(kind_of, operands)):
                return bind(*operands), cloud, None
            return [Members(x) for x in map_members(bind, operands, self.size)], cloud, None
        if kind == "sample":
            extension = self.policy.extend(site, operands, cloud)
            if extension.index is not None:
                self.size = extension.index.shape[0]
                cloud = _take_cloud(cloud, extension.index)
            if extension.log_weight is not None:
                cloud = self.add(cloud, extension.log_weight, site, suspends=extension.suspends)
            return [Members(extension.value)], cloud, extension.index
        if getattr(site.effect(operands).distribution, "is_estimated", False):
            return self.estimated(kind, site, operands, cloud, track=track)
        shared = not any(map(kind_of, operands))
        if shared:
            outs, log_weight = weigh_site(kind, site, operands)
            log_scale = cloud.log_scale + log_weight
            if self.policy.suspends_for_all:
                self.pending.append(str(site))
            return outs, self.mourn(cloud._replace(log_scale=log_scale), log_scale == -jnp.inf, site), None
        outs, log_weight = map_members(lambda *xs: weigh_site(kind, site, xs), operands, self.size)
        return [Members(x) for x in outs], self.add(cloud, log_weight, site), None

    def estimated(self, kind: str, site: Site, operands, cloud: Cloud, *, track: bool):
        """A site whose density draws what it needs: to weigh it is a program, and a part of this one."""
        own = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (rows(x, 1) for x in operands)]
        closed = jax.make_jaxpr(lambda *operands: weigh_site(kind, site, operands))(*own)
        (*outs, log_weight), cloud, index = self.run(
            closed.jaxpr, closed.consts, operands, cloud, (), track=track
        )
        return outs, self.add(cloud, rows(log_weight, self.size), site), index

    def add(self, cloud: Cloud, log_weight, site: Site, *, suspends: bool = True) -> Cloud:
        """Multiplies the members' weights."""
        if suspends:
            self.pending.append(str(site))
        total = cloud.log_weight + log_weight.astype(cloud.log_weight.dtype)
        return self.mourn(cloud._replace(log_weight=total), jnp.max(total) == -jnp.inf, site)

    def mourn(self, cloud: Cloud, dead, site: Site) -> Cloud:
        """Notes the first factor after which no member has weight."""
        if str(site) not in self.factors:
            self.factors.append(str(site))
        factor = self.factors.index(str(site))
        return cloud._replace(died=jnp.where((cloud.died < 0) & dead, factor, cloud.died))

    def reduce(self, cloud: Cloud, live: Sequence, track: bool, final=False):
        """Suspends: the cloud, the reindexing (if tracked) and the live values after the policy had its say."""
        self.pending = []
        reduction = self.policy.reduce((self.name, str(self.points)), cloud, final)
        if reduction is None:
            return cloud, None, list(live)
        return self.replace(reduction, live, track)

    def contract(self, cloud: Cloud, live: Sequence, index, room: int, track: bool):
        """The same before and inside a scan that has ``room``; ``index`` says what members have around it (None: they
        do not differ there)."""
        self.pending = []
        apart = [x for x in live if kind_of(x)] + ([] if index is None else [Members(index)])
        reduction = self.policy.contract((self.name, str(self.points)), cloud, apart, room)
        return self.replace(reduction, live, track)

    def replace(self, reduction: Reduction, live: Sequence, track: bool):
        self.points += 1
        cloud, index, moved = reduction
        self.size = index.shape[0]
        origin, *live = reindex([Members(cloud.origin), *live], index, moved)
        cloud = cloud._replace(origin=origin.value)
        if track and moved is not None:
            index = jnp.where(moved, index, jnp.arange(self.size, dtype=jnp.int32))
        return cloud, index if track else None, live

    # ------------------------------------------------------------------ control flow

    def room(self, eqn: compat.JaxprEqn, values, *, track: bool, used: Sequence[bool]) -> int | None:
        num_consts, num_carry = compat.scan_counts(eqn)
        _, y_kinds = flow_scan(eqn, list(map(kind_of, values)))
        apart = track or any(map(kind_of, (*values[:num_consts], *values[num_consts + num_carry :])))
        stacks = any(kind for kind, use in zip(y_kinds, used[num_carry:]) if use)
        return self.policy.room(eqn, values, self.size, apart, stacks)

    def scan(
        self,
        eqn: compat.JaxprEqn,
        values,
        cloud: Cloud,
        scope: Address,
        *,
        track: bool,
        used: Sequence[bool],
        room: int | None = None,
    ):
        """A scan as a scan. With ``room`` its population may grow, and is contracted to that after each step."""
        params, size = eqn.params, self.size if room is None else room
        body, length = params["jaxpr"], params["length"]
        num_consts, num_carry = compat.scan_counts(eqn)
        consts, init = values[:num_consts], values[num_consts:][:num_carry]
        xs = values[num_consts + num_carry :]
        carry_kinds, y_kinds = flow_scan(eqn, list(map(kind_of, values)))
        init = [as_kind(x, kind, self.size) for x, kind in zip(init, carry_kinds)]
        y_kinds = [kind if use else Kind.SHARED for kind, use in zip(y_kinds, used[num_carry:])]
        used = [*[True] * num_carry, *used[num_carry:]]

        # What differs between members must be carried, so that it is reindexed: constants of the body too. The
        # slices of xs are fetched through the reindexing so far, and those of ys are put right at the end.
        held = [i for i, x in enumerate(consts) if kind_of(x)]
        held_vars = [body.jaxpr.invars[i] for i in held]
        x_kinds = list(map(kind_of, xs))
        xs = [jnp.moveaxis(rows(x, self.size), 1, 0) if kind else x for x, kind in zip(xs, x_kinds)]
        tracked = self.policy.moves and (track or any(x_kinds))
        track_inside = track or any(x_kinds) or any(y_kinds)
        index = jnp.arange(self.size, dtype=jnp.int32) if tracked else None
        live = [*init, *(consts[i] for i in held)]
        if room is not None:
            cloud, moved, live = self.contract(cloud, live, index, room, track_inside)
            index = moved if tracked else None
        pending: list[str] = []

        def step(carry, xs):
            i, cloud, index, live = carry
            self.size = size
            own_consts = list(consts)
            for j, value in zip(held, live[num_carry:]):
                own_consts[j] = value
            slices = [_slice(x, index) if kind else x for x, kind in zip(xs, x_kinds)]
            args = [*own_consts, *live[:num_carry], *slices]
            outs, cloud, inside = self.run(
                body.jaxpr, body.consts, args, cloud, scope, track=track_inside, used=used, also=held_vars
            )
            outs = [as_kind(x, kind, self.size) for x, kind in zip(outs, carry_kinds)] + outs[num_carry:]
            first_held = len(outs) - len(held)
            ys, live = outs[num_carry:first_held], outs[:num_carry] + outs[first_held:]
            emitted = [rows(y, self.size) if kind else y for y, kind in zip(ys, y_kinds)]
            index, at_end = None if index is None else _compose(index, inside), None
            pending[:] = self.pending if room is None else []
            if room is not None:
                cloud, at_end, live = self.contract(cloud, live, index, room, track_inside)
            elif self.pending:
                cloud, at_end, live = self.reduce(cloud, live, track_inside, final=i == length - 1)
            if self.size != size:
                raise UnsupportedError(
                    f"a population of {size} has {self.size} members after one scan step; inside a scan the "
                    "policy must bring it back to the size it had"
                )
            index = None if index is None else _compose(index, at_end)
            return (i + 1, cloud, index, live), (emitted, inside, at_end)

        start = (jnp.zeros((), jnp.int32), cloud, index, live)
        (_, cloud, index, live), (ys, inside, at_end) = lax.scan(
            step, start, list(xs), length=length, reverse=params["reverse"], unroll=params["unroll"]
        )
        self.pending = pending or self.pending  # the last step is not reduced: that is left to what follows
        ys = _inherit(ys, y_kinds, inside, at_end, size, reverse=params["reverse"])
        ys = [Members(jnp.moveaxis(y, 0, 1)) if kind else y for y, kind in zip(ys, y_kinds)]
        return [*live[:num_carry], *ys], cloud, index if track else None

    def unrolled(self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address, *, track: bool):
        """A scan whose population grows: its steps, one after the other."""
        params = eqn.params
        body, length = params["jaxpr"], params["length"]
        num_consts, num_carry = compat.scan_counts(eqn)
        consts, carry = values[:num_consts], values[num_consts:][:num_carry]
        xs = values[num_consts + num_carry :]
        history: list[list] = []
        index = None

        def at(x, t):
            return Members(rows(x, self.size)[:, t]) if kind_of(x) else x[t]

        for t in reversed(range(length)) if params["reverse"] else range(length):
            args = [*consts, *carry, *(at(x, t) for x in xs)]
            outs, cloud, moved = self.run(body.jaxpr, body.consts, args, cloud, scope, track=True)
            consts, xs, history = _reindex_all((consts, xs, history), moved)
            history.append(outs[num_carry:])
            index = _compose(index, moved)
            if self.pending and t != (0 if params["reverse"] else length - 1):
                everything = (consts, outs[:num_carry], xs, history)
                leaves, tree = jax.tree.flatten(everything, is_leaf=lambda x: bool(kind_of(x)))
                cloud, moved, leaves = self.reduce(cloud, leaves, True)
                consts, carry, xs, history = jax.tree.unflatten(tree, leaves)
                index = _compose(index, moved)
            else:
                carry = outs[:num_carry]
        if params["reverse"]:
            history.reverse()
        columns = zip(*history) if history else [() for _ in eqn.outvars[num_carry:]]
        ys = [self.stack(column, v.aval) for column, v in zip(columns, eqn.outvars[num_carry:])]
        return [*carry, *ys], cloud, index if track else None

    def stack(self, column, aval):
        """The outputs of a scan's steps as one value."""
        if any(map(kind_of, column)):
            return Members(jnp.stack([rows(y, self.size) for y in column], 1))
        return jnp.stack(column) if column else jnp.zeros(aval.shape, aval.dtype)

    def cond(self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address, *, track: bool):
        which, *operands = values
        branches = eqn.params["branches"]
        if kind_of(which) or self.grows(eqn):  # members may part: run all branches, their sites guarded
            avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
            closed = jax.make_jaxpr(select_branches(branches))(*avals)
            return self.run(closed.jaxpr, closed.consts, values, cloud, scope, track=track)
        kinds = list(map(kind_of, operands))
        out_kinds = list(map(max, zip(*(flow(branch.jaxpr, kinds) for branch in branches))))
        size, pending, left = self.size, list(self.pending), []

        def branch(closed):
            def run(cloud, operands):
                self.pending = list(pending)
                outs, cloud, index = self.run(
                    closed.jaxpr, closed.consts, operands, cloud, scope, track=track
                )
                left.extend(self.pending)
                if index is None and track and self.policy.moves:
                    index = jnp.arange(size, dtype=jnp.int32)
                return [as_kind(x, kind, size) for x, kind in zip(outs, out_kinds)], cloud, index

            return run

        outs, cloud, index = lax.switch(which, [branch(closed) for closed in branches], cloud, operands)
        self.pending = left
        return outs, cloud, index

    def loop(self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address):
        """A while_loop: its members may stop at different times, so it is weighed member by member."""
        if not has_effects(eqn) and not any(map(kind_of, values)):
            return compat.bind(eqn, values), cloud, None
        sites = [
            info for part in ("cond_jaxpr", "body_jaxpr") for info in survey(eqn.params[part].jaxpr, scope)
        ]
        if any(info.kind == "sample" and self.policy.grows(info.site) for info in sites):
            raise UnsupportedError(
                f"{sites[0]} is inside a while_loop, whose runs cannot be enumerated; use a scan of fixed length"
            )

        def weigh(*values):
            outs, log_weight, _ = visit(eqn, values, Weigh(), jnp.zeros((), float), {}, scope)
            return outs, log_weight

        outs, log_weight = map_members(weigh, values, self.size)
        weighted = [info.site for info in sites if _weighs(info)]
        if weighted:
            cloud = self.add(cloud, log_weight, weighted[-1])
        return [Members(x) for x in outs], cloud, None


# ------------------------------------------------------------------------- helpers


def _inherit(ys, kinds, inside, at_end, size: int, *, reverse: bool) -> list:
    """Each step's outputs in the order of the members that descend from them at the end of the scan.

    Traces the lineages backwards, so that T steps cost O(n T): ``inside`` and ``at_end`` say how each step
    reindexed the population before and after it gave its outputs.
    """
    if not any(kinds) or (inside is None and at_end is None):
        return ys

    def back(index, moves):
        inside, at_end = moves
        here = _compose(at_end, index)
        return _compose(inside, here), here

    own = jnp.arange(size, dtype=jnp.int32)
    _, index = lax.scan(back, own, (inside, at_end), reverse=not reverse)
    take = jax.vmap(lambda y, index: jnp.take(y, index, axis=0, mode="clip"))
    return [take(y, index) if kind else y for y, kind in zip(ys, kinds)]


def _slice(x, index) -> Members:
    """A step's slice of what a scan runs over, for the members that there are by now."""
    return Members(x if index is None else jnp.take(x, index, axis=0, mode="clip"))


def _unrecorded(*operands, site: Site) -> list:
    return jax.tree.leaves(site.map(lambda effect: effect.value, operands))


def _compose(first, then):
    """The reindexing by ``first`` followed by that by ``then`` (None: the identity)."""
    if first is None or then is None:
        return first if then is None else then
    return jnp.take(first, then, axis=0, mode="clip")


def _take_cloud(cloud: Cloud, index) -> Cloud:
    return cloud._replace(log_weight=cloud.log_weight[index], origin=cloud.origin[index])


def _reindex_all(tree, index):
    if index is None:
        return tree
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: bool(kind_of(x)))
    return jax.tree.unflatten(structure, reindex(leaves, index))


def _last_uses(jaxpr: compat.Jaxpr, outvars) -> dict[Any, int]:
    uses = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, compat.Literal)}
    wanted = [v for v in outvars if v is not None and not isinstance(v, compat.Literal)]
    uses.update(dict.fromkeys(wanted, len(jaxpr.eqns)))
    return uses


def _samples(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation is, or contains, a sample site."""
    if eqn.primitive is sample_p:
        return True
    return any(_samples(e) for jaxpr in compat.inner_jaxprs(eqn) for e in jaxpr.eqns)


def _weighs(info: SiteInfo) -> bool:
    """Whether a site changes the weight of a member that draws from proposals."""
    return info.kind in ("observe", "factor") or info.site.effect(info.operands).proposal is not None


def _free_name(name: str, addresses: list[Address]) -> str:
    """A name that no address of the program begins with."""
    taken = {address[0] for address in addresses}
    return next(n for n in [name, *(f"{name}{i}" for i in range(2, len(taken) + 3))] if n not in taken)
