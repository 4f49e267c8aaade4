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
from .staging import SiteInfo, Staged


def check_given(staged: Staged, choices: Mapping, *, complete: bool) -> dict[Address, Any]:
    """The choices as a flat dict of arrays, one for each site that they name.

    Args:
      choices: nested dicts keyed by address.
      complete: whether every ``sample`` site must be given.

    Raises:
      AddressError: an address that the program does not have, or that it observes; a missing one.
      ChoiceError: a wrong shape or dtype.
    """
    flat = flatten(choices)
    sites = {
        info.address: replace(info, optional=info.address in staged.optional)
        for info in staged.of_kind("sample")
    }
    for address in flat:
        if address not in sites:
            raise AddressError(_unknown(address, sites, staged))
    missing = [info for address, info in sites.items() if address not in flat]
    if complete and missing:
        raise AddressError(f"no value given for {', '.join(map(str, missing))}: every site needs one here")
    return {address: _checked(sites[address], value) for address, value in flat.items()}


def check_support(site: Site, operands, value) -> None:
    """Raises ChoiceError if a concrete value lies outside the support of the site's distribution.

    Under ``jit`` values are not known when this runs; there the density is minus infinity instead.
    """
    if any(isinstance(x, jax.core.Tracer) for x in [*operands, *jax.tree.leaves(value)]):
        return

    def outside(effect, value):
        support = effect.distribution.support
        inside = True if support is None else jnp.all(support(value))
        return jnp.where(True if effect.present is None else effect.present, ~jnp.asarray(inside), False)

    with jax.ensure_compile_time_eval():
        is_outside = site.sum(outside, operands, value) > 0
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
    known = [spell(known) for known in sites]
    listing = ", ".join(map(repr, known)) or "none"
    return (
        f"the program has no site {spell(address)!r}{did_you_mean(spell(address), known)}; it has {listing}"
    )


def _checked(info: SiteInfo, value):
    if info.unbounded:
        raise UnsupportedError(f"{info} is inside a while_loop: it has no fixed number of values to give")
    if isinstance(value, Masked):
        if not info.optional:
            raise ChoiceError(f"{info} is in every branch: give its value, not a Masked one")
        present = _as_array(info, value.present, info.present_shape, jnp.dtype(bool))
        return Masked(_as_array(info, value.value, info.shape, info.dtype), present)
    array = _as_array(info, value, info.shape, info.dtype)
    return Masked(array, np.ones(info.present_shape, bool)) if info.optional else array


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
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)  # numpy arrays stay what they are: known, even while a program is traced
    known = not isinstance(array, jax.core.Tracer)
    if known and np.issubdtype(dtype, np.integer) and np.any(np.asarray(array) != np.asarray(cast)):
        raise ChoiceError(f"the value given for {info} does not fit into {dtype}: {value!r}")
    return cast
