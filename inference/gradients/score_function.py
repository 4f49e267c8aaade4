"""score_function: the density of a draw, for its derivative in the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from ...ppl.effects import log_prob_formula
from ...ppl.laws import parts
from ...ppl.partly import Remaining
from ...ppl.program_law import ProgramLaw
from ..particles.resampling import Multinomial, Resampling


def score_function(d: Distribution, value):
    """The log density of ``d`` at a draw: a scalar, whose derivative in the parameters is the score.

    For draws x of a distribution with density f,

        d/dp E[L(x)] = E[L(x) d/dp log f(x)],

    as long as parameters change how likely values are, and not which values there are: see :func:`edges`.

    Source: Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*,
    Machine Learning 8 (1992).

    >>> jax.grad(lambda p: score_function(dist.Bernoulli(p), 1))(0.25).item()
    4.0
    """
    return log_prob_formula(d, value)


def obstacle(d: Distribution) -> str | None:
    """Why the density of ``d`` has no use for a gradient, and what to do; None if nothing is known against it."""
    for part in parts(d):
        if isinstance(part, dist.MaskedDistribution):
            return "has a density that is switched off in part (.mask), but its draws have not: take the mask out"
        if getattr(part, "is_estimated", False):
            return (
                "has a density that is only an estimate, of which the logarithm is biased: use an exact algorithm, "
                "such as inference.enumerate"
            )
        if isinstance(part, Resampling) and not isinstance(part, Multinomial):
            return "has a density that is computed in steps, so that its derivative is lost: use inference.multinomial"
        if isinstance(part, ProgramLaw) and jnp.issubdtype(part.dtype, jnp.inexact):
            return (
                "is a program's law of a continuous value, and which values there are may depend on parameters in ways "
                "that are not known: sample the program's sites themselves"
            )
    return None


def edges(d: Distribution) -> list:
    """The arrays that say where ``d`` has values at all, and where it has single ones with positive probability.

    >>> edges(dist.Uniform(0.0, 2.0))
    [0.0, 2.0]
    """
    return [edge for part in parts(d) for edge in _edges(part)]


def _edges(d: Distribution) -> list:
    if isinstance(d, dist.Delta):
        return [d.v]
    if isinstance(d, Remaining):
        return [d.value]
    if isinstance(d, dist.TransformedDistribution):  # its support is that of its last transform
        return jax.tree.leaves(d.transforms)
    return jax.tree.leaves(d.support)
