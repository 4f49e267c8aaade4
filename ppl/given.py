"""Checks of the choices that a user gives, against the sites of the program, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .choices import Address, Masked, flatten, spell
from .effects import Site
from .errors import AddressError, ChoiceError, UnsupportedError, did_you_mean
from .leaks import refuse_leaks
from .partly import Partly, Prefix, event_dim, is_supported
from .random_key import refuse_keys
from .staging import SiteInfo, Staged


def check_given(
    staged: Staged, choices: Mapping, *, complete: bool, partial: bool = False
) -> dict[Address, Any]:
    """The choices as a flat dict of arrays, :class:`Masked` and :class:`Partly`, one for each site that they name.

    Args:
      choices: nested dicts keyed by address.
      complete: whether every ``sample`` site must be given.
      partial: whether a choice may be known in part.

    Raises:
      AddressError: an address that the program does not have, or that it observes; a missing one.
      ChoiceError: a wrong shape or dtype.
      LeakError: a choice is a value of a run that is over.
      UnsupportedError: a site draws a PRNG key, or is inside a while_loop.
    """
    flat = flatten(choices)
    refuse_leaks(jax.tree.leaves(flat))
    sites = {
        info.address: replace(info, optional=info.address in staged.optional)
        for info in staged.of_kind("sample")
    }
    for address in flat:
        if address not in sites:
            raise AddressError(_unknown(address, sites, staged))
    refuse_keys(info for address, info in sites.items() if complete or address in flat)
    missing = [info for address, info in sites.items() if address not in flat]
    if complete and missing:
        raise AddressError(f"no value given for {', '.join(map(str, missing))}: every site needs one here")
    given = {}
    for address, value in flat.items():
        if isinstance(value, Partly | Prefix) and not partial:
            raise ChoiceError(f"{sites[address]} needs a whole value here, not one that is known in part")
        given[address] = _checked(sites[address], value)
    return given


def check_support(site: Site, operands, value, known=None) -> None:
    """Raises ChoiceError if a concrete value lies outside the support of the site's distribution.

    Args:
      known: which elements of the value count; all if None.

    Under ``jit`` values are not known when this runs; there the density is minus infinity instead.
    """
    if any(isinstance(x, jax.core.Tracer) for x in [*operands, *jax.tree.leaves((value, known))]):
        return

    def outside(effect, value, known):
        inside = is_supported(effect.distribution, value, known)
        return jnp.where(True if effect.present is None else effect.present, ~inside, False)

    with jax.ensure_compile_time_eval():
        is_outside = site.sum(outside, operands, value, known) > 0
    if is_outside:
        d = site.effect(operands).distribution
        raise ChoiceError(
            f"the value given for {site} is outside the support of {type(d).__name__} "
            f"({type(d.support).__name__.strip('_').lower()}): {np.asarray(value)}"
        )


def _unknown(address: Address, sites: Mapping[Address, SiteInfo], staged: Staged) -> str:
    others = {info.address: info for info in staged.of_kind("observe", "deterministic")}
    if address in others:
        what = {"observe": "already observed", "deterministic": "computed, not sampled"}
        return f"{others[address]} is {what[others[address].kind]}: it cannot be given a value"
    if any(known[: len(address)] == address for known in sites):
        return f"{spell(address)!r} is a scope, not a site: give a dict of its sites"
    near = did_you_mean(spell(address), map(spell, sites))
    listing = ", ".join(map(str, sites.values())) or "none"
    return f"the program has no site {spell(address)!r}{near}; it has {listing}"


def _checked(info: SiteInfo, value):
    if info.unbounded:
        raise UnsupportedError(f"{info} is inside a while_loop: it has no fixed number of values to give")
    if isinstance(value, Partly | Prefix):
        partly = _checked_partly(info, value)
        within = tuple(range(len(info.present_shape), partly.known.ndim))
        return Masked(partly, partly.known.any(within)) if info.optional else partly
    if isinstance(value, Masked):
        if not info.optional:
            raise ChoiceError(f"{info} is in every branch: give its value, not a Masked one")
        present = _as_array(info, value.present, info.present_shape, jnp.dtype(bool))
        return Masked(_as_array(info, value.value, info.shape, info.dtype), present)
    array = _as_array(info, value, info.shape, info.dtype)
    return Masked(array, np.ones(info.present_shape, bool)) if info.optional else array


def _checked_partly(info: SiteInfo, given: Partly | Prefix) -> Partly:
    """The value and which of its elements are known, in full shape."""
    own = event_dim(info.site.effect(info.operands).distribution)
    element_shape = info.shape[: len(info.shape) - own]
    if isinstance(given, Prefix):
        steps = np.shape(given.value)[:1]
        if not element_shape or not steps or steps[0] > info.shape[0]:
            raise ChoiceError(
                f"{info} has shape {info.shape}: a prefix of it has a first axis of at most that length, but one of "
                f"shape {np.shape(given.value)} was given"
            )
        value = _as_array(info, given.value, (*steps, *info.shape[1:]), info.dtype)
        rest = [(0, info.shape[0] - steps[0]), *((0, 0) for _ in info.shape[1:])]
        known = np.zeros(element_shape, bool)
        known[: steps[0]] = True
        return Partly(jnp.pad(value, rest), known)
    value = _as_array(info, given.value, info.shape, info.dtype)
    if given.known is not None:
        return Partly(value, _as_array(info, given.known, element_shape, jnp.dtype(bool)))
    # In numpy where the value is known, so that it stays known while a program is traced.
    traced = isinstance(given.value, jax.core.Tracer)
    missing = jnp.isnan(value) if traced else np.isnan(np.asarray(given.value))
    event = tuple(range(len(element_shape), value.ndim))
    known = ~missing.all(axis=event)
    in_part = missing.any(axis=event) & known
    if not traced and in_part.any():
        raise ChoiceError(
            f"{info} has events of shape {info.shape[len(element_shape) :]}, of which some are missing only in part; "
            "an event of a multivariate distribution is known as a whole or not at all"
        )
    return Partly(value, known)


def _as_array(info: SiteInfo, value, shape: tuple[int, ...], dtype):
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        numeric = array.dtype != object
    except (TypeError, ValueError):
        numeric = False
    if not numeric:
        raise ChoiceError(f"the value given for {info} is not an array: {value!r}")
    if array.shape != shape:
        raise ChoiceError(
            f"{info} has shape {shape} (a leading axis for each enclosing scan and vmap), "
            f"but a value of shape {array.shape} was given"
        )
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ChoiceError(f"{info} has dtype {dtype}, but a value of dtype {array.dtype} was given")
    if isinstance(array, jax.core.Tracer):
        return array.astype(dtype)
    if array.dtype == dtype and not getattr(array, "weak_type", False):
        return array
    known = np.asarray(array)  # in numpy, so that it stays known while a program is traced
    with np.errstate(over="ignore", invalid="ignore"):
        cast = known.astype(dtype)
    if np.issubdtype(dtype, np.integer) and np.any(known != cast):
        raise ChoiceError(f"the value given for {info} does not fit into {dtype}: {value!r}")
    return cast
