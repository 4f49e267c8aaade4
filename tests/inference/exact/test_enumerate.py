from __future__ import annotations

import hidden_markov
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, PROGRAMS, SEEN, STATES, forward_backward
from jax import lax

from borelax import inference, ppl, semantics


def chain(p):
    """A Markov chain on {0, 1, 2}, seen through noise."""
    moves = jnp.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])

    def step(x, y):
        x = ppl.sample("x", dist.Categorical(moves[x]))
        ppl.observe("y", dist.Bernoulli(p[x]), y)
        return x, x

    return lax.scan(step, 1, jnp.array([0, 1, 1]))[1]


def branches(p):
    x = ppl.sample("x", dist.Bernoulli(p[0]))
    y = lax.cond(x == 1, lambda: ppl.sample("y", dist.Categorical(p / p.sum())), lambda: 0)
    ppl.factor(0.5 * y - x)
    return x + y


P = jnp.array([0.125, 0.5, 0.75])


@pytest.mark.parametrize("program", [chain, branches], ids=lambda p: p.__name__)
def test_the_population_is_the_measure(program):
    population = jax.jit(inference.enumerate(program))(P)
    weight = np.exp(np.asarray(population.log_weight, np.float64)) / population.size
    found: dict = {}
    for value, w in zip(np.asarray(population.value).tolist(), weight):
        found[repr(value)] = found.get(repr(value), 0.0) + w
    measure = semantics.meaning(program)(P)
    expected = {repr(np.asarray(value).tolist()): w for value, w in measure}
    assert {value: w for value, w in found.items() if w > 0} == pytest.approx(expected, rel=1e-5)
    assert float(jnp.exp(population.log_evidence)) == pytest.approx(measure.total, rel=1e-5)
    assert float(population.log_evidence_se) == 0.0


def test_it_can_be_differentiated():
    """The gradient of the evidence, by finite differences of the exact measure."""
    log_evidence = lambda p: inference.enumerate(chain)(p).log_evidence  # noqa: E731
    direction, step = np.array([0.5, -0.25, 1.0]), 1e-6
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(log_evidence))(jnp.asarray(P, float))
        up, down = (np.log(semantics.meaning(chain)(P + s * direction).total) for s in (step, -step))
    assert float(np.asarray(gradient) @ direction) == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_it_is_a_program_without_draws():
    assert ppl.trace_type(inference.enumerate(branches))(P) == {}
    batch = jax.jit(jax.vmap(inference.enumerate(branches)))(jnp.stack([P, P[::-1]]))
    for i, p in enumerate((P, P[::-1])):
        total = semantics.meaning(branches)(p).total
        np.testing.assert_allclose(batch.log_evidence[i], np.log(total), rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(ppl.UnsupportedError, match="whose support is not finite"):
        inference.enumerate(lambda: ppl.sample("x", dist.Poisson(1.0)))()
    many = lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([17]))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match=r"131072 runs at 'x' .*more than the 100000"):
        jax.jit(inference.enumerate(many))()
    with pytest.raises(ppl.UnsupportedError, match="16 runs"):
        jax.jit(inference.enumerate(lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([4])), most=10))()


# ------------------------------------------------------------------------- dynamic programming

# Room for the states that each can be in, times the values of what lives on around its scan, and not for its runs.
# The loop carries how often it tossed, what came up, and whether it goes on.
SIZES = {"automaton": 3 * 2, "sundries": (2 * 2 * 2) * 3, "stopping": 5 * 2 * 2}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_runs_in_one_state_are_added_up(program):
    with jax.enable_x64(True):
        population = jax.jit(inference.enumerate(program))()
    log_weight = np.asarray(population.log_weight) - np.log(population.size)
    measure = semantics.Measure.of(population.value, log_weight)
    (value, _), weights = hidden_markov.all_runs(program)
    assert measure.distance(semantics.Measure.stacked(value, weights)) < 1e-12
    assert population.size == SIZES[program.__name__]


@pytest.fixture(scope="module")
def long_chain():
    return jax.jit(jax.vmap(inference.enumerate(hidden_markov.chain), in_axes=(0, 0, None)))


def test_the_forward_algorithm(long_chain):
    """A thousand steps, with the states in order and in another one."""
    order = np.array([0, 2, 1])
    with jax.enable_x64(True):
        moves, emits = np.stack([MOVES, MOVES[order][:, order]]), np.stack([EMITS, EMITS[order]])
        population = long_chain(moves, emits, SEEN)
        found = population.log_evidence
        last = jax.vmap(lambda p: jnp.zeros(STATES).at[p.value].add(p.weight))(population)
    log_evidence, probability = forward_backward(MOVES, EMITS, SEEN)
    np.testing.assert_allclose(found, [log_evidence] * 2, rtol=1e-13)
    np.testing.assert_allclose(last, [probability[-1], probability[-1][order]], rtol=1e-10)
    assert population.log_weight.shape == (2, STATES)


def test_in_single_precision_the_members_keep_their_differences(long_chain):
    population = long_chain(np.float32(MOVES)[None], np.float32(EMITS)[None], SEEN)
    log_evidence, probability = forward_backward(MOVES, EMITS, SEEN)
    np.testing.assert_allclose(population.log_evidence, [log_evidence], rtol=1e-6)
    last = jnp.zeros(STATES).at[population.value[0]].add(population.weight[0])
    np.testing.assert_allclose(last, probability[-1], rtol=1e-3)


def test_the_gradient_of_a_chain_counts_its_moves():
    """d log Z / d log moves[i, j] is the expected number of moves from i to j: one for each step in all."""
    seen, step = SEEN[:20], 1e-6

    def log_evidence(log_moves):
        return inference.enumerate(hidden_markov.chain)(jnp.exp(log_moves), EMITS, seen).log_evidence

    with jax.enable_x64(True):
        counts = np.asarray(jax.jit(jax.grad(log_evidence))(jnp.log(jnp.asarray(MOVES))))
    bent = MOVES * np.exp(step * np.eye(STATES)[0])
    change = forward_backward(bent, EMITS, seen)[0] - forward_backward(MOVES, EMITS, seen)[0]
    assert counts[:, 0].sum() == pytest.approx(change / step, rel=1e-5)
    assert counts.sum() == pytest.approx(20, rel=1e-12)


def parity(table):
    """An automaton that is an argument: what its states are is not known when the program is compiled."""

    def step(state, _):
        return table[state, ppl.sample("x", dist.Bernoulli(0.25))], None

    return lax.scan(step, 0, None, length=40)[0]


TABLE = jnp.array([[0, 1], [1, 0]])


def test_states_that_cannot_be_listed_are_counted_by_the_user():
    expected = (1 - 0.5**40) / 2  # of an odd number of ones
    listed = jax.jit(lambda: inference.enumerate(parity)(TABLE))()
    assert float(listed.expectation()) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ppl.UnsupportedError, match=r"say how many with states="):
        jax.jit(inference.enumerate(parity, most=100))(TABLE)
    counted = jax.jit(inference.enumerate(parity, states=2))(TABLE)
    assert float(counted.expectation()) == pytest.approx(expected, rel=1e-5)


def test_too_little_room_is_never_silent():
    too_few = inference.enumerate(parity, states=1)
    assert np.isnan(jax.jit(too_few)(TABLE).log_weight).all()
    with pytest.raises(ppl.UnsupportedError, match=r"more than states=1 states at a time"):
        too_few(TABLE)


def test_a_weight_that_is_not_a_number_is_not_dropped():
    def program():
        def step(x, _):
            x = ppl.sample("x", dist.Bernoulli(0.5))
            ppl.factor(jnp.where(x == 1, jnp.nan, 0.0))
            return x, None

        return lax.scan(step, 0, None, length=3)[0]

    assert np.isnan(jax.jit(lambda: inference.enumerate(program)().log_evidence)())


def test_a_derivative_of_states_is_refused():
    def program(p):
        def step(x, _):
            return p * ppl.sample("x", dist.Bernoulli(0.5)), None

        x = lax.scan(step, 0.0, None, length=3)[0]
        ppl.factor(x)

    evidence = jax.jit(lambda p: inference.enumerate(program, states=2)(p).log_evidence)
    assert float(evidence(jnp.array(1.0))) == pytest.approx(np.log((1 + np.e) / 2), rel=1e-5)
    with pytest.raises(ppl.UnsupportedError, match="carry the discrete draws"):
        jax.grad(evidence)(jnp.array(1.0))


def test_stacked_outputs_keep_runs_apart():
    coins = lambda: lax.map(lambda p: ppl.sample("x", dist.Bernoulli(p)), 0.5 * jnp.ones(20))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="stacks outputs that differ"):
        jax.jit(inference.enumerate(coins, most=100))()
    without = jax.jit(inference.enumerate(lambda: (coins(), 0)[1]))()
    assert float(without.log_evidence) == pytest.approx(0, abs=1e-5) and without.size == 1
