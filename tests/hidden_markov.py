"""Finite programs with scans, and what is known of hidden Markov models: written out in numpy."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from borelax import ppl, semantics
from borelax.ppl.recorded import recorded

# ------------------------------------------------------------------------- a long chain

STATES, SYMBOLS, LENGTH = 3, 4, 1000
_generator = np.random.default_rng(0)
MOVES = _generator.dirichlet(np.ones(STATES), STATES)
EMITS = _generator.dirichlet(np.ones(SYMBOLS), STATES)
SEEN = _generator.integers(0, SYMBOLS, LENGTH)


def chain(moves, emits, seen):
    """Starts in state 0, before the first move; returns the last state."""

    def step(state, symbol):
        state = ppl.sample("state", dist.Categorical(moves[state]))
        ppl.observe("symbol", dist.Categorical(emits[state]), symbol)
        return state, state

    return lax.scan(step, 0, seen)[0]


def forward_backward(moves, emits, seen, start: int = 0):
    """The log evidence, and the probabilities of the states at each time given all symbols, ``[T, K]``."""
    ahead = np.eye(len(moves))[start]
    filtered, log_evidence = [], 0.0
    for symbol in seen:
        ahead = (ahead @ moves) * emits[:, symbol]
        log_evidence += np.log(ahead.sum())
        ahead = ahead / ahead.sum()
        filtered.append(ahead)
    back = np.ones(len(moves))
    smoothed = [filtered[-1]]
    for symbol, ahead in zip(seen[:0:-1], filtered[-2::-1]):
        back = moves @ (emits[:, symbol] * back)
        back = back / back.sum()
        smoothed.append(ahead * back / (ahead * back).sum())
    return log_evidence, np.array(smoothed[::-1])


def viterbi(moves, emits, seen, start: int = 0):
    """The most probable path, and the log of its joint probability with the symbols."""
    best = np.where(np.arange(len(moves)) == start, 0.0, -np.inf)
    came_from = []
    for symbol in seen:
        ways = best[:, None] + np.log(moves)
        came_from.append(ways.argmax(0))
        best = ways.max(0) + np.log(emits[:, symbol])
    path = [int(best.argmax())]
    for source in came_from[:0:-1]:
        path.append(int(source[path[-1]]))
    return np.array(path[::-1]), best.max()


# ------------------------------------------------------------------------- short programs

READS = jnp.array([[1, 0], [1, 2], [1, 0]])


def automaton():
    """A Markov chain of letters that an automaton reads, with weights between neighbours; it must accept."""

    def step(carry, weight):
        state, letter = carry
        new = ppl.sample("letter", dist.Categorical(jnp.array([[0.75, 0.25], [0.5, 0.5]])[letter]))
        ppl.factor(jnp.where(new == letter, weight, 0.0))
        return (READS[state, new], new), new

    (state, letter), _ = lax.scan(step, (0, 0), jnp.array([0.5, -0.25, 1.0, 0.75]))
    ppl.factor(jnp.where(state == 1, 0.0, -jnp.inf))
    return state, letter


def sundries():
    """Values that live on around the scan, inputs that are drawn, a site that only one branch has, a table."""
    a = ppl.sample("a", dist.Bernoulli(0.25))
    given = jax.vmap(lambda p: ppl.sample("given", dist.Bernoulli(p)))(jnp.array([0.25, 0.5]))

    def step(z, x):
        z = ppl.sample(
            "z", dist.Categorical(jnp.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])[z])
        )
        twice = ppl.deterministic("twice", 2 * z)
        y = lax.cond(z == x, lambda: ppl.sample("y", dist.Bernoulli(0.25 + 0.25 * a)), lambda: 0)
        ppl.observe("seen", dist.Bernoulli(0.25 + 0.5 * y), 1)
        ppl.factor(0.25 * a * twice - 0.5 * y)
        return z, jnp.zeros(2)

    z, _ = lax.scan(step, 1, given, reverse=True)
    return a, z


def stopping():
    """A loop that may stop, and how long it took."""

    def toss(carry):
        count, _ = carry
        heads = ppl.sample("heads", dist.Bernoulli(0.25))
        ppl.factor(0.5 * heads - 0.25 * count)
        return count + 1, heads == 1

    return ppl.loop(lambda carry: ~carry[1], toss, (0, jnp.array(False)), 4)[0]


PROGRAMS = (automaton, sundries, stopping)


@cache
def all_runs(program) -> tuple:
    """All runs of positive weight: ``(value, flat choices)``, with a leading axis, and weights that add up to one."""
    measure = semantics.meaning(recorded(program))()
    value, choices = measure.stack
    return (value, choices), measure.weights
