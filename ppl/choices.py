"""Addresses and choices: nested dicts of arrays, keyed by address.

Inside the library choices are flat dicts keyed by address tuples; users see nested dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .errors import AddressError
from .summary import type_of, values_of

Address = tuple[str, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Masked:
    """The value of a site that only some branches have.

    Attributes:
      value: the value, meaningless where ``present`` is false.
      present: bool, with an axis for each scan and vmap around the site; whether the site was reached.

    >>> Masked(jnp.array([1.0, 0.0, 2.0]), jnp.array([True, False, True]))
    Masked(float32[3]: 1, –, 2)
    """

    value: Any
    present: Any

    def __or__(self, other: Masked) -> Masked:
        """The union of two choices of which at most one is present."""
        pick = lambda x, y: jnp.where(align(self.present, x), x, y)  # noqa: E731
        value = jax.tree.map(pick, self.value, other.value)
        return Masked(value, jnp.logical_or(self.present, other.present))

    def __repr__(self) -> str:
        values = values_of(self.value, self.present)
        if not values:
            return f"Masked(value={self.value!r}, present={self.present!r})"
        return f"Masked({type_of(self.value)}: {values})"


def unmasked(record):
    """The value of a site that every branch has: always present, even if its parts were recorded branch by branch."""
    return record.value if isinstance(record, Masked) else record


def align(flag, value):
    """``flag`` with trailing unit axes, so that it broadcasts against ``value``."""
    flag = jnp.asarray(flag)
    return flag.reshape(flag.shape + (1,) * (jnp.ndim(value) - flag.ndim))


def spell(address: Address) -> str:
    """An address as people write it: ``"block/x"``."""
    return "/".join(address)


def flatten(choices: Mapping) -> dict[Address, Any]:
    """Nested dicts to a flat dict keyed by address tuples.

    >>> flatten({"block": {"x": 1.0}, "y": 2.0})
    {('block', 'x'): 1.0, ('y',): 2.0}
    """
    if not isinstance(choices, Mapping):
        raise TypeError(
            f"choices are nested dicts keyed by address, got {type(choices).__name__}; "
            'write {"x": value}, or {"scope": {"x": value}} for a site under a scope'
        )
    flat = {}
    for key, value in choices.items():
        if not isinstance(key, str):
            raise TypeError(f"addresses are strings, got {key!r}")
        if isinstance(value, Mapping):
            if not value:
                raise AddressError(f"the scope {key!r} is given without any site in it; leave it out")
            flat.update({(key, *rest): leaf for rest, leaf in flatten(value).items()})
        else:
            flat[(key,)] = value
    return flat


def nest(flat: Mapping[Address, Any]) -> dict:
    """The inverse of :func:`flatten`.

    >>> nest({("block", "x"): 1.0, ("y",): 2.0})
    {'block': {'x': 1.0}, 'y': 2.0}
    """
    nested: dict = {}
    for address, value in flat.items():
        node = nested
        for part in address[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise AddressError(f"{spell(address)!r} lies under {part!r}, which is itself a site")
        if isinstance(node.get(address[-1]), dict):
            raise AddressError(f"{spell(address)!r} is a site, and also the scope of others")
        node[address[-1]] = value
    return nested
