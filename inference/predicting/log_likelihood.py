"""log_likelihood: the density of each element of the data, at each draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, MaskedDistribution

from ...ppl import Masked, UnsupportedError
from ...ppl.censored import censored_log_prob
from ...ppl.choices import flatten, nest, spell
from ...ppl.density import reach
from ...ppl.effects import Effect, Site
from ...ppl.given import check_given
from ...ppl.interpreter import Handler, interpret
from ...ppl.laws import CENSORED, TRUNCATED, parts, without_event
from ...ppl.power import Power
from ...ppl.staging import Staged, addresses, stage
from ..arguments import Static, split
from ..chains.draw_axes import choices_of, draw_axes
from ..chains.draws import Draws


def log_likelihood(program: Callable, draws: Draws | Mapping) -> Callable:
    """``(*args) -> nested dict``: log p(element of the data | choices) for each element of each observed site.

    The arrays have the axes of the draws in front, then one for each scan and vmap around the site, then those of the
    batch of its distribution. An event of a multivariate distribution is one element. The axes that ``.to_event``
    declares are not, as their numbers are independent: sum over them if they belong together. For other data than
    that of the draws, give other arguments. Factors are no data: they are left out, and with them what is conditioned
    in part (:func:`ppl.partly`).

    Args:
      program: any program.
      draws: what :func:`mcmc` returned, or nested dicts of choices with any leading axes.

    Returns:
      An array for each site; :class:`ppl.Masked` if only some branches have it. NaN in draws that lack a site of a
      branch that is taken.

    Raises:
      AddressError, ChoiceError: the choices are not those of the program, all of them.
      UnsupportedError: an observation has no density to be asked for: it is estimated, masked, or to a power.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def place(ys):
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(x, 1.0).expand([2]), ys)
    >>> found = inference.log_likelihood(place, {"x": jnp.zeros(5)})(jnp.array([1.0, 2.0]))
    >>> found["y"].shape, round(float(found["y"][0, 0]), 4)
    ((5, 2), -1.4189)
    """

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, choices, arrays) -> dict:
        args = static.filled(arrays)
        one = partial(_pointwise, program, args)
        for _ in draw_axes(stage(program, *args), flatten(choices)):
            one = jax.vmap(one)
        return one(choices)

    def found(*args) -> dict:
        static, arrays = split(args)
        return run(static, choices_of(draws), arrays)

    return found


def log_predictive_density(program: Callable, draws: Draws | Mapping, joint: bool = False) -> Callable:
    """``(*args) -> nested dict``: the log of the mean over the draws of the density of each element of the data.

        log (1/S) sum_s p(y_i | choices_s)

    At data that the draws have not seen it says how well they predict it; the sum over elements is the score that is
    usually given. At the data of the draws themselves it flatters them: see :func:`loo`.

    Args:
      program, draws: as of :func:`log_likelihood`, with its errors.
      joint: whether to take all data as one element, ``log (1/S) sum_s prod_i p(y_i | choices_s)``: the evidence of
        the data given that of the draws. A scalar.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> coin = lambda y: ppl.observe("y", dist.Bernoulli(ppl.sample("p", dist.Uniform(0.0, 1.0))), y)
    >>> score = inference.log_predictive_density(coin, {"p": jnp.array([0.25, 0.75])})(jnp.array(1))
    >>> round(float(jnp.exp(score["y"])), 4)
    0.5
    """

    pointwise = log_likelihood(program, draws)

    def scored(*args):
        axes = draw_axes(stage(program, *args), flatten(choices_of(draws)))
        found = flatten(pointwise(*args))
        for address, x in found.items():
            if isinstance(x, Masked):
                raise UnsupportedError(
                    f"only some branches have {spell(address)!r}: a draw that lacks it says nothing of its data"
                )
        if joint:
            each = [x.reshape(*axes, -1).sum(-1) for x in found.values()]
            return _log_mean(sum(each, jnp.zeros(axes)), len(axes))
        return nest({address: _log_mean(x, len(axes)) for address, x in found.items()})

    return scored


def _log_mean(x, num_axes: int):
    axes = tuple(range(num_axes))
    return jax.nn.logsumexp(x, axis=axes) - np.log(np.prod(x.shape[:num_axes]))


def _pointwise(program: Callable, args: tuple, choices: Mapping) -> dict:
    staged = stage(program, *args)
    _refuse(staged)
    given = check_given(staged, choices, complete=True)
    _, _, records = interpret(staged, _Pointwise(), None, given)
    observed = addresses(staged.of_kind("observe"))
    strayed = [
        jnp.any(x.present & ~given[address].present) for address, x in records.items() if address in given
    ]
    is_run = ~jnp.any(jnp.array(strayed, bool))
    found = staged.unmasked({a: x for a, x in records.items() if a in observed})
    return nest(jax.tree.map(lambda x: x if x.dtype == bool else jnp.where(is_run, x, jnp.nan), found))


class _Pointwise(Handler):
    """Records the log densities of observations, and where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, state):
        if kind == "factor":
            return [], state, None
        if kind == "sample":
            if isinstance(given, Masked):
                return [given.value], state, reach(site, operands, given)
            return [given], state, None
        outs = jax.tree.leaves(site.map(lambda effect: effect.value, operands))
        if kind == "deterministic":
            return outs, state, None
        return outs, state, site.masked(operands, site.map(_log_probs, operands))


def _log_probs(effect: Effect):
    """The log density of each element, minus infinity outside the support."""
    d, value = without_event(effect.distribution), jnp.asarray(effect.value)
    if isinstance(d, CENSORED):
        return censored_log_prob(d, value)
    log_probs = d.log_prob(value)
    if any(isinstance(part, TRUNCATED) for part in parts(d)):
        # The probability of the interval was rounded to zero.
        log_probs = jnp.where(log_probs == jnp.inf, jnp.nan, log_probs)
    return jnp.where(True if d.support is None else d.support(value), log_probs, -jnp.inf)


def _refuse(staged: Staged) -> None:
    for info in staged.of_kind("observe"):
        for part in parts(info.site.effect(info.operands).distribution):
            if reason := _without_density(part):
                raise UnsupportedError(f"no log likelihood of the elements of {info}: {reason}")


def _without_density(d: Distribution) -> str | None:
    if getattr(d, "is_estimated", False):
        return "its density is only an estimate; give its program an exact algorithm, such as inference.enumerate"
    if isinstance(d, Power | MaskedDistribution):
        return "its elements count more or less than once (a power or a mask), so that they are no densities of data"
    return None
