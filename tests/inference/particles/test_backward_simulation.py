"""Backward simulation is properly weighted, exactly, and a smoother; steps that give more than sites are refused."""

from __future__ import annotations

import hidden_markov
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl.recorded import recorded

KEY = jax.random.key(0)


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def properly_weighted(program, n=2, **options) -> bool:
    """To 1e-10, of choices as a whole."""
    program = recorded(program)
    options = {"ess_threshold": 2.0, "check": False} | options
    return semantics.properly_weighted(inference.backward_simulation(program, n, **options), program)().holds


# ------------------------------------------------------------------ exactly


def chain(weights=(2.0, -1.0), reverse=False):
    def step(x, weight):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(weight * x)
        return x, x

    return lax.scan(step, 0, jnp.array(weights), reverse=reverse)


def three():
    return chain((1.0, -0.5, 0.75), reverse=True)


def guided():
    """A first state, proposals, code that goes on after the scan, a called function."""
    start = bit("start", 0.25)
    ppl.factor(0.5 * start)

    def step(x, weight):
        x = bit("x", 0.25 + 0.5 * x, proposal=dist.Bernoulli(0.375))
        ppl.factor(weight * x)
        return x, None

    x, _ = jax.jit(lambda start: lax.scan(step, start, jnp.array([1.0, -0.5])))(start)
    ppl.factor(0.5 * x * start)
    return bit("end", 0.25 + 0.5 * x)


def masked():
    """A site that only one branch has, and a weight between two sites of one step."""

    def step(z, _):
        z = bit("z", jnp.array([0.25, 0.5])[z])
        ppl.factor(0.75 * z)
        lax.cond(z == 1, lambda: ppl.factor(0.5 * bit("y", 0.25)), lambda: None)
        return z, None

    lax.scan(step, 0, None, length=2)


def nested():
    """A scan in a scan, and one after it."""

    def inner(x, weight):
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(weight * x)
        return x, None

    def outer(x, weights):
        return lax.scan(inner, x, weights)[0], None

    x, _ = lax.scan(outer, 0, jnp.array([[1.0, -0.5], [0.5, 0.25]]))
    return x


CASES = [(chain, {}), (guided, {}), (three, {}), (masked, {}), (nested, {})]
CASES += [(chain, {"ess_threshold": 0.0}), (three, {"ess_threshold": 0.8}), (chain, {"n": 3})]


@pytest.mark.parametrize(("program", "options"), family(CASES, every=9))
def test_it_is_properly_weighted(program, options):
    assert properly_weighted(program, **options)


# ------------------------------------------------------------------ closed form


def test_the_smoother_of_a_hidden_markov_model():
    """Of few particles, times their evidence: without bias."""
    moves, emits, seen = hidden_markov.MOVES, hidden_markov.EMITS, hidden_markov.SEEN[:12]
    log_evidence, smoothed = hidden_markov.forward_backward(moves, emits, seen)

    def program():
        return recorded(lambda: hidden_markov.chain(jnp.array(moves), jnp.array(emits), jnp.array(seen)))()

    @jax.jit
    @jax.vmap
    def run(key):
        population = ppl.seed(inference.backward_simulation(program, 20))(key)
        _, choices = population.value
        states = jax.nn.one_hot(choices["state"], hidden_markov.STATES)
        weight = jnp.exp(population.log_weight - log_evidence)
        return jnp.mean(weight[:, None, None] * states, axis=0)

    estimates = np.asarray(run(jax.random.split(KEY, 4_000)))
    common = smoothed > 0.02  # no rare events, whose means are not normal
    assert_mean(estimates[:, common], smoothed[common])


def test_paths_do_not_come_from_one():
    def walk(ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, x

        return lax.scan(step, 0.0, ys)[1]

    def distinct(algorithm):
        run = jax.jit(ppl.seed(algorithm(walk, 30)))
        return len(np.unique(run(KEY, jnp.zeros(60)).value[:, 0]))

    assert distinct(inference.smc) < 5 < 10 < distinct(inference.backward_simulation)


# ------------------------------------------------------------------ what is refused


def accumulated():
    def step(carry, _):
        x, total = carry
        x = bit("x", 0.25 + 0.5 * x)
        ppl.factor(0.5 * x)
        return (x, total + x), None

    return lax.scan(step, (0, 0), None, length=3)[0]


def pairs():
    def step(before, _):
        x = bit("x", 0.25 + 0.5 * before)
        ppl.factor(0.5 * x)
        return x, (before, x)

    return lax.scan(step, 0, None, length=3)


def parameter():
    p = bit("p")

    def step(x, _):
        x = bit("x", 0.25 + 0.25 * x + 0.25 * p)
        ppl.factor(0.5 * x)
        return x, None

    return lax.scan(step, 0, None, length=3)


@pytest.mark.parametrize("program", [accumulated, pairs, parameter], ids=lambda p: p.__name__)
def test_steps_that_give_more_than_their_sites_are_refused(program):
    with pytest.raises(ppl.UnsupportedError, match=r"'x' \(test_backward_simulation.py:\d+\).*int32"):
        jax.eval_shape(ppl.seed(inference.backward_simulation(program, 2)), KEY)


def test_what_is_not_wanted_does_not_count():
    run = ppl.seed(inference.backward_simulation(lambda: accumulated()[0], 2))
    assert jax.eval_shape(run, KEY).value.shape == (2,)


def test_a_transition_without_noise_is_kept():
    """Computed anew it is rounded otherwise, and seems impossible."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(12, 8)) * 0.1, jnp.float32)
    move = lambda v: weight[:4] @ jax.nn.gelu(weight[4:, :4] @ v + 1.0) * 3 + 0.3  # noqa: E731

    def program(ys):
        def step(v, y):
            e = ppl.sample("e", dist.Normal(0.0, 1.0))
            v = ppl.sample("v", dist.Delta(move(v) + e, event_dim=1))
            ppl.observe("y", dist.Normal(v[0], 0.5), y)
            return v, (e, v)

        return lax.scan(step, jnp.ones(4), ys)[1]

    run = jax.jit(jax.vmap(ppl.seed(inference.backward_simulation(program, 10)), (0, None)))
    e, v = run(jax.random.split(KEY, 20), jnp.linspace(0.0, 1.0, 10)).value
    again = jax.vmap(jax.vmap(jax.vmap(move)))(v[:, :, :-1]) + e[:, :, 1:, None]
    np.testing.assert_allclose(v[:, :, 1:], again, atol=1e-5)
