"""Small finite programs, from the smallest on: what a transformation is tried on when no program is given."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ..ppl import factor, observe, sample, scope


def constant():
    return jnp.array(1)


def weighted_constant():
    factor(0.5)
    return jnp.array(1)


def coin():
    return sample("x", dist.Bernoulli(0.25))


def weighted_coin():
    x = sample("x", dist.Bernoulli(0.25))
    factor(0.5 * x)
    return x


def impossible_coin():
    """A coin of which one side has weight zero."""
    x = sample("x", dist.Bernoulli(0.25))
    factor(jnp.where(x == 1, 0.0, -jnp.inf))
    return x


def guided_coin():
    """A site that is drawn from a proposal."""
    return sample("x", dist.Bernoulli(0.25), proposal=dist.Bernoulli(0.625))


def unused_draw():
    sample("x", dist.Bernoulli(0.5))
    return sample("y", dist.Bernoulli(0.25))


def observed_coin():
    x = sample("x", dist.Bernoulli(0.25))
    observe("y", dist.Bernoulli(0.125 + 0.5 * x), 1)
    return x


def chain():
    x = sample("x", dist.Bernoulli(0.25))
    factor(0.25 * x)
    y = sample("y", dist.Categorical(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.25, 0.625]])[x]))
    factor(0.5 * y - 0.25 * x)
    return x, y


def scoped():
    with scope("block"):
        x = sample("x", dist.Bernoulli(0.75))
    return x + sample("x", dist.Bernoulli(0.25))


def branch():
    """A site that only one branch has."""
    x = sample("x", dist.Bernoulli(0.25))
    y = lax.cond(x == 1, lambda: sample("y", dist.Bernoulli(0.75)) + 1, lambda: 0)
    factor(0.5 * y)
    return x, y


def weighted_branch():
    """Branches that weigh differently."""
    x = sample("x", dist.Bernoulli(0.25))
    lax.cond(x == 1, lambda: factor(0.75), lambda: factor(-0.25))
    return x


def plate():
    return jax.vmap(lambda p: _weighed("x", p))(jnp.array([0.25, 0.5]))


def hidden_markov():
    transition = jnp.array([[0.75, 0.25], [0.125, 0.875]])
    emission = jnp.array([[0.875, 0.125], [0.25, 0.75]])

    def step(state, symbol):
        state = sample("state", dist.Categorical(transition[state]))
        observe("symbol", dist.Categorical(emission[state]), symbol)
        return state, state

    return lax.scan(step, 0, np.array([0, 1, 1]))[1]


def _weighed(name: str, p):
    x = sample(name, dist.Bernoulli(p))
    factor(0.5 * x * p)
    return x


SMALL_PROGRAMS: tuple[Callable, ...] = (
    constant,
    weighted_constant,
    coin,
    weighted_coin,
    impossible_coin,
    guided_coin,
    unused_draw,
    observed_coin,
    scoped,
    weighted_branch,
    chain,
    branch,
    plate,
    hidden_markov,
)
