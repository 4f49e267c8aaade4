"""Particle marginal Metropolis-Hastings: its target, particles and all, is invariant, and has the exact posterior."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def prior(ys):
    return 0.25 + 0.5 * bit("high", 0.25)


def chain(p, ys):
    def step(state, y):
        state = bit("state", jnp.where(state == 1, p, 1 - p))
        ppl.observe("y", dist.Bernoulli(0.125 + 0.625 * state), y)
        return state, state

    return lax.scan(step, 0, ys)[1]


def lopsided(choices, ys):
    return bit("high", 0.25 + 0.5 * choices["high"])


YS = jnp.array([1, 0])
ALGORITHMS = {
    "smc": partial(inference.smc, n=2, ess_threshold=2.0),
    "importance": partial(inference.importance, n=2),
    "exact": inference.enumerate,
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_program_has_the_measure_of_the_joint_one(algorithm):
    """Of parameters and the value of the particle that is picked."""
    joint = lambda ys: (lambda p: (p, chain(p, ys)))(prior(ys))  # noqa: E731
    estimated = inference.pseudo_marginal(prior, chain, ALGORITHMS[algorithm])
    assert semantics.meaning(estimated)(YS).distance(semantics.meaning(joint)(YS)) < 1e-10


def moved(kernel, *args):
    """The measure of what is interesting of a state before and after a step."""

    def run(*args):
        trace = ppl.trace(kernel.program)(*args)
        ppl.factor(trace.log_weight)
        with ppl.scope("step"):
            new = kernel(kernel.init(trace, *args), *args).trace
        return of(trace), of(new)

    def of(trace):
        # that the estimate has the law it should have makes it sure that the next step starts in the target, too
        log_evidence = jnp.round(trace.deterministic["particles"]["log evidence"], 9)
        return trace.value, log_evidence, trace.choices["particles"]["state"]

    measure = semantics.meaning(run)(*args)
    return measure.map(lambda pair: pair[0]), measure.map(lambda pair: pair[1])


@pytest.mark.parametrize(("threshold", "steps"), family([(0.0, 1), (2.0, 2)]))
def test_particles_and_parameters_are_left_invariant(threshold, steps):
    before, after = moved(inference.pmmh(prior, chain, lopsided, 2, ess_threshold=threshold), YS[:steps])
    assert before.distance(after) < 1e-10


def test_what_is_not_proposed_stays():
    def two(ys):
        return prior(ys), bit("other", 0.375)

    def model(parameters, ys):
        return chain(parameters[0], ys[:1] * parameters[1])

    before, after = moved(inference.pmmh(two, model, lopsided, 2), YS)
    assert before.distance(after) < 1e-10


# ------------------------------------------------------------------ mutants


def estimated_again(kernel):
    """The old evidence is estimated anew each time: Monte Carlo within Metropolis."""

    def step(state, *args):
        with ppl.scope("again"):
            fresh = ppl.update(kernel.program, ppl.select("high").of(state.trace.choices))
            trace = fresh(replace(state.trace, choices={}), *args).trace
        return kernel(replace(state, trace=trace), *args)

    return inference.Kernel(kernel.program, kernel.init, step)


def test_estimating_the_old_evidence_again_is_caught():
    before, after = moved(estimated_again(inference.pmmh(prior, chain, lopsided, 1)), YS[:1])
    parameters = lambda kept: float(kept[0][0])  # noqa: E731
    assert before.map(parameters).distance(after.map(parameters)) > 1e-3


def test_a_proposal_density_that_is_left_out_is_caught(monkeypatch):
    """As if the proposal were symmetric."""
    monkeypatch.setattr(ppl, "log_density", forgetting(lopsided))
    before, after = moved(inference.pmmh(prior, chain, lopsided, 1), YS[:1])
    assert before.distance(after) > 1e-3


def forgetting(proposal):
    density = ppl.log_density
    return lambda program: (lambda *args: 0.0) if program is proposal else density(program)


# ------------------------------------------------------------------ a closed form


def test_the_posterior_of_a_drift():
    """Chains that start in the posterior of a drift, with 3 particles: Kalman's moments."""
    ys = np.array([0.5, 1.5, 1.0, 2.5])
    steps = np.arange(1.0, 5.0)
    covariance = np.minimum.outer(steps, steps) + 0.25 * np.eye(4)
    precision = 1 + steps @ np.linalg.solve(covariance, steps)
    mean = steps @ np.linalg.solve(covariance, ys) / precision

    def drift(ys):
        return ppl.sample("drift", dist.Normal(0.0, 1.0))

    def walk(drift, ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x + drift, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, x

        return lax.scan(step, 0.0, ys)[1]

    nearby = lambda choices, ys: ppl.sample("drift", dist.Normal(choices["drift"], 0.75))  # noqa: E731
    kernel = inference.pmmh(drift, walk, nearby, 3)
    observed = jnp.asarray(ys, jnp.float32)

    def start(key):
        """A trace of weight Z: of the drift's posterior and of particles, weighted by Z over the evidence."""
        state = kernel.init(ppl.simulate(kernel.program)(key, observed), observed)
        weight = jnp.exp(state.trace.log_weight)
        step = lambda state, key: (ppl.seed(kernel)(key, state, observed), None)  # noqa: E731
        end = lax.scan(step, state, jax.random.split(jax.random.fold_in(key, 1), 3))[0]
        return weight, end.trace.value[0], end.info.probability

    weight, drifts, acceptance = jax.jit(jax.vmap(start))(jax.random.split(KEY, 20_000))
    weight, drifts = np.asarray(weight, np.float64), np.asarray(drifts, np.float64)
    assert 0.1 < float(acceptance.mean()) < 0.9
    assert_mean(weight * (drifts - mean), 0.0)
    assert_mean(weight * ((drifts - mean) ** 2 - 1 / precision), 0.0)


# ------------------------------------------------------------------ what is refused


def run(proposal, start=prior):
    kernel = inference.pmmh(start, chain, proposal, 2)
    return ppl.seed(kernel)(KEY, kernel.init(ppl.simulate(kernel.program)(KEY, YS), YS), YS)


def test_the_state_is_a_trace_of_the_program():
    state = run(lopsided)
    density = ppl.log_density(inference.pseudo_marginal(prior, chain, partial(inference.smc, n=2)))
    assert float(state.trace.log_density) == pytest.approx(float(density(state.trace.choices, YS)), rel=1e-5)
    assert 0 <= float(state.info.probability) <= 1


def test_what_is_refused():
    with pytest.raises(ppl.AddressError, match=r"draws 'hi', .*did you mean 'high'\?"):
        run(lambda choices, ys: bit("hi"))
    with pytest.raises(ppl.UnsupportedError, match=r"carries a weight, 'factor' \(test_pmmh.py:\d+\)"):
        run(lambda choices, ys: ppl.factor(1.0 * bit("high")))
    with pytest.raises(ppl.UnsupportedError, match="'extra'.*in some branches only"):
        run(lopsided, lambda ys: 0.25 + 0.5 * lax.cond(bit("high") == 1, lambda: bit("extra"), lambda: 0))
    estimated = ppl.marginal(lambda: bit("y", 0.25 + 0.5 * bit("x")), "y", partial(inference.importance, n=2))
    with pytest.raises(ppl.UnsupportedError, match="only an estimate"):
        run(lambda choices, ys: ppl.sample("high", estimated()))
    with pytest.raises(ValueError, match="positive integer"):
        inference.pmmh(prior, chain, lopsided, 0)


def test_impossible_parameters_are_not_accepted():
    state = run(lambda choices, ys: ppl.sample("high", dist.Delta(jnp.array(5)).mask(True)))
    assert not bool(state.info.accepted) and int(state.trace.choices["high"]) in (0, 1)
