"""What a site adds to a program's log density, as a jaxpr."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from ...ppl import compat
from ...ppl.effects import Effect, Site, log_prob_formula
from ...ppl.weigh import weigh_site


def density_term(kind: str, site: Site, shapes: Sequence) -> compat.ClosedJaxpr:
    """``(*operands) -> log density``; for a ``sample`` site ``(*operands, value, within) -> log density``.

    The formula is taken at ``value``, and whether it lies in the support is asked of ``within``. Both are the value of
    the site; told apart, they tell a support that moves with other values from the value's own way out of it.

    Args:
      shapes: those of the operands, and of the value.
    """

    def drawn(*leaves):
        *operands, value = leaves[:-1]
        return site.sum(_log_prob, operands, value, leaves[-1])

    if kind == "sample":
        return jax.make_jaxpr(drawn)(*shapes, shapes[-1])
    return jax.make_jaxpr(lambda *operands: weigh_site(kind, site, operands)[1])(*shapes)


def support_ends(site: Site, shapes: Sequence) -> compat.ClosedJaxpr:
    """``(*operands) -> (least, greatest)``: between which numbers the elements of a site's value lie."""
    return jax.make_jaxpr(lambda *operands: site.map(_ends, operands))(*shapes)


def _log_prob(effect: Effect, value, within):
    d = effect.distribution
    total = log_prob_formula(d, value)
    if d.support is not None:
        total = jnp.where(jnp.all(d.support(within)), total, -jnp.inf)
    return total if effect.present is None else jnp.where(effect.present, total, 0.0)


def _ends(effect: Effect):
    support = effect.distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if type(support) is type(constraints.simplex):
        return 0.0, 1.0
    least, greatest = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
    return -jnp.inf if least is None else least, jnp.inf if greatest is None else greatest
