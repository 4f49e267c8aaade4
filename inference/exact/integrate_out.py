"""integrate_out: a run of a program without one of its sites, which is integrated out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.distributions import Distribution

from ...ppl import AddressError, SiteError, compat
from ...ppl.choices import Address, spell
from ...ppl.errors import did_you_mean
from ...ppl.interpreter import Handler, interpret
from ...ppl.staging import SiteInfo, Staged, stage
from .conjugate_pairs import Pair, inside, log_density
from .conjugate_runs import Finish, Joint, Parameters, Residuals, Wait
from .conjugate_use import Conjugacy, conjugate_use
from .element_slopes import element_slopes
from .gaussian_posterior import gaussian_posterior


@dataclass(frozen=True)
class Integrated:
    """All of a program but one site.

    Attributes:
      info: the site.
      log_evidence: of the observations that depend on it, given all else.
      posterior: the law of its value given all else.
      value: one where the density is high.
      shown: what depends on its value and is no weight.
      finish: ``value -> result``: what the program returns and records with this value.
    """

    info: SiteInfo
    log_evidence: jax.Array
    posterior: Distribution
    value: jax.Array
    shown: tuple[str, ...]
    finish: Callable[[Any], Any]


def integrate_out(program: Callable, site: str, args: tuple, kwargs: Mapping) -> Integrated:
    """Runs a program, a site and the observations that depend on it left out.

    Raises:
      AddressError, UnsupportedError: as ``conjugate`` does.
    """
    staged = stage(program, *args, **kwargs)
    info = _site(staged, site)
    conjugacy = conjugate_use(staged, info)
    _, _, choices = interpret(staged, Wait(conjugacy), None)
    origin, *parameters = choices.pop(info.address)

    def run(value, handler: Handler):
        return interpret(staged, handler, jnp.zeros((), float), {**choices, info.address: value})

    def records(handler: Handler) -> Callable:
        """``value -> records``, without what they do not need, which may have no derivative."""
        closed, shape = jax.make_jaxpr(lambda value: run(value, handler)[2], return_shape=True)(origin)
        closed, tree = compat.needed(closed), jax.tree.structure(shape)
        return lambda value: jax.tree.unflatten(tree, compat.evaluate(closed, [value]))

    posterior, value, log_density_there = _posterior(conjugacy, origin, parameters, records)
    # Bayes' theorem, which has the evidence at every value, and the least to round away where the posterior is.
    joint = run(value, Joint(conjugacy))[1]
    return Integrated(
        info,
        jnp.where(joint == -jnp.inf, -jnp.inf, joint - log_density_there),
        posterior,
        value,
        conjugacy.shown,
        lambda value: run(value, Finish())[0],
    )


def _site(staged: Staged, site: str) -> SiteInfo:
    if not isinstance(site, str):
        raise SiteError(
            f"a site is given by its address, a string, and not {site!r}: for several sites, transform the program "
            "once for each"
        )
    address = tuple(site.split("/"))
    sites = {info.address: info for info in staged.of_kind("sample")}
    for info in staged.of_kind("observe"):
        if info.address == address:
            raise AddressError(f"{info} is observed, or conditioned on, so that there is no draw to replace")
    if address not in sites:
        known = list(map(spell, sites))
        raise AddressError(
            f"the program has no sample site {spell(address)!r}{did_you_mean(spell(address), known)}; it has "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    return sites[address]


def _posterior(conjugacy: Conjugacy, origin, parameters, records: Callable):
    """The law of the site's value given all else, a value where its density is high, and the log density there."""
    if conjugacy.prior.law is None:
        return gaussian_posterior(records(Residuals(conjugacy)), origin, conjugacy.elementwise)
    added = _statistics(conjugacy.pairs, origin, len(parameters), records(Parameters(conjugacy)))
    posterior = conjugacy.prior.law(*(x + more for x, more in zip(parameters, added)))
    value = lax.stop_gradient(inside(posterior))
    return posterior, value, log_density(posterior, value)


def _statistics(pairs: Mapping[Address, Pair], origin, count: int, look: Callable) -> list:
    """What the observations add to each of the prior's parameters, shaped like the site's value.

    A parameter of theirs is ``slope * element + constant``, and its statistics belong to that element.
    """

    def parameters(value):
        seen = look(value)
        return {a: parameter for a, (parameter, _) in seen.items()}, {a: t for a, (_, t) in seen.items()}

    slopes, elements, statistics = element_slopes(parameters, origin)
    added = [jnp.zeros(origin.size, origin.dtype) for _ in range(count)]
    for a, of_site in statistics.items():
        for i, (t, power) in enumerate(zip(of_site, pairs[a].powers)):
            sloped = t * slopes[a] ** power if power else jnp.where(slopes[a] == 0, 0.0, t)
            added[i] = added[i].at[elements[a]].add(sloped.astype(origin.dtype))
    return [x.reshape(origin.shape) for x in added]
