"""Programs that checks are made of, built with the packages of a given library."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

TRANSITION = np.array([[0.75, 0.25], [0.125, 0.875]], np.float32)
EMISSION = np.array([[0.875, 0.125], [0.25, 0.75]], np.float32)
SYMBOLS = np.array([0, 1, 1])


def small(lib, name: str):
    """A small program of the library itself."""
    return next(p for p in lib.semantics.SMALL_PROGRAMS if p.__name__ == name)


def guided_markov(lib):
    """A hidden Markov chain that is drawn from proposals, runs over given weights, and returns its path."""

    def program():
        def step(state, given):
            symbol, bonus = given
            guide = jnp.array([[0.5, 0.5], [0.25, 0.75]])[symbol]
            law = dist.Categorical(jnp.asarray(TRANSITION)[state])
            state = lib.ppl.sample("state", law, proposal=dist.Categorical(guide))
            lib.ppl.observe("symbol", dist.Categorical(jnp.asarray(EMISSION)[state]), symbol)
            lib.ppl.factor(bonus * state)
            return state, state

        return jax.lax.scan(step, 0, (jnp.asarray(SYMBOLS[:2]), jnp.array([0.25, -0.5])))[1]

    return program


def remembering(lib):
    """A program with a history: what is recalled must be what was appended along one's own line."""

    def program():
        def step(carry, t):
            past, last = carry
            x = lib.ppl.sample("x", dist.Bernoulli(jnp.array([0.25, 0.625])[last]))
            past = lib.ppl.append(past, t, x)
            lib.ppl.factor(0.75 * x * lib.ppl.recall(past)[0])
            return (past, x), None

        empty = lib.ppl.history(3, jnp.zeros((), int))
        (past, _), _ = jax.lax.scan(step, (empty, 0), jnp.arange(3))
        return lib.ppl.recall(past)

    return program


def drawn_inputs(lib):
    """A scan over values that were drawn, and weighed, before it: each step sees its own line's."""

    def program():
        xs = jax.vmap(lambda p: lib.ppl.sample("x", dist.Bernoulli(p)))(jnp.array([0.25, 0.5]))
        lib.ppl.factor(0.5 * xs[0] - 0.25 * xs[1])

        def step(total, x):
            y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
            lib.ppl.factor(0.5 * x * y + 0.25 * total)
            return total + y, (x, y)

        return jax.lax.scan(step, 0, xs)[1]

    return program


def switching(lib):
    """Sites and factors in branches, and a masked site that is known for some branches only."""

    def program():
        which = lib.ppl.sample("which", dist.Categorical(jnp.array([0.25, 0.25, 0.5])))

        def two():
            x = lib.ppl.sample("x", dist.Bernoulli(0.25))
            lib.ppl.factor(0.5 * x)
            return x + 2

        def three():
            lib.ppl.factor(-0.5)
            return 4 * lib.ppl.sample("x", dist.Bernoulli(0.75)) + lib.ppl.sample("y", dist.Bernoulli(0.5))

        return which, jax.lax.switch(which, [lambda: 0, two, three])

    return program


def normal_walk(lib):
    """A random walk that is observed with noise."""

    def program(ys):
        def step(x, y):
            x = lib.ppl.sample("x", dist.Normal(x, 1.0))
            lib.ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, x

        return jax.lax.scan(step, 0.0, ys)[1]

    return program


def parameters(lib):
    """A prior, and a model of one weighted site: for algorithms that take the two apart."""

    def prior():
        return lib.ppl.sample("theta", dist.Bernoulli(0.25))

    def model(theta):
        x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * theta))
        lib.ppl.factor(0.75 * x)
        return x

    return prior, model
