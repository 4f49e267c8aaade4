"""reweigh: the weight that a run would have that made the given choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from .choices import Masked
from .density import reach, score, unreached
from .effects import Site
from .given import check_given
from .interpreter import Handler, interpret
from .staging import stage
from .weigh import weigh_site


def reweigh(program: Callable) -> Callable:
    """``(choices, *args) -> (value, log_weight)``: what :func:`weigh` returns if it draws these choices. Deterministic.

    The log weight is minus infinity if there is no such run.

    Raises:
      AddressError, ChoiceError: as ``log_density`` does.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> def model():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.factor(2 * x)
    ...     return -x
    >>> value, log_weight = ppl.reweigh(model)({"x": 3.0})
    >>> float(value), float(log_weight)
    (-3.0, 6.0)
    """

    def reweighed(choices: Mapping, *args, **kwargs):
        staged = stage(program, *args, **kwargs)
        given = check_given(staged, choices, complete=True)
        value, log_weight, reached = interpret(staged, _Reweigh(), jnp.zeros((), float), given)
        return value, log_weight + sum(unreached(given[a], record) for a, record in reached.items())

    return reweighed


class _Reweigh(Handler):
    """State: the log weight. Records where the sites of masked choices were reached."""

    def site(self, kind, site: Site, operands, given, log_weight):
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), log_weight, None
        if kind != "sample":
            outs, increment = weigh_site(kind, site, operands)
            return outs, log_weight + increment.astype(log_weight.dtype), None
        value = given.value if isinstance(given, Masked) else given
        reached = reach(site, operands, given) if isinstance(given, Masked) else None
        increment = reweigh_site(site, operands, given)
        return [value], log_weight + increment.astype(log_weight.dtype), reached


def reweigh_site(site: Site, operands, given) -> jax.Array:
    """The log weight of a ``sample`` site that draws what is given: minus infinity if it cannot."""
    value = given.value if isinstance(given, Masked) else given
    log_d = score(site, operands, given)
    log_q = site.log_prob(operands, value, of_proposal=site.effect(operands).proposal is not None)
    return jnp.where((log_d == -jnp.inf) | (log_q == -jnp.inf), -jnp.inf, log_d - log_q)
