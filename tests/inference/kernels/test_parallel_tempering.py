"""Parallel tempering: kept exactly on small programs, exchanged as often as the formula says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import z_threshold

from borelax import inference, ppl, semantics
from borelax.inference.chains.diagnostics import ess_mean

BONUS = jnp.array(1.25)
BETAS = [0.0, 0.5, 1.0]


def coin(bonus):
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.factor(bonus * x)
    return x


def redraw(program):
    return inference.mh(program, ppl.select("x"))


def stay(program):
    return inference.mh(program, lambda choices, *args: None)


@pytest.mark.parametrize("odd", [False, True])
def test_the_product_of_all_targets_is_kept(odd):
    kernel = inference.parallel_tempering(coin, redraw, BETAS)

    def init(trace, *args):
        state = kernel.init(trace, *args)
        return replace(state, memory=replace(state.memory, odd=jnp.array(odd)))

    report = semantics.leaves_invariant(replace(kernel, init=init), kernel.program)(BONUS)
    assert report.holds and report.error < 1e-10, report


def number(bonus):
    """Weights of zero, and one that a chain at inverse temperature 0 does not mind."""
    x = ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))
    ppl.factor(jnp.array([0.0, -jnp.inf, 1.0])[x] * bonus)
    return x


STARTS = [(2, 0, 0), (0, 2, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0)]


def exchange(chains: tuple, lower: int) -> tuple[tuple, float]:
    """The chains after the exchange of a pair, and how probable it is."""
    ends = list(chains)
    ends[lower], ends[lower + 1] = ends[lower + 1], ends[lower]
    log_weight = np.array([0.0, -np.inf, float(BONUS)])
    old, new = (sum(b * log_weight[x] for b, x in zip(BETAS, where) if b) for where in (chains, ends))
    if new == -np.inf:
        return tuple(ends), 0.0
    return tuple(ends), 1.0 if old == -np.inf else float(np.exp(min(0.0, new - old)))


def test_neighbours_change_places_as_often_as_the_formula_says():
    kernel = inference.parallel_tempering(number, stay, BETAS)

    def steps(bonus):
        """Where the chains begin, and where they are after a step of each parity."""
        start = jnp.array(STARTS)[ppl.sample("start", dist.Categorical(jnp.ones(len(STARTS)) / len(STARTS)))]
        nothing = ppl.Trace(None, {}, jnp.zeros(()), jnp.zeros(()), {})
        choices = {"hotter": {"x": start[:2]}, "x": start[2]}
        state = kernel.init(ppl.update(kernel.program, choices)(nothing, bonus).trace, bonus)
        found = [start]
        for i in range(2):
            with ppl.scope(str(i)):
                state = kernel(state, bonus)
            found.append(jnp.append(state.trace.choices["hotter"]["x"], state.trace.choices["x"]))
        return jnp.stack(found)

    found, expected = Counter(), Counter()
    for path, weight in semantics.meaning(steps)(BONUS):
        found[tuple(map(tuple, np.asarray(path).tolist()))] += float(weight)
    for start in STARTS:
        first, p = exchange(start, 0)
        for middle, q in ((first, p), (start, 1 - p)):
            last, r = exchange(middle, 1)
            for end, s in ((last, r), (middle, 1 - r)):
                expected[start, middle, end] += q * s / len(STARTS)
    for path in found.keys() | expected.keys():
        assert found[path] == pytest.approx(expected[path], abs=1e-10), path


def modes():
    x = ppl.sample("x", dist.Normal(0.0, 5.0))
    ppl.deterministic("side", x > 0)
    ppl.factor(jnp.where(x > 0, 0.0, jnp.log(3.0)) - 8.0 * (jnp.abs(x) - 4.0) ** 2)
    return x


def test_it_goes_from_mode_to_mode_and_each_chain_learns():
    kernel = inference.parallel_tempering(
        modes, lambda p: inference.hmc(p, num_steps=4), [0.0, 0.03, 0.2, 1.0]
    )
    draws = inference.mcmc(kernel, num_samples=1000, num_warmup=300, num_chains=4)(jax.random.key(0))
    side = np.asarray(draws.deterministic["side"], float)
    error = side.std() / np.sqrt(ess_mean(side))
    assert abs(side.mean() - 0.25) < z_threshold(1) * error < 0.25
    np.testing.assert_array_equal(side, draws.value > 0)
    assert draws.choices["hotter"]["x"].shape == draws.deterministic["hotter"]["side"].shape == (4, 1000, 3)
    step_size = np.asarray(draws.state.memory.memory.step_size)
    assert step_size.shape == (4, 4) and np.all(step_size[:, 0] > 3 * step_size[:, 3])
    assert draws.info.probability.shape == (4, 1000, 3)
    assert draws.info.kernel.step_size.shape == (4, 1000)
    turns = np.asarray(draws.info.probability > 0)
    assert not np.any(turns[..., 0] & turns[..., 1]) and turns.any((0, 1)).all()


@pytest.mark.parametrize("betas", [[1.0], [0.5, 0.2, 1.0], [0.0, 0.5], [-0.1, 1.0], [0.5, 0.5, 1.0], 0.5])
def test_temperatures_that_make_no_sense(betas):
    with pytest.raises(ValueError, match="increase, from 0 or more up to 1"):
        inference.parallel_tempering(coin, redraw, betas)


@pytest.mark.parametrize("make", [lambda tempered: coin, lambda tempered: redraw(coin)])
def test_a_kernel_for_another_program_is_refused(make):
    with pytest.raises(TypeError, match="a kernel for the tempered program"):
        inference.parallel_tempering(coin, make, BETAS)
