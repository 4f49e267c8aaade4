"""posterior_marginals: what each site of a finite program is likely to be, given all that is observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl import UnsupportedError
from ...ppl.choices import Address, nest
from ...ppl.describe import family
from ...ppl.effects import Effect, Site, emit, factor_at
from ...ppl.interpreter import Handler, interpret
from ...ppl.laws import without_event
from ...ppl.staging import stage
from ...semantics.branch import check_finite, support
from .enumerate import enumerate as enumerate_runs
from .enumerate import refuse_nothing
from .reachable import fixed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Marginal:
    """The posterior distribution of one site.

    Attributes:
      values: of one element of the site, ``[K, *event]``.
      probability: ``[*axes, K]``, with an axis for each scan and vmap around the site and for each independent copy in
        its distribution. Over K the probabilities sum to one; to the probability that the site is reached, if only
        some branches have it.
    """

    values: jax.Array
    probability: jax.Array


def posterior_marginals(program: Callable, most: int = 100_000, states: int | None = None) -> Callable:
    """``(*args) -> nested dict of Marginal``: the posterior distribution of each ``sample`` site of a finite program.

    Nothing is drawn. With a log weight t added where site s has its value v, and Z the evidence of the program,

        P(s is v) = d log Z / dt    at t = 0,

    which reverse-mode differentiation of the forward algorithm gives for all sites, steps and values at once: it is the
    backward algorithm.

    Args:
      program: any program whose sites have finite support.
      most, states: as ``enumerate`` has them. What the program returns does not matter.

    Raises:
      UnsupportedError: as ``enumerate`` does; the values that a site can have depend on what is computed before.
      DegenerateError: no run has weight (outside ``jit``; inside, the probabilities are NaN).

    Source: Darwiche, *A differential approach to inference in Bayesian networks*, JACM 50 (2003); Eisner,
    *Inside-outside and forward-backward algorithms are just backprop*, EMNLP workshop (2016).

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def weather(walks):
    ...     def day(rains, walk):
    ...         rains = ppl.sample("rains", dist.Bernoulli(jnp.where(rains == 1, 0.75, 0.25)))
    ...         ppl.observe("walks", dist.Bernoulli(jnp.where(rains == 1, 0.125, 0.75)), walk)
    ...         return rains, None
    ...     jax.lax.scan(day, 0, walks)
    >>> marginals = inference.posterior_marginals(weather)(jnp.array([1, 0, 0]))
    >>> [f"{p:.2f}" for p in marginals["rains"].probability[:, 1]]
    ['0.11', '0.70', '0.80']
    """

    def marginals(*args, **kwargs) -> dict:
        staged = stage(program, *args, **kwargs)
        draws = staged.of_kind("sample")
        values = {info.address: _values_of(info.site, info.operands) for info in draws}
        tilts = {}
        for info in draws:
            shape = (*info.present_shape, *_batch(info.site, info.operands), len(values[info.address]))
            tilts[info.address] = jnp.zeros(shape, float)

        def log_evidence(tilts):
            def tilted() -> None:
                interpret(staged, _Tilt(values), None, tilts)

            population = enumerate_runs(tilted, most, states)()
            return population.log_evidence, population

        probability, population = jax.grad(log_evidence, has_aux=True)(tilts)
        refuse_nothing(population, states)
        return nest(
            {address: Marginal(jnp.asarray(values[address]), p) for address, p in probability.items()}
        )

    return marginals


class _Tilt(Handler):
    """Re-emits every site; a given log weight for each value of a sample site weighs its value."""

    def __init__(self, values: dict[Address, np.ndarray]):
        self.values = values

    def site(self, kind, site: Site, operands, given, state):
        outs = emit(kind, site, operands)
        if kind == "sample":
            values = self.values[site.name]
            if not np.array_equal(values, _values_of(site, operands)):
                raise UnsupportedError(
                    f"{site} has other values in one branch than in another; give the sites different names"
                )

            def term(effect: Effect, value, tilt):
                event = tuple(range(tilt.ndim, tilt.ndim + values.ndim - 1))
                alike = jnp.expand_dims(value, tilt.ndim - 1) == values
                index = jnp.argmax(jnp.all(alike, axis=event), axis=-1, keepdims=True)
                total = jnp.sum(jnp.take_along_axis(tilt, index, axis=-1))
                return total if effect.present is None else jnp.where(effect.present, total, 0.0)

            factor_at(site, site.sum(term, operands, outs[0], given))
        return outs, state, None


def _values_of(site: Site, operands) -> np.ndarray:
    """The values that one element of a site can have, ``[K, *event]``."""
    check_finite(site, operands)

    def values(*leaves):
        return support(without_event(site.effect(leaves).distribution))[0]

    rows = fixed(values, site.unbatched(operands))
    if rows is not None:
        copies = len(_batch(site, operands))
        rows = rows.reshape(len(rows), -1, *rows.shape[1 + copies :])
    if rows is None or not np.array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape)):
        raise UnsupportedError(
            f"{site} has a {family(site.effect(operands).distribution)} whose values depend on what is computed "
            "before, so that there is no one list of them; return what you want to know of it, and ask "
            "inference.enumerate for the expectation"
        )
    return rows[:, 0]


def _batch(site: Site, operands) -> tuple[int, ...]:
    """The shape of the independent copies in one element of a site."""
    law = lambda *leaves: without_event(site.effect(leaves).distribution)  # noqa: E731
    return jax.eval_shape(law, *site.unbatched(operands)).batch_shape
