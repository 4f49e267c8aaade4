"""integrate_out: a run of a program without one of its sites, which is integrated out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.distributions import Distribution

from ...ppl import AddressError
from ...ppl.choices import Address, spell
from ...ppl.effects import log_prob_formula
from ...ppl.errors import did_you_mean
from ...ppl.interpreter import Handler, interpret
from ...ppl.staging import SiteInfo, Staged, stage
from .conjugate_pairs import Pair
from .conjugate_runs import Finish, Joint, Parameters, Residuals, Wait
from .conjugate_use import Conjugacy, conjugate_use
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

    posterior, value = _posterior(conjugacy, origin, parameters, run)
    # Bayes' theorem, which has the evidence at every value. Where the posterior is, nothing is rounded away.
    value = lax.stop_gradient(value)
    joint = run(value, Joint(conjugacy))[1]
    log_evidence = joint - jnp.sum(log_prob_formula(posterior, value))
    return Integrated(
        info,
        jnp.where(joint == -jnp.inf, -jnp.inf, log_evidence),
        posterior,
        value,
        conjugacy.shown,
        lambda value: run(value, Finish())[0],
    )


def _site(staged: Staged, site: str) -> SiteInfo:
    address = tuple(site.split("/"))
    sites = {info.address: info for info in staged.of_kind("sample")}
    if address not in sites:
        known = list(map(spell, sites))
        raise AddressError(
            f"the program has no sample site {spell(address)!r}{did_you_mean(spell(address), known)}; it has "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    return sites[address]


def _posterior(conjugacy: Conjugacy, origin, parameters, run: Callable):
    """The law of the site's value given all else, and a value where its density is high."""
    if not conjugacy.elementwise:
        return gaussian_posterior(lambda value: run(value, Residuals(conjugacy))[2], origin)
    look = lambda value: run(value, Parameters(conjugacy))[2]  # noqa: E731
    added = _statistics(conjugacy.pairs, origin, len(parameters), look)
    posterior = conjugacy.prior.law(origin, *(x + more for x, more in zip(parameters, added)))
    return posterior, posterior.mean


def _statistics(pairs: Mapping[Address, Pair], origin, count: int, look: Callable) -> list:
    """What the observations add to each of the prior's parameters, shaped like the site's value.

    A parameter of theirs is ``slope * element + constant``. Its statistics belong to that element: they go back the way
    that the element came, by the transpose of the linear map that it is.
    """

    def parameters(value):
        seen = look(value)
        return {a: parameter for a, (parameter, _) in seen.items()}, {a: t for a, (_, t) in seen.items()}

    _, slopes, _ = jax.jvp(parameters, (origin,), (jnp.ones_like(origin),), has_aux=True)
    _, back, statistics = jax.vjp(parameters, origin, has_aux=True)
    sent = [
        {a: _sloped(t[i], slopes[a], pairs[a].powers[i]) for a, t in statistics.items()} for i in range(count)
    ]
    return [back(cotangents)[0] for cotangents in sent]


def _sloped(t, slope, power: int):
    """What becomes ``slope ** power * t`` on its way back, on which it is multiplied by the slope."""
    if power == 0:
        return jnp.where(slope == 0, 0.0, t / jnp.where(slope == 0, 1.0, slope))
    return t * slope ** (power - 1)
