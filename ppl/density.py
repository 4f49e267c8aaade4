"""log_density: the density of a whole program at given choices."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .choices import Masked
from .effects import Effect, Site, log_prob
from .given import check_given, check_support
from .interpreter import Handler, interpret
from .staging import stage
from .weigh import weigh_site


def log_density(program: Callable) -> Callable:
    """``(choices, *args) -> log density`` of the program at these choices: a scalar, deterministic.

    The density is with respect to the product of the sites' base measures, factors and observations included:
    ``sum over sites of log d(value) + sum of factors``. It is minus infinity where a value is outside its
    site's support, or where choices name a site of a branch that is not taken (or the reverse).

    Raises:
      AddressError: a site without a value, or a value without a site.
      ChoiceError: a wrong shape or dtype; a concrete value outside the support.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.sample("x", dist.Exponential(1.0))
    >>> float(ppl.log_density(model)({"x": 2.0}))
    -2.0
    """

    def density(choices, *args, **kwargs):
        staged = stage(program, *args, **kwargs)
        given = check_given(staged, choices, complete=True)
        _, total, reached = interpret(staged, _Density(), jnp.zeros((), float), given)
        return total + sum(unreached(given[address], record) for address, record in reached.items())

    return density


class _Density(Handler):
    """State: the log density so far. Records where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, total):
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), total, None
        if kind != "sample":
            outs, increment = weigh_site(kind, site, operands)
            return outs, total + increment.astype(total.dtype), None
        total = total + score(site, operands, given).astype(total.dtype)
        if isinstance(given, Masked):
            return [given.value], total, reach(site, operands, given)
        return [given], total, None


def score(site: Site, operands, given):
    """The log density of a ``sample`` site at its choice, a scalar. Where the site is reached but the choice is not
    present there is no such trace: minus infinity."""
    if not isinstance(given, Masked):
        check_support(site, operands, given)
        return site.log_prob(operands, given)

    def term(effect: Effect, value, chosen):
        log_density = jnp.where(chosen, log_prob(effect.distribution, value), -jnp.inf)
        return log_density if effect.present is None else jnp.where(effect.present, log_density, 0.0)

    return site.sum(term, operands, given.value, given.present)


def reach(site: Site, operands, given: Masked) -> Masked:
    """The choice, marked by where its site is reached."""
    here = True if site.present(operands) is None else site.present(operands)
    return Masked(given.value, jnp.broadcast_to(here, given.present.shape))


def unreached(given: Masked, reached: Masked):
    """The log density of a choice that is present where no branch taken has its site: no such trace exists."""
    return jnp.where(jnp.any(given.present & ~reached.present), -jnp.inf, 0.0)
