"""predictive: what a program says of data that has not been seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import ppl
from ...ppl import ChoiceError, Masked, UnsupportedError
from ...ppl.choices import Address, flatten, nest, spell
from ...ppl.dataflow import Place
from ...ppl.flow import flow
from ...ppl.staging import Staged, addresses, stage
from ..arguments import Static, split
from ..chains.draw_axes import choices_of, draw_axes
from ..chains.draws import Draws
from ..unguided import unguided


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prediction:
    """Runs of a program in which what it observes was drawn anew. All arrays have the axes of the draws in front.

    Attributes:
      value: what the program returned.
      observed: nested dicts of the values of the sites that the program observes, as they were drawn.
      choices: those of its other sites that were drawn anew.
      deterministic: the values of its ``deterministic`` sites.
    """

    value: Any
    observed: dict
    choices: dict
    deterministic: dict


def predictive(program: Callable, draws: Draws | Mapping) -> Callable:
    """``(key, *args) -> Prediction``: for each draw from a posterior, data that the program would go on to produce.

    The program runs with the drawn choices set and its observed sites drawn anew, from ``p(new data | choices)``. Sites
    that have no choice in the draws are drawn anew as well, from their own distributions: the effects of new groups,
    say. Other arguments than those of the posterior are fine, as long as the sites that are given keep their shapes. A
    site that is conditioned in part (:func:`ppl.partly`) is one of the choices, so it stays as it was drawn.

    Args:
      program: any program, as the posterior has it, or as it is for new data.
      draws: what :func:`mcmc` returned, or nested dicts of choices with any leading axes.

    Raises:
      UnsupportedError: what is drawn anew flows into a site that is given, or into a factor. Its law would not be its
        own distribution, but that given what it led to. See also :func:`ppl.unobserve`.
      AddressError, ChoiceError: the program does not have such sites.
      ChoiceError: a branch is taken in which a site is given, but was not present when it was drawn.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin(heads):
    ...     bias = ppl.sample("bias", dist.Beta(1.0, 1.0))
    ...     ppl.observe("heads", dist.Binomial(10, bias), heads)
    >>> predict = inference.predictive(coin, {"bias": jnp.array([0.0, 1.0])})
    >>> predict(jax.random.key(0), jnp.array(7)).observed["heads"].tolist()
    [0, 10]
    """
    choices = choices_of(draws)
    if not flatten(choices):
        raise ChoiceError("the draws have no choices to predict from; see inference.prior_predictive")
    run = _compiled(program, draw_axes)
    return lambda key, *args: run(key, choices, args)


def prior_predictive(program: Callable, num_draws: int = 1000) -> Callable:
    """``(key, *args) -> Prediction``: data that the program would produce if nothing was known, ``[draw, ...]``.

    All of its sites are drawn from their own distributions, the observed ones too.

    Raises:
      ValueError: ``num_draws`` is no positive integer.
      UnsupportedError: the program has a factor that depends on what is drawn. What it denotes without its
        observations can then not be drawn from by running it: ``inference.smc(ppl.unobserve(program), n)`` weighs.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin(heads):
    ...     bias = ppl.sample("bias", dist.Beta(2.0, 2.0))
    ...     ppl.observe("heads", dist.Binomial(10, bias), heads)
    >>> prior = inference.prior_predictive(coin)(jax.random.key(0), jnp.array(7))
    >>> bool(abs(prior.observed["heads"].mean() - 5) < 0.5), prior.choices["bias"].shape
    (True, (1000,))
    """
    if not isinstance(num_draws, int) or num_draws < 1:
        raise ValueError(f"num_draws is a positive integer, not {num_draws!r}")
    run = _compiled(program, lambda staged, given: (num_draws,))
    return lambda key, *args: run(key, {}, args)


def _compiled(program: Callable, axes_of: Callable) -> Callable:
    """``(key, choices, args) -> Prediction``, compiled once for data of one shape."""

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, key, choices, arrays):
        args = static.filled(arrays)
        given, anew = flatten(choices), unguided(ppl.unobserve(program))
        staged = stage(anew, *args)
        _refuse_flows(staged, given)
        observed = addresses(stage(program, *args).of_kind("observe"))
        one = partial(_predict, anew, observed, args)
        axes = axes_of(staged, given)
        for _ in axes:
            one = jax.vmap(one)
        return one(jax.random.split(key, axes), choices)

    def predicted(key, choices: Mapping, args: tuple) -> Prediction:
        static, arrays = split(args)
        prediction, strayed = run(static, key, choices, arrays)
        _refuse_strays(strayed)
        return prediction

    return predicted


def _predict(
    anew: Callable, observed: set[Address], args: tuple, key, choices: dict
) -> tuple[Prediction, dict]:
    """One prediction, and of each site of a branch that is given whether it was reached where it was not present."""
    given = flatten(choices)
    values = {address: x.value if isinstance(x, Masked) else x for address, x in given.items()}
    program = ppl.do(anew, nest(values)) if values else anew
    trace = ppl.simulate(program)(key, *args)
    drawn, computed = flatten(trace.choices), flatten(trace.deterministic)
    strayed = {
        spell(address): jnp.any(_present(computed[address]) & ~x.present)
        for address, x in given.items()
        if isinstance(x, Masked)
    }
    prediction = Prediction(
        trace.value,
        nest({address: x for address, x in drawn.items() if address in observed}),
        nest({address: x for address, x in drawn.items() if address not in observed}),
        nest({address: x for address, x in computed.items() if address not in given}),
    )
    return prediction, strayed


def _present(record):
    return record.present if isinstance(record, Masked) else True


# ------------------------------------------------------------------------- checks


def _refuse_flows(staged: Staged, given: Mapping[Address, Any]) -> None:
    """Raises UnsupportedError if the law of what is drawn anew depends on anything that comes after it."""
    found = flow(staged)
    infos = {place: visit.info for place, visit in found.visits.items()}
    is_anew = {p for p, info in infos.items() if info.kind == "sample" and info.address not in given}
    for start in is_anew:
        for end in _reached(start, found.edges, infos) - is_anew:
            if infos[end].kind == "deterministic":
                continue
            one, other = infos[start], infos[end]
            if other.kind == "factor":
                why = f"the weight of the factor {other} depends on it"
                advice = "give draws of it too, or weigh it: inference.smc(ppl.unobserve(program), n)"
            else:
                why = f"{other}, which is given, depends on it"
                advice = f"leave {spell(other.address)!r} out of the draws, so that it is drawn anew as well"
            raise UnsupportedError(f"{one} cannot be drawn anew from its own distribution: {why}; {advice}")


def _reached(start: Place, edges: Iterable[tuple[Place, Place, bool]], infos) -> set[Place]:
    """Where a value flows to, through what is only recorded as well."""
    found: set[Place] = set()
    new = {start}
    while new:
        new = {target for source, target, _ in edges if source in new} - found
        found |= new
        new = {place for place in new if infos[place].kind == "deterministic"}
    return found


def _refuse_strays(strayed: Mapping[str, jax.Array]) -> None:
    if any(isinstance(x, jax.core.Tracer) for x in strayed.values()):
        raise UnsupportedError(
            f"only some branches have {', '.join(map(repr, strayed))}: whether the draws have a value for each branch "
            "that is taken cannot be seen in jit or vmap; predict outside of them"
        )
    for address, x in strayed.items():
        if np.any(x):
            raise ChoiceError(
                f"{address!r} is reached, but was not present in {np.sum(x)} of the {np.size(x)} draws: with these "
                "arguments other branches are taken than those that the draws are of"
            )
