"""From a program (a Python function) to its jaxpr, and what can be read off the jaxpr before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat
from .choices import Address, spell, unmasked
from .compat import scopes_of
from .effects import Site, effect_primitives, sample_p
from .errors import AddressError, UnsupportedError
from .leaks import leaked, refuse_leaks

# Every call-like primitive, and the parameter that holds the function it calls.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}


@dataclass(frozen=True)
class Staged:
    """A program traced at some arguments.

    Attributes:
      jaxpr: its closed jaxpr, over the array leaves of the arguments.
      leaves: those leaves.
      out_tree: the pytree structure of what it returns.
      sites: its sites, in program order.
    """

    jaxpr: compat.ClosedJaxpr
    leaves: list
    out_tree: Any
    sites: tuple[SiteInfo, ...]

    def value(self, outs):
        outs = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in outs]  # literals
        return jax.tree.unflatten(self.out_tree, outs)

    @property
    def optional(self) -> set[Address]:
        """The addresses that some branch lacks."""
        return addresses(info for info in self.sites if info.optional)

    def unmasked(self, records: Mapping[Address, Any]) -> dict[Address, Any]:
        """Records of sites, those that every branch has without their masks."""
        optional = self.optional
        return {a: x if a in optional else unmasked(x) for a, x in records.items()}

    def refuse_estimates(self, why: str) -> None:
        """Refuses a program of which a density is only an estimate; ``why`` is a sentence.

        Raises:
          UnsupportedError: it is such a program.
        """
        for info in self.sites:
            if info.is_estimated:
                raise UnsupportedError(
                    f"the density of {info} is only an estimate. {why}; give its program an exact algorithm, such as "
                    "inference.enumerate"
                )

    def of_kind(self, *kinds: str) -> list[SiteInfo]:
        return [info for info in self.sites if info.kind in kinds]

    @property
    def weights(self) -> list[SiteInfo]:
        """The factors and observations."""
        return [info for info in self.of_kind("factor", "observe") if not info.is_twist]


@dataclass(frozen=True)
class SiteInfo:
    """What is known of a site before anything runs.

    Attributes:
      kind: "sample", "observe", "factor" or "deterministic".
      address: its full address.
      site: its static description.
      shape, dtype: of its value, with a leading axis for each enclosing scan and vmap (None for a factor).
      operands: the shapes of its effect's leaves.
      optional: whether some branch lacks it.
      unbounded: whether it is inside a ``while_loop``, so that it has no fixed number of values.
      present_shape: the shape of ``Masked.present`` if it is optional: one axis per enclosing scan and vmap.
    """

    kind: str
    address: Address
    site: Site
    shape: tuple[int, ...] | None
    dtype: Any
    operands: tuple[Any, ...]
    optional: bool = False
    unbounded: bool = False
    present_shape: tuple[int, ...] = ()

    @property
    def is_estimated(self) -> bool:
        """Whether the density of its distribution is only an estimate."""
        return getattr(self.site.effect(self.operands).distribution, "is_estimated", False)

    @property
    def is_twist(self) -> bool:
        """Whether it is a factor of one, that advises those who resample."""
        return self.site.effect(self.operands).log_potential is not None

    def __str__(self) -> str:
        return f"{spell(self.address)!r} ({self.site.source})"


def stage(program: Callable, *args, **kwargs) -> Staged:
    """Traces a program. Array leaves of the arguments are traced; any other leaf is static.

    Raises:
      AddressError: two sites have one address.
      LeakError: the program uses a value of a run, or of a part of one, that is over.
      TypeError: the program returns something that is not a pytree of arrays.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    traced = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]
    arrays = [leaf for leaf, is_array in zip(leaves, traced) if is_array]

    def flat_program(*arrays):
        it = iter(arrays)
        filled = [next(it) if is_array else leaf for leaf, is_array in zip(leaves, traced)]
        args, kwargs = jax.tree.unflatten(tree, filled)
        return program(*args, **kwargs)

    try:
        closed, shape = jax.make_jaxpr(flat_program, return_shape=True)(*arrays)
    except jax.errors.UnexpectedTracerError as error:
        raise leaked(error) from error
    refuse_leaks((*arrays, *closed.consts))
    sites = tuple(survey(closed.jaxpr))
    _check_addresses(sites)
    return Staged(closed, arrays, jax.tree.structure(shape), sites)


def has_effects(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation is a site or contains one."""
    if eqn.primitive in effect_primitives:
        return True
    return any(map(jaxpr_has_effects, compat.inner_jaxprs(eqn)))


def jaxpr_has_effects(jaxpr: compat.Jaxpr) -> bool:
    return any(map(has_effects, jaxpr.eqns))


def count_draws(jaxpr: compat.Jaxpr) -> int:
    """How many states a handler that divides its state needs for a jaxpr: one for each sample site, and one for each
    loop or cond that has some."""
    count = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive is sample_p:
            count += 1
        elif (called := called_jaxpr(eqn)) is not None:
            count += count_draws(called.jaxpr)
        else:
            count += any(map(count_draws, compat.inner_jaxprs(eqn)))
    return count


def called_jaxpr(eqn: compat.JaxprEqn) -> compat.ClosedJaxpr | None:
    """The function that a call-like equation calls, closed; None for other equations."""
    parameter = CALLS.get(eqn.primitive.name)
    if parameter is None:
        return None
    called = eqn.params[parameter]
    return called if isinstance(called, compat.ClosedJaxpr) else compat.ClosedJaxpr(called, ())


def survey(jaxpr: compat.Jaxpr, scope: Address = ()) -> Iterator[SiteInfo]:
    """The sites of a jaxpr, with their full addresses and shapes."""
    for eqn in jaxpr.eqns:
        inner = (*scope, *scopes_of(eqn))
        name = eqn.primitive.name
        if eqn.primitive in effect_primitives:
            site = eqn.params["site"].under(inner)
            aval = eqn.outvars[0].aval if eqn.outvars else None
            yield SiteInfo(
                name,
                site.name,
                site,
                aval and aval.shape,
                aval and aval.dtype,
                tuple(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars),
                optional=any(guard.optional for guard in site.guards),
                present_shape=tuple(axis.size for axis in site.axes),
            )
        elif not has_effects(eqn):
            continue
        elif called_jaxpr(eqn) is not None:
            yield from survey(called_jaxpr(eqn).jaxpr, inner)
        elif name == "scan":
            lengthen = partial(_lengthen, length=eqn.params["length"])
            yield from map(lengthen, survey(eqn.params["jaxpr"].jaxpr, inner))
        elif name == "cond":
            yield from union([list(survey(branch.jaxpr, inner)) for branch in eqn.params["branches"]])
        elif name == "while":
            for part in ("cond_jaxpr", "body_jaxpr"):
                for info in survey(eqn.params[part].jaxpr, inner):
                    yield replace(info, unbounded=True)
        else:
            raise unsupported(eqn)


def union(branches: list[list[SiteInfo]]) -> Iterator[SiteInfo]:
    """The sites of several branches of which one runs. An address that some branch may lack is optional."""
    common = set.intersection(*(set(map(identity, branch)) for branch in branches))
    optional = {identity(info) for branch in branches for info in branch if info.optional}
    first: dict[tuple[Address, bool], tuple[int, SiteInfo]] = {}
    for index, branch in enumerate(branches):
        for info in branch:
            seen_in, seen = first.setdefault(identity(info), (index, info))
            if info.kind == "factor" or seen_in == index:
                may_lack = identity(info) in optional or identity(info) not in common
                yield replace(info, optional=may_lack)
            elif (info.kind, info.shape, info.dtype) != (seen.kind, seen.shape, seen.dtype):
                raise _disagreement(seen, info)


def identity(info: SiteInfo) -> tuple[Address, bool]:
    """What tells sites apart: a factor is never the site whose name it has."""
    return info.address, info.kind == "factor"


def addresses(infos: Iterable[SiteInfo]) -> set[Address]:
    """The addresses of sites. Factors have none: their names are for messages, and may be those of sites."""
    return {info.address for info in infos if info.kind != "factor"}


def exclusive(one: Site, other: Site) -> bool:
    """Whether two sites were in different branches of one cond."""
    branch_of = {guard.token: guard.branch for guard in one.guards}
    return any(branch_of.get(guard.token, guard.branch) != guard.branch for guard in other.guards)


def unsupported(eqn: compat.JaxprEqn) -> UnsupportedError:
    """The refusal of a JAX construct that contains sites and that the walk does not know."""
    site = next(sites_within(eqn))
    return UnsupportedError(
        f"site {site} lies inside {eqn.primitive.name!r}, which borelax does not walk; move it out of there "
        "(scan, cond, switch, while_loop, vmap, jit, remat and custom derivatives are supported)"
    )


def sites_within(eqn: compat.JaxprEqn) -> Iterator[Site]:
    """The sites anywhere in an equation, under their own names, whatever the equation is."""
    if eqn.primitive in effect_primitives:
        yield eqn.params["site"]
    for jaxpr in compat.inner_jaxprs(eqn):
        for inner in jaxpr.eqns:
            yield from sites_within(inner)


def _check_addresses(sites: tuple[SiteInfo, ...]) -> None:
    seen: dict[Address, SiteInfo] = {}
    for info in sites:
        if info.kind == "factor":
            continue
        other = seen.setdefault(info.address, info)
        # A transformed while_loop meets the sites of its condition once before it begins: one site in two places.
        unrolled = info.unbounded and other.site.source == info.site.source
        if other is not info and not unrolled and not exclusive(other.site, info.site):
            raise AddressError(
                f"two sites have the address {spell(info.address)!r}: {other.site.source} and "
                f"{info.site.source}; rename one, or put one under ppl.scope"
            )
        if (info.kind, info.shape, info.dtype) != (other.kind, other.shape, other.dtype):
            raise _disagreement(other, info)
    for address, info in seen.items():
        for length in range(1, len(address)):
            if address[:length] in seen:
                raise AddressError(
                    f"{spell(address[:length])!r} is a site ({seen[address[:length]].site.source}) and also "
                    f"the scope of {info}; rename one of them"
                )


def _disagreement(one: SiteInfo, other: SiteInfo) -> AddressError:
    return AddressError(
        f"the branches of one cond disagree on {spell(one.address)!r}: {_describe(one)} and {_describe(other)}; give "
        "the sites different names"
    )


def _lengthen(info: SiteInfo, length: int) -> SiteInfo:
    if info.shape is None:
        return info
    return replace(info, shape=(length, *info.shape), present_shape=(length, *info.present_shape))


def _describe(info: SiteInfo) -> str:
    return f"{info.kind} {info.dtype}{list(info.shape)} at {info.site.source}"
