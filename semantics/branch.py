"""The extend policy of enumeration: at each site, a member for every value of its support."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ..ppl import UnsupportedError
from ..ppl.effects import Effect, Site
from ..ppl.laws import without_event
from ..ppl.members import Kind, map_members
from ..ppl.policy import Cloud, Extension
from ..ppl.staging import Staged


class TooManyRuns(UnsupportedError):
    """A finite program has more runs than are allowed."""


class Branch:
    """Members branch into one for every value of a site's support, and are never reduced.

    Args:
      prune: whether members without weight end. Their number must then be known, so this cannot run inside ``jit``.
      most: the most members that there may be.
    """

    moves = False
    records = False
    suspends_for_all = False
    draws = Kind.MEMBERS
    ahead = None
    behind = None

    def __init__(self, *, prune: bool, most: int):
        self.prune = prune
        self.most = most

    def grows(self, site: Site) -> bool:
        return True

    def room(self, eqn, values, size: int, apart: bool, stacks: bool) -> int | None:
        return None

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        support = self.support(site, operands)
        size = cloud.log_weight.shape[0]
        value, log_mass = map_members(lambda *xs: outcomes(site, xs, support), operands, size)
        count = log_mass.shape[1]
        value = value.reshape(size * count, *value.shape[2:])
        if self.prune:
            possible = (log_mass != -jnp.inf) & (cloud.log_weight != -jnp.inf)[:, None]
            alive = np.flatnonzero(np.asarray(possible))
            self._check_size(site, len(alive))
            kept = np.resize(alive, _rounded_up(len(alive))) if len(alive) else np.zeros(1, int)
            weight = jnp.where(np.arange(len(kept)) < len(alive), log_mass.reshape(-1)[kept], -jnp.inf)
        else:
            self._check_size(site, size * count)
            kept, weight = np.arange(size * count), log_mass.reshape(-1)
        return Extension(value[kept], weight, jnp.asarray(kept // count, jnp.int32))

    def support(self, site: Site, operands) -> Callable:
        """From a distribution of the site to its values, ``[C, *batch, *event]``, and their log weights."""
        check_finite(site, operands)
        return support

    def reduce(self, address, cloud, final) -> None:
        return None

    def _check_size(self, site: Site, size: int) -> None:
        if size > self.most:
            raise TooManyRuns(
                f"enumeration has come to {size} runs at {site}, more than the {self.most} that are allowed: "
                "their number is the product of the sizes of the supports; sample some of the sites instead "
                "(inference.smc, inference.importance), or allow more where the function has most="
            )


def is_finite(staged: Staged) -> bool:
    """Whether every site of a program has finitely many values, and is reached a bounded number of times."""
    return all(
        not info.unbounded and has_finite_support(info.site.effect(info.operands).distribution)
        for info in staged.of_kind("sample")
    )


def has_finite_support(d: Distribution) -> bool:
    return bool(getattr(without_event(d), "has_enumerate_support", False))


def _rounded_up(size: int) -> int:
    """The next power of 16. Members of weight zero make up the difference: few shapes, few compilations."""
    return 16 ** -(-max(size - 1, 1).bit_length() // 4)


def support(d: Distribution):
    """The values of a distribution, ``[C, *batch, *event]``, and their log weights, ``[C, *batch]``."""
    values = d.enumerate_support(expand=True)
    return values, d.enumerate_log_probs() if hasattr(d, "enumerate_log_probs") else d.log_prob(values)


def outcomes(site: Site, operands, support: Callable = support):
    """Every value of a site, ``[C, *shape]``, and its log weight: for independent copies, every combination."""

    def of_one(effect: Effect):
        d = without_event(effect.distribution)
        values, log_mass = support(d)
        if effect.present is not None:  # one outcome, whatever it is, where the site is not reached
            first = jnp.arange(log_mass.shape[0]) == 0
            first = first.reshape(-1, *(1,) * (log_mass.ndim - 1))
            log_mass = jnp.where(effect.present, log_mass, jnp.where(first, 0.0, -jnp.inf))
        batch = len(d.batch_shape)  # independent copies within the distribution: axes like those of vmap
        return jnp.moveaxis(values, 0, batch), jnp.moveaxis(log_mass, 0, batch)

    values, log_mass = site.map(of_one, list(map(_widened, operands)))
    *shape, count = log_mass.shape
    copies = int(np.prod(shape))
    choice = np.array(list(itertools.product(range(count), repeat=copies)), int).reshape(
        -1 if copies else 1, copies
    )
    values = values.reshape(copies, count, *values.shape[len(shape) + 1 :])
    log_mass = log_mass.reshape(copies, count)
    combined = values[np.arange(copies), choice]
    total = log_mass[np.arange(copies), choice].sum(-1)
    return combined.reshape(len(choice), *shape, *values.shape[2:]), total


def check_finite(site: Site, operands) -> None:
    d = site.effect(operands).distribution
    if not has_finite_support(d):
        raise UnsupportedError(
            f"{site} has a {type(without_event(d)).__name__}, whose support is not finite: the meaning of the program "
            "is not a finite measure; replace it by a discrete distribution, or approximate it by quadrature "
            "(semantics.meaning has quadrature=)"
        )


def _widened(x):
    """Parameters in the default precision, float64 where it is enabled."""
    return jnp.asarray(x, float) if jnp.issubdtype(x.dtype, jnp.floating) else x
