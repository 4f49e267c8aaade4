"""unobserve: draw what a program observes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from .effects import Site, emit, remake, sample_p
from .errors import UnsupportedError
from .interpreter import Handler, interpret
from .laws import wrong_draws
from .staging import stage


def unobserve(program: Callable) -> Callable:
    """The program in which every observed site is drawn from its distribution: ``condition``, undone.

    What the program computes from the value that ``observe`` returns it computes from the draw; what it computes from
    the data itself stays. Factors stay as they are, a site that is conditioned in part (:func:`partly`) among them.

    Raises, when the program is traced:
      UnsupportedError: an observation has a distribution that cannot be drawn from (a bound on a value, a density to
        a power, an improper one), or draws floats where integers were observed.

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> def line(xs, ys):
    ...     slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(slope * xs, 0.1), ys)
    >>> ppl.trace_type(ppl.unobserve(line))(jnp.ones(3), jnp.ones(3))["y"].kind
    'sample'
    """

    def unobserved(*args, **kwargs):
        return interpret(stage(program, *args, **kwargs), _Unobserve(), None)[0]

    return unobserved


class _Unobserve(Handler):
    """Re-emits an observation as a draw, of which the program sees the dtype that it observed."""

    def site(self, kind, site: Site, operands, given, state):
        if kind != "observe":
            return emit(kind, site, operands), state, None
        observed = site.effect(operands).value.dtype
        drawn = _draw(*remake(site, operands, lambda effect: replace(effect, value=None)))
        if jnp.issubdtype(drawn.dtype, jnp.inexact) and not jnp.issubdtype(observed, jnp.inexact):
            raise UnsupportedError(
                f"{site} observes {observed}, but its distribution draws {drawn.dtype}: observe the data as floats"
            )
        return [drawn.astype(observed)], state, None


def _draw(site: Site, operands):
    d = site.effect(operands).distribution
    if reason := wrong_draws(d):
        raise UnsupportedError(f"{site} cannot be drawn anew: {reason}")
    try:
        return sample_p.bind(*operands, site=site)[0]
    except NotImplementedError as error:
        raise UnsupportedError(
            f"{site} cannot be drawn anew: {type(d).__name__} has a density to observe, but no draws; write the "
            "program with the law of the data"
        ) from error
