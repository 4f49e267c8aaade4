"""The population walk: many weighted runs of a program, moved through its jaxpr together.

One walk, two policies. *Extend* says what happens at a ``sample`` site: each member draws one value, or branches
into one member per value of the support. *Reduce* says what happens where the walk suspends: nothing, or the
members are replaced by some of them (resampling, top-k, merging). A population is only ever extended by a value and
reindexed by an integer vector.

The walk suspends once factors have changed the weights: at the end of a scan step, or where straight-line code goes
on sampling. There it reindexes whatever is still live, which it reads off the jaxpr. Values that no draw has
touched are shared by all members and never copied (see ``members.py``).

In a scan that is a Markov chain, a run may go on from another past (see ``markov.py``). So a policy may let members
take each other's places, by what they weigh in the next step (*relink*), or draw the lineages of a scan that is over
(*link*).

Where members branch, a scan stays a scan if the policy gives it room for so many members between its steps, and
contracts them to that after each; else it is unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import compat
from .bearing import Later, bearing, scan_bearing
from .branches import select_branches
from .carried import carrying
from .choices import Address
from .compat import scopes_of
from .effects import Effect, Site, deterministic_p, effect_primitives, sample_p
from .errors import UnsupportedError
from .interpreter import visit
from .markov import has_memory, refuse_memory, spell_type, weighed_beside
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
from .policy import Cloud, Policy, Reduction
from .population import Population, log_growth
from .recorded import recording
from .staging import SiteInfo, Staged, called_jaxpr, has_effects, sites_within, stage, survey, unsupported
from .weigh import Weigh, weigh_site


def populate(
    program: Callable, size: int, policy: Policy, inspect: Callable[[Staged], object] | None = None
) -> Callable:
    """The program that runs a population of ``size`` members through ``program``, and returns it.

    Args:
      policy: how members move; :class:`Draw` is that of importance sampling, of which others are made.
      inspect: is shown the program first, and may refuse it.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> class Forget(ppl.Draw):  # members of weight zero are replaced by the first that has weight
    ...     moves = True
    ...     def reduce(self, address, cloud, final):
    ...         alive, own = cloud.log_weight > -jnp.inf, jnp.arange(len(cloud.log_weight))
    ...         return ppl.Reduction(cloud, jnp.where(alive, own, jnp.argmax(alive)))
    >>> def even():
    ...     x = ppl.sample("x", dist.Categorical(jnp.ones(4) / 4))
    ...     ppl.factor(jnp.where(x % 2 == 0, 0.0, -jnp.inf))
    ...     return x, ppl.sample("y", dist.Normal(x, 1.0))
    >>> population = ppl.seed(ppl.populate(even, 100, Forget()))(jax.random.key(0))
    >>> bool((population.value[0] % 2 == 0).all())
    True
    """

    def populated(*args, **kwargs) -> Population:
        staged = stage(program, *args, **kwargs)
        if inspect is not None:
            inspect(staged)
        walk = _Walk(policy, size, _free_name("resample", [info.address for info in staged.sites]))
        cloud = Cloud.begin(size, twisted=any(info.is_twist for info in staged.sites))
        closed = staged.jaxpr
        later = Later((False,) * len(closed.jaxpr.outvars))
        outs, cloud, _ = walk.run(
            closed.jaxpr, closed.consts, staged.leaves, cloud, (), track=False, later=later
        )
        value = staged.value([rows(x, walk.size) for x in outs])
        return Population(
            value,
            cloud.log_weight + cloud.log_scale,
            cloud.origin,
            cloud.generations,
            cloud.died,
            tuple(walk.factors),
            size,
            log_growth=cloud.log_growth,
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
        later: Later,
        used: Sequence[bool] | None = None,
        also=(),
    ):
        """Moves the population through a jaxpr.

        Args:
          track: whether the caller has values of its own to reindex.
          later: what is weighed afterwards, of the outputs and of the variables wanted beside them.
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
        last_weighed = {} if self.policy.ahead is None else bearing(jaxpr, outvars, later.outs)
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
                beside = [spell_type(v) for v in live if last_weighed.get(v, -1) > i]
                afterwards = Later(
                    tuple(v in last_weighed for v in eqn.outvars), next(iter(beside), later.beside)
                )
                outs, cloud, moved = self.visit(
                    eqn, values, cloud, scope, track=track or bool(live), later=afterwards, used=used
                )
                if moved is not None:
                    env.update(zip(live, reindex([env[v] for v in live], moved)))
                    index = _compose(index, moved if track else None)
            env.update(zip(eqn.outvars, outs))
            for v in [v for v in env if last_use.get(v, -1) <= i]:
                del env[v]
        return [None if v is None else compat.read(env, v) for v in outvars], cloud, index

    def visit(
        self,
        eqn: compat.JaxprEqn,
        values,
        cloud: Cloud,
        scope: Address,
        *,
        track: bool,
        later: Later,
        used: Sequence[bool],
    ):
        """One equation that is a site or contains sites or histories: outputs, cloud and reindexing."""
        outer_scope, scope = scope, (*scope, *scopes_of(eqn))
        name = eqn.primitive.name
        if eqn.primitive in effect_primitives:
            site = eqn.params["site"].under(scope)
            return self.site(name, site, values, cloud, track=track, later=later)
        called = called_jaxpr(eqn)
        if called is not None:
            return self.run(
                called.jaxpr, called.consts, values, cloud, scope, track=track, later=later, used=used
            )
        if name == "scan":
            if self.policy.behind is not None and eqn.params["length"] > 1 and _samples(eqn):
                return self.smoothed(eqn, values, cloud, scope, track=track, later=later, used=used)
            if not self.grows(eqn):
                return self.scan(eqn, values, cloud, scope, track=track, later=later, used=used)
            room = self.room(eqn, values, track=track, used=used)
            if room is None:
                return self.unrolled(eqn, values, cloud, scope, track=track, later=later)
            return self.scan(eqn, values, cloud, scope, track=track, later=later, used=used, room=room)
        if name == "cond":
            return self.cond(eqn, values, cloud, scope, track=track, later=later)
        if name == "while":
            return self.loop(eqn, values, cloud, outer_scope)
        raise unsupported(eqn)

    def grows(self, eqn: compat.JaxprEqn) -> bool:
        return any(map(self.policy.grows, sites_within(eqn)))

    # ------------------------------------------------------------------ sites and suspension

    def site(self, kind: str, site: Site, operands, cloud: Cloud, *, track: bool, later: Later):
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
                cloud = cloud.taken(extension.index)
            if extension.log_weight is not None:
                cloud = self.add(cloud, extension.log_weight, site, suspends=extension.suspends)
            value = Members(extension.value) if self.policy.draws else extension.value
            return [value], cloud, extension.index
        if site.effect(operands).log_potential is not None:
            self.pending.append(str(site))
            log_potential = map_members(lambda *xs: site.sum(_log_potential, xs), operands, self.size)
            log_twist = cloud.log_twist + log_potential.astype(cloud.log_twist.dtype)
            return [], cloud._replace(log_twist=log_twist), None
        if getattr(site.effect(operands).distribution, "is_estimated", False):
            return self.estimated(kind, site, operands, cloud, track=track, later=later)
        shared = not any(map(kind_of, operands))
        if shared:
            outs, log_weight = weigh_site(kind, site, operands)
            log_scale = cloud.log_scale + log_weight
            if self.policy.suspends_for_all:
                self.pending.append(str(site))
            return outs, self.mourn(cloud._replace(log_scale=log_scale), log_scale == -jnp.inf, site), None
        outs, log_weight = map_members(lambda *xs: weigh_site(kind, site, xs), operands, self.size)
        return [Members(x) for x in outs], self.add(cloud, log_weight, site), None

    def estimated(self, kind: str, site: Site, operands, cloud: Cloud, *, track: bool, later: Later):
        """A site whose density draws what it needs: to weigh it is a program, and a part of this one."""
        own = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (rows(x, 1) for x in operands)]
        closed = jax.make_jaxpr(lambda *operands: weigh_site(kind, site, operands))(*own)
        (*outs, log_weight), cloud, index = self.run(
            closed.jaxpr, closed.consts, operands, cloud, (), track=track, later=Later((*later.outs, True))
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
            return cloud.suspended(final), None, list(live)
        return self.replace(cloud, reduction, live, track, final)

    def contract(self, cloud: Cloud, live: Sequence, index, room: int, track: bool):
        """The same before and inside a scan that has ``room``; ``index`` says what members have around it (None: they
        do not differ there)."""
        self.pending = []
        apart = [x for x in live if kind_of(x)] + ([] if index is None else [Members(index)])
        reduction = self.policy.contract((self.name, str(self.points)), cloud, apart, room)
        return self.replace(cloud, reduction, live, track)

    def replace(self, before: Cloud, reduction: Reduction, live: Sequence, track: bool, final=False):
        self.points += 1
        cloud, index, moved, growth = reduction
        index = index.astype(jnp.int32)
        if growth is None:
            grown = lambda: log_growth(before.log_weight, cloud.log_weight, index)  # noqa: E731
            moves = True if moved is None else moved
            growth = lax.cond(moves, grown, lambda: jnp.zeros_like(before.log_weight[0]))
        cloud = cloud._replace(log_growth=cloud.log_growth + growth.astype(cloud.log_growth.dtype))
        self.size = index.shape[0]
        origin, *live = reindex([Members(cloud.origin), *live], index, moved)
        twist = None if cloud.log_twist is None else cloud.log_twist[index]
        cloud = cloud._replace(origin=origin.value, log_twist=twist).suspended(final)
        if track and moved is not None:
            index = jnp.where(moved, index, jnp.arange(self.size, dtype=jnp.int32))
        return cloud, index if track else None, live

    # ------------------------------------------------------------------ looking ahead

    def later_than_a_step(
        self,
        eqn: compat.JaxprEqn,
        values: Sequence,
        y_kinds: Sequence[Kind],
        held: Sequence[int],
        later: Later,
    ) -> Later:
        """What is weighed after any step of a scan: of what its body gives, and of the constants ``held``."""
        num_consts, num_carry = compat.scan_counts(eqn)
        bears, ys_bear = scan_bearing(eqn, later.outs), later.outs[num_carry:]
        stacked = [v for v, *both in zip(eqn.outvars[num_carry:], y_kinds, ys_bear) if all(both)]
        beside = next(map(spell_type, [*weighed_beside(eqn, values, bears), *stacked]), later.beside)
        return Later((*bears[num_consts:][:num_carry], *ys_bear, *(bears[i] for i in held)), beside)

    def look_ahead(self, eqn: compat.JaxprEqn, args: Sequence, scope: Address, later: Later):
        """The members' log weights in a step of a scan with these arguments, by the policy that looks ahead.

        Their weights in all that comes after are the same, if only what they carry into the step differs, and nothing
        is left of that but by way of sites: else it is refused.
        """
        if later.beside is not None:
            raise has_memory(eqn, f"{later.beside} that lives on beside what it carries")
        outs, log_weight = weigh_alone(self.policy.ahead, eqn.params["jaxpr"], args, self.size, scope)
        _, num_carry = compat.scan_counts(eqn)
        refuse_memory(eqn, outs[:num_carry], later.outs)
        return log_weight

    def relink(self, cloud: Cloud, log_ahead, live: Sequence, track: bool, final):
        """The cloud, the reindexing (if tracked) and the live values after members took each other's places."""
        address = (self.name, f"{self.points} ancestor")
        index = self.policy.relink(address, cloud, log_ahead, final)
        return cloud.taken(index), index if track else None, reindex(live, index)

    # ------------------------------------------------------------------ looking behind

    def smoothed(
        self,
        eqn: compat.JaxprEqn,
        values: Sequence,
        cloud: Cloud,
        scope: Address,
        *,
        track: bool,
        later: Later,
        used: Sequence[bool],
    ):
        """A scan that stacks the choices of its sites too, and whose lineages are drawn anew when it is over."""
        for v in weighed_beside(eqn, values, scan_bearing(eqn, [False for _ in eqn.outvars])):
            raise has_memory(eqn, f"{spell_type(v)} that lives on beside what it carries")
        body, records = recording(eqn.params["jaxpr"])
        choices = body.jaxpr.outvars[len(eqn.outvars) :]
        params = {**eqn.params, "jaxpr": body}
        again = eqn.replace(params=params, outvars=[*eqn.outvars, *choices])
        later = Later((*later.outs, *(False for _ in choices)), later.beside)
        used = [*used, *(True for _ in choices)]
        return self.scan(again, values, cloud, scope, track=track, later=later, used=used, records=records)

    def draw_lineage(
        self,
        eqn: compat.JaxprEqn,
        choices,
        left,
        arguments: Callable,
        xs: Sequence,
        moved,
        scope: Address,
        wanted: Sequence[bool],
    ):
        """Draws which member of each step, ``[T, n]``, those of the last step of a scan come from, and which before it.

        Goes from the last step to the first. ``choices`` are the members' of each step, ``left`` what they carried from
        it and their log weights.
        """
        length, reverse, size = eqn.params["length"], eqn.params["reverse"], self.size
        num_consts, num_carry = compat.scan_counts(eqn)
        carry_bears = scan_bearing(eqn, [False for _ in eqn.outvars])[num_consts:][:num_carry]
        matters = [*map(max, carry_bears, wanted), *wanted[num_carry:]]

        def weigh(given, live, xs):
            closed = carrying(eqn.params["jaxpr"], given)
            args = [*jax.tree.leaves(given), *arguments(live, xs)]
            outs, log_weight = weigh_alone(self.policy.behind, closed, args, size, scope)
            refuse_memory(eqn, outs, matters)
            return log_weight

        address = (self.name, f"{self.points} lineage")
        self.points += 1

        def back(index, step):
            (live, log_weight), choices, xs, *moves = step
            given = jax.tree.map(lambda x: x[index], choices)
            log_ahead = jax.vmap(weigh, in_axes=(0, None, None))(given, live, xs)
            came_from = _compose(_compose(*moves), index)
            index = self.policy.link(address, log_weight + log_ahead, came_from)
            return index, index

        own = jnp.arange(size, dtype=jnp.int32)
        inside, at_end = moved
        pairs = (slice(1, None), slice(None, -1)) if reverse else (slice(None, -1), slice(1, None))
        earlier, following = (partial(jax.tree.map, lambda x, part=part: x[part]) for part in pairs)
        steps = earlier(left), following(choices), following(list(xs)), earlier(at_end), following(inside)
        first, lineage = lax.scan(back, own, steps, reverse=not reverse)
        lineage = jnp.concatenate([own[None], lineage] if reverse else [lineage, own[None]])
        return lineage, _compose(None if inside is None else inside[length - 1 if reverse else 0], first)

    # ------------------------------------------------------------------ control flow

    def room(self, eqn: compat.JaxprEqn, values, *, track: bool, used: Sequence[bool]) -> int | None:
        num_consts, num_carry = compat.scan_counts(eqn)
        _, _, y_kinds = flow_scan(eqn, list(map(kind_of, values)), self.policy.draws)
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
        later: Later,
        used: Sequence[bool],
        room: int | None = None,
        records: Any = None,
    ):
        """A scan as a scan. With ``room`` its population may grow, and is contracted to that after each step.

        ``records`` is the structure of the choices that are the last of what it stacks, if lineages are drawn anew.
        """
        params, size = eqn.params, self.size if room is None else room
        body, length = params["jaxpr"], params["length"]
        num_consts, num_carry = compat.scan_counts(eqn)
        consts, init = values[:num_consts], values[num_consts:][:num_carry]
        xs = values[num_consts + num_carry :]
        carry_kinds, end_kinds, y_kinds = flow_scan(eqn, list(map(kind_of, values)), self.policy.draws)
        init = [as_kind(x, kind, self.size) for x, kind in zip(init, carry_kinds)]
        y_kinds = [kind if use else Kind.SHARED for kind, use in zip(y_kinds, used[num_carry:])]
        wanted, used = used, [*[True] * num_carry, *used[num_carry:]]

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
        looks_ahead = self.policy.ahead is not None and length > 1
        later_than_all = Later((*later.outs, *(False for _ in held)), later.beside)
        inner = self.later_than_a_step(eqn, values, y_kinds, held, later) if looks_ahead else later_than_all

        def arguments(index, live, xs):
            own_consts = list(consts)
            for j, value in zip(held, live[num_carry:]):
                own_consts[j] = value
            slices = [_slice(x, index) if kind else x for x, kind in zip(xs, x_kinds)]
            return [*own_consts, *live[:num_carry], *slices]

        def step(carry, slices):
            i, cloud, index, live = carry
            self.size = size
            args = arguments(index, live, slices)
            outs, cloud, inside = self.run(
                body.jaxpr,
                body.consts,
                args,
                cloud,
                scope,
                track=track_inside,
                later=inner,
                used=used,
                also=held_vars,
            )
            outs = [as_kind(x, kind, self.size) for x, kind in zip(outs, carry_kinds)] + outs[num_carry:]
            first_held = len(outs) - len(held)
            ys, live = outs[num_carry:first_held], outs[:num_carry] + outs[first_held:]
            emitted = [rows(y, self.size) if kind else y for y, kind in zip(ys, y_kinds)]
            index, at_end = None if index is None else _compose(index, inside), None
            pending[:] = self.pending if room is None else []
            left = None if records is None else (live, cloud.log_weight)
            if room is not None:
                cloud, at_end, live = self.contract(cloud, live, index, room, track_inside)
            elif self.pending:
                final, turned = i == length - 1, None
                if looks_ahead:
                    following = jnp.minimum(i + 1, length - 1)
                    at = length - 1 - following if params["reverse"] else following
                    args = arguments(
                        index, live, [lax.dynamic_index_in_dim(x, at, keepdims=False) for x in xs]
                    )
                    log_ahead = self.look_ahead(eqn, args, scope, inner)
                    cloud, turned, live = self.relink(cloud, log_ahead, live, track_inside, final)
                cloud, at_end, live = self.reduce(cloud, live, track_inside, final)
                at_end = _compose(turned, at_end)
            if self.size != size:
                raise UnsupportedError(
                    f"a population of {size} has {self.size} members after one scan step; inside a scan the "
                    "policy must bring it back to the size it had"
                )
            index = None if index is None else _compose(index, at_end)
            return (i + 1, cloud, index, live), (emitted, inside, at_end, left)

        start = (jnp.zeros((), jnp.int32), cloud, index, live)
        (_, cloud, index, live), (ys, inside, at_end, left) = lax.scan(
            step, start, list(xs), length=length, reverse=params["reverse"], unroll=params["unroll"]
        )
        self.pending = pending or self.pending  # the last step is not reduced: that is left to what follows
        if records is None:
            lineage = _lineage(y_kinds, inside, at_end, size, reverse=params["reverse"])
        else:
            stacked = zip(ys[-records.num_leaves :], y_kinds[-records.num_leaves :])
            choices = [y if kind else _repeat(y, size) for y, kind in stacked]
            choices = jax.tree.unflatten(records, choices)
            again = partial(arguments, None)
            lineage, index = self.draw_lineage(eqn, choices, left, again, xs, (inside, at_end), scope, wanted)
        ys = ys if lineage is None else [_along(y, lineage) if kind else y for y, kind in zip(ys, y_kinds)]
        ys = [Members(jnp.moveaxis(y, 0, 1)) if kind else y for y, kind in zip(ys, y_kinds)]
        left_over = [x if kind else _of_all(x) for x, kind in zip(live, end_kinds)]
        return [*left_over, *ys], cloud, index if track else None

    def unrolled(
        self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address, *, track: bool, later: Later
    ):
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
            outs, cloud, moved = self.run(
                body.jaxpr, body.consts, args, cloud, scope, track=True, later=later
            )
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

    def cond(self, eqn: compat.JaxprEqn, values, cloud: Cloud, scope: Address, *, track: bool, later: Later):
        which, *operands = values
        branches = eqn.params["branches"]
        if kind_of(which) or self.grows(eqn):  # members may part: run all branches, their sites guarded
            avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
            closed = jax.make_jaxpr(select_branches(branches))(*avals)
            return self.run(closed.jaxpr, closed.consts, values, cloud, scope, track=track, later=later)
        kinds = list(map(kind_of, operands))
        out_kinds = list(
            map(max, zip(*(flow(branch.jaxpr, kinds, self.policy.draws) for branch in branches)))
        )
        size, pending, left = self.size, list(self.pending), []

        def branch(closed):
            def run(cloud, operands):
                self.pending = list(pending)
                outs, cloud, index = self.run(
                    closed.jaxpr, closed.consts, operands, cloud, scope, track=track, later=later
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


def weigh_alone(policy: Policy, closed: compat.ClosedJaxpr, args, size: int, scope: Address):
    """The outputs of a jaxpr, and what members weigh in it by a policy of their own, up to what all share."""
    walk = _Walk(policy, size, "")
    later = Later(tuple(False for _ in closed.jaxpr.outvars))
    cloud = Cloud.begin(size, twisted=True)
    outs, cloud, _ = walk.run(closed.jaxpr, closed.consts, args, cloud, scope, track=False, later=later)
    return outs, cloud.log_weight


def _lineage(y_kinds, inside, at_end, size: int, *, reverse: bool):
    """``[T, n]``: the member of each step that each member descends from at the end of the scan; None if it is itself.

    Traces the lineages backwards, so that T steps cost O(n T): ``inside`` and ``at_end`` say how each step
    reindexed the population before and after it gave its outputs.
    """
    if not any(y_kinds) or (inside is None and at_end is None):
        return None

    def back(index, moves):
        inside, at_end = moves
        here = _compose(at_end, index)
        return _compose(inside, here), here

    own = jnp.arange(size, dtype=jnp.int32)
    return lax.scan(back, own, (inside, at_end), reverse=not reverse)[1]


def _along(y, lineage):
    """Each step's output in the order of the members that descend from its."""
    return jax.vmap(lambda y, index: jnp.take(y, index, axis=0, mode="clip"))(y, lineage)


def _repeat(y, size: int):
    """What a scan stacks for all members, with a member axis after that of its steps."""
    return jnp.broadcast_to(y[:, None], (y.shape[0], size, *y.shape[1:]))


def _slice(x, index) -> Members:
    """A step's slice of what a scan runs over, for the members that there are by now."""
    return Members(x if index is None else jnp.take(x, index, axis=0, mode="clip"))


def _of_all(x):
    """A value that is the same for all members, in whatever kind."""
    return rows(x, 1)[0]


def _unrecorded(*operands, site: Site) -> list:
    return jax.tree.leaves(site.map(lambda effect: effect.value, operands))


def _compose(first, then):
    """The reindexing by ``first`` followed by that by ``then`` (None: the identity)."""
    if first is None or then is None:
        return first if then is None else then
    return jnp.take(first, then, axis=0, mode="clip")


def _log_potential(effect: Effect):
    return (
        effect.log_potential
        if effect.present is None
        else jnp.where(effect.present, effect.log_potential, 0.0)
    )


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
