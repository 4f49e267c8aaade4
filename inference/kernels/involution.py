"""Involutions: maps on choices that are their own inverse, and what they do to volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ...ppl import ChoiceError, Masked
from ...ppl.choices import Address, align, flatten, nest, spell
from ...ppl.staging import SiteInfo
from .lebesgue import check_lebesgue, is_discrete

SIDES = ("choices", "auxiliary")


def involute(involution: Callable, point: tuple[Mapping, Mapping], sites: Mapping[Address, SiteInfo]):
    """Moves a point by an involution: ``(image, log_volume)``.

    A value that only some branches have counts where it is present. The log volume is ``log |det d image / d point|``
    over the continuous values; it is minus infinity, so that there is no such move, where point and image do not have
    equally many of them, and where the involution, applied to the image, does not give the point again.

    Args:
      involution: ``(choices, auxiliary) -> (choices, auxiliary)``, on nested choices.
      point: such a pair.
      sites: what is known of each site, by its address under "choices" or "auxiliary".

    Raises:
      ChoiceError: the image has other sites, shapes or dtypes than the point.
      UnsupportedError: a continuous value that changes has no density over R^n.
    """
    before = _flat(point)
    leaves, tree = jax.tree.flatten(before)

    def move(leaves) -> list:
        choices = jax.tree.unflatten(tree, leaves)
        return jax.tree.leaves(_checked(_flat(involution(*_pair(choices))), before, sites))

    image = jax.tree.unflatten(tree, move(leaves))
    again = jax.tree.unflatten(tree, move(jax.tree.leaves(image)))
    moved = [address for address in _moved(move, leaves, tree) if not is_discrete(sites[address])]
    for address in moved:
        check_lebesgue(sites[address])
    log_volume = _log_volume(move, before, image, moved)
    return _pair(image), jnp.where(_same(again, before), log_volume, -jnp.inf)


def _log_volume(move: Callable, before: Mapping, image: Mapping, addresses: list[Address]):
    """``log |det|`` of the Jacobian between the numbers that are present at these addresses."""
    if not addresses:
        return jnp.zeros((), float)
    tree = jax.tree.structure(before)
    start, separate = ravel_pytree([_value(before[a]) for a in addresses])

    def numbers(x):
        changed = {a: _with_value(before[a], value) for a, value in zip(addresses, separate(x))}
        after = jax.tree.unflatten(tree, move(jax.tree.leaves({**before, **changed})))
        return ravel_pytree([_value(after[a]) for a in addresses])[0]

    jacobian = jax.jacfwd(numbers)(start)
    rows, columns = (ravel_pytree([_present(x[a]) for a in addresses])[0] for x in (image, before))
    # What is present comes first, in rows and columns; the rest of the matrix is made that of the identity.
    ordered = jacobian[jnp.argsort(~rows)][:, jnp.argsort(~columns)]
    first = jnp.arange(rows.size) < rows.sum()
    square = jnp.where(first[:, None] & first, ordered, jnp.eye(rows.size, dtype=ordered.dtype))
    return jnp.where(rows.sum() == columns.sum(), jnp.linalg.slogdet(square)[1], -jnp.inf)


def _moved(move: Callable, leaves: list, tree) -> list[Address]:
    """The addresses whose values the involution may change: all but those that it hands on."""
    jaxpr = jax.make_jaxpr(move)(leaves).jaxpr
    handed_on = jax.tree.unflatten(tree, [x is y for x, y in zip(jaxpr.invars, jaxpr.outvars)])
    return [address for address, same in handed_on.items() if not jax.tree.all(same)]


def _same(one: Mapping, other: Mapping):
    """Whether two points are equal where they are present, up to rounding."""

    def equal(x, y):
        x, y, here = _value(x), _value(y), _present(y)
        if jnp.issubdtype(y.dtype, jnp.inexact):
            near = jnp.abs(x - y) <= jnp.finfo(y.dtype).eps ** 0.5 * (1 + jnp.abs(y))
        else:
            near = x == y
        return jnp.all(near | ~here)

    values = [equal(one[a], other[a]) for a in other]
    presences = [jnp.all(_present(one[a]) == _present(other[a])) for a in other]
    return jnp.all(jnp.array([*values, *presences]))


# ------------------------------------------------------------------------- points


def _flat(point) -> dict[Address, Any]:
    """The choices of both sides, each under the name of its side."""
    if not isinstance(point, tuple) or len(point) != len(SIDES):
        raise ChoiceError(
            f"an involution returns a pair, new choices and new auxiliary choices; this one returns {point!r}"
        )
    flat = {(side, *a): x for side, choices in zip(SIDES, point) for a, x in flatten(choices).items()}
    return jax.tree.map(jnp.asarray, flat)


def _pair(flat: Mapping[Address, Any]) -> tuple[dict, dict]:
    nested = nest(flat)
    return tuple(nested.get(side, {}) for side in SIDES)


def _checked(image: dict[Address, Any], before: Mapping, sites: Mapping[Address, SiteInfo]) -> dict:
    """The image, if it has the sites, shapes and dtypes of the point."""
    for address in image.keys() ^ before.keys():
        what = "lost" if address in before else "made"
        raise ChoiceError(f"the involution has {what} {spell(address)!r}: it must keep all sites")
    for address, x in image.items():
        old, new = (jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), y) for y in (before[address], x))
        if old != new:
            raise ChoiceError(
                f"the involution gives {sites[address]} a value of shape and dtype {new}, instead of {old}: it must "
                "keep them"
            )
    return image


def _value(x):
    return x.value if isinstance(x, Masked) else x


def _present(x):
    """For each number, whether it is present."""
    here = align(x.present, x.value) if isinstance(x, Masked) else True
    return jnp.broadcast_to(here, jnp.shape(_value(x)))


def _with_value(x, value):
    return Masked(value, x.present) if isinstance(x, Masked) else value
