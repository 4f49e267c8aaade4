from __future__ import annotations

import heapq

import hidden_markov
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, SEEN, STATES, all_runs, automaton

from borelax import inference, ppl
from borelax.ppl.recorded import recorded

SHORT = SEEN[:8]


def by_hand(n: int) -> dict:
    """The n heaviest paths of a hidden Markov chain at each step, with their weights."""
    kept = {(): 1.0}
    for symbol in SHORT:
        grown = {
            (*before, state): weight * MOVES[before[-1] if before else 0, state] * EMITS[state, symbol]
            for before, weight in kept.items()
            for state in range(STATES)
        }
        kept = dict(heapq.nlargest(n, grown.items(), key=lambda item: item[1]))
    return kept


def test_the_heaviest_go_on():
    """Among the choices too, which a scan stacks."""
    with jax.enable_x64(True):
        search = jax.jit(inference.beam(recorded(hidden_markov.chain), 4))
        population = search(jnp.asarray(MOVES), jnp.asarray(EMITS), SHORT)
    _, choices = population.value
    weights = np.exp(np.asarray(population.log_weight)) / population.size
    found = dict(zip(map(tuple, np.asarray(choices["state"]).tolist()), weights))
    assert found == pytest.approx(by_hand(4), rel=1e-12)


def test_its_evidence_is_a_lower_bound_and_exact_with_enough_runs():
    _, weights = all_runs(automaton)
    few, all_of_them = (
        float(jnp.exp(jax.jit(inference.beam(automaton, n))().log_evidence)) for n in (2, len(weights) * 2)
    )
    assert few < weights.sum() * (1 - 1e-3)
    assert all_of_them == pytest.approx(weights.sum(), rel=1e-5)


def test_straight_line_code_is_cut_before_it_branches_again():
    def program():
        x = ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
        ppl.factor(jnp.array([0.0, 2.0, 1.0])[x])
        y = ppl.sample("y", dist.Bernoulli(0.25))
        return x, y

    population = jax.jit(inference.beam(program, 2))()
    assert population.size == 4
    assert sorted(zip(*map(np.ndarray.tolist, map(np.asarray, population.value)))) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert float(jnp.exp(population.log_evidence)) == pytest.approx(0.25 * (np.exp(2) + np.e), rel=1e-5)


def test_what_is_refused():
    with pytest.raises(ppl.UnsupportedError, match="whose support is not finite"):
        inference.beam(lambda: ppl.sample("x", dist.Poisson(1.0)), 2)()
    with pytest.raises(ValueError, match="positive integer"):
        inference.beam(automaton, 0)
