"""SMC is a program: its measure is added up exactly, and compared with the one that it approximates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from thresholds import assert_mean

from borelax import inference, ppl, semantics

RESAMPLERS = [
    inference.systematic,
    inference.stratified,
    inference.multinomial,
    inference.residual,
    inference.killing,
    inference.ssp,
]


def properly_weighted(algorithm, program, *args) -> None:
    """``E[(1/n) sum_i w_i 1(x_i = v)]`` is the program's weight of v, for every v, exactly."""
    exact = semantics.meaning(program)(*args)
    total: dict = {}
    for population, weight in semantics.meaning(algorithm)(*args):
        for i, log_weight in enumerate(population.log_weight):
            member = repr(jax.tree.map(lambda x, i=i: np.asarray(x[i]).tolist(), population.value))
            total[member] = total.get(member, 0.0) + weight * np.exp(log_weight) / len(population.log_weight)
    for value, weight in exact:
        member = repr(jax.tree.map(lambda x: np.asarray(x).tolist(), value))
        assert abs(total.pop(member) - weight) < 1e-10
    assert all(abs(rest) < 1e-10 for rest in total.values())


def hidden_markov(observed):
    """Two states, two symbols; the probabilities are binary fractions, exact in float32."""
    transition = jnp.array([[0.75, 0.25], [0.125, 0.875]])
    emission = jnp.array([[0.875, 0.125], [0.25, 0.75]])

    def step(state, symbol):
        state = ppl.sample("state", dist.Categorical(transition[state]))
        ppl.observe("symbol", dist.Categorical(emission[state]), symbol)
        return state, state

    return jax.lax.scan(step, 0, observed)[1]


SYMBOLS = jnp.array([0, 1, 1])


@pytest.mark.parametrize("resampler", RESAMPLERS, ids=lambda r: r.__name__)
def test_properly_weighted_whatever_the_resampler(resampler):
    algorithm = inference.smc(hidden_markov, 2, resampler, ess_threshold=2.0)
    properly_weighted(algorithm, hidden_markov, SYMBOLS[:2])


@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
def test_properly_weighted_whatever_the_threshold(threshold):
    algorithm = inference.smc(hidden_markov, 2, ess_threshold=threshold)
    properly_weighted(algorithm, hidden_markov, SYMBOLS if threshold == 0.9 else SYMBOLS[:2])


def test_three_particles():
    properly_weighted(inference.smc(hidden_markov, 3, ess_threshold=2.0), hidden_markov, SYMBOLS[:2])


def test_the_locally_optimal_proposal():
    def guided(observed):
        transition = jnp.array([[0.75, 0.25], [0.125, 0.875]])
        emission = jnp.array([[0.875, 0.125], [0.25, 0.75]])

        def step(state, symbol):
            prior = transition[state]
            guide = dist.Categorical(prior * emission[:, symbol] / (prior @ emission[:, symbol]))
            state = ppl.sample("state", dist.Categorical(prior), proposal=guide)
            ppl.observe("symbol", dist.Categorical(emission[state]), symbol)
            return state, state

        return jax.lax.scan(step, 0, observed)[1]

    properly_weighted(inference.smc(guided, 2, ess_threshold=2.0), hidden_markov, SYMBOLS[:2])


def test_a_hard_constraint():
    def constrained():
        def step(total, _):
            total = total + ppl.sample("bit", dist.Bernoulli(0.5))
            ppl.factor(jnp.where(total <= 1, 0.0, -jnp.inf), "at most one")
            return total, total

        return jax.lax.scan(step, 0, None, length=3)[1]

    properly_weighted(inference.smc(constrained, 2, ess_threshold=2.0), constrained)


def test_nested_scans():
    def nested():
        rate = ppl.sample("rate", dist.Bernoulli(0.25))

        def outer(total, _):
            def inner(total, _):
                bit = ppl.sample("bit", dist.Bernoulli(0.25 + 0.5 * rate))
                ppl.factor(jnp.log(0.25 + 0.5 * bit))
                return total + bit, bit

            total, bits = jax.lax.scan(inner, total, None, length=1)
            ppl.factor(-jnp.log(2.0) * total)
            return total, bits

        return rate, jax.lax.scan(outer, 0, None, length=2)[1]

    properly_weighted(inference.smc(nested, 2, ess_threshold=2.0), nested)


def test_branches_that_depend_on_draws():
    def branching():
        coin = ppl.sample("coin", dist.Bernoulli(0.25))
        score = jax.lax.cond(coin == 1, lambda: ppl.sample("bonus", dist.Bernoulli(0.5)), lambda: 3)
        ppl.factor(-jnp.log(2.0) * score)

        def step(carry, _):
            move = lambda x: x + ppl.sample("move", dist.Bernoulli(0.75))  # noqa: E731
            carry = jax.lax.cond(carry > 2, lambda x: x - 1, move, carry)
            ppl.factor(jnp.where(carry == 2, jnp.log(0.5), 0.0))
            return carry, carry

        return coin, jax.lax.scan(step, score, None, length=2)[1]

    properly_weighted(inference.smc(branching, 2, ess_threshold=2.0), branching)


def test_smc_of_smc():
    """An algorithm is a program like any other: the outer one resamples whole inner populations."""

    def inner():
        population = inference.smc(lambda: hidden_markov(SYMBOLS[:2])[-1], 2, ess_threshold=2.0)()
        ppl.factor(population.log_evidence)
        return jnp.sum(population.value)

    properly_weighted(inference.smc(inner, 1), inner)


# ------------------------------------------------------------------ closed forms


def linear_gaussian(observed):
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))

    def step(x, y):
        x = ppl.sample("x", dist.Normal(x + drift, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, x

    return drift, jax.lax.scan(step, 0.0, observed)[1]


def kalman(observed):
    """The log evidence, and the smoothed means of the states and of the drift."""
    size = len(observed)
    # y = A z + noise, with z = (drift, innovations), all standard normal
    states = np.concatenate([np.arange(1, size + 1)[:, None], np.tril(np.ones((size, size)))], axis=1)
    covariance = states @ states.T + 0.25 * np.eye(size)
    solved = np.linalg.solve(covariance, observed)
    log_evidence = -0.5 * (observed @ solved + np.linalg.slogdet(covariance)[1] + size * np.log(2 * np.pi))
    mean = states.T @ solved
    return log_evidence, mean[0], states @ mean


OBSERVED = np.sin(0.3 * np.arange(12))


@pytest.fixture(scope="module")
def replicated():
    """1000 independent runs of 64 particles."""
    run = ppl.seed(inference.smc(linear_gaussian, 64))
    keys = jax.random.split(jax.random.key(0), 1000)
    return jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, jnp.asarray(OBSERVED, jnp.float32))


def test_the_evidence_is_unbiased_for_kalmans(replicated):
    log_evidence, _, _ = kalman(OBSERVED)
    estimates = jax.nn.logsumexp(replicated.log_weight, axis=-1) - np.log(64)
    assert_mean(np.exp(np.asarray(estimates, np.float64) - log_evidence), 1.0)


def test_whole_paths_are_properly_weighted(replicated):
    """The scan's stacked states follow their particle's lineage: unbiased for the smoothed means."""
    log_evidence, drift, states = kalman(OBSERVED)
    weights = np.exp(np.asarray(replicated.log_weight, np.float64) - log_evidence) / 64
    drifts, paths = replicated.value
    assert_mean((weights * drifts).sum(1), drift)
    assert_mean((weights[..., None] * paths).sum(1), states)


def test_the_standard_error_is_that_of_the_replications(replicated):
    """The estimate of the relative variance, averaged over runs, against the variance over runs."""
    log_evidence, _, _ = kalman(OBSERVED)
    estimates = np.exp(
        np.asarray(jax.nn.logsumexp(replicated.log_weight, axis=-1)) - np.log(64) - log_evidence
    )
    claimed = np.asarray(jax.vmap(lambda population: population.log_evidence_se)(replicated)) ** 2
    assert 0.5 < np.mean(claimed) / np.var(estimates) < 2.0


# ------------------------------------------------------------------ what comes with it


def test_ancestors_are_recorded_by_tracing():
    trace = ppl.simulate(inference.smc(linear_gaussian, 8, ess_threshold=2.0))(jax.random.key(0), OBSERVED)
    ancestors = np.asarray(trace.choices["resample"]["0"])
    assert ancestors.shape == (12, 8)
    path, slot = [], np.arange(8)
    for t in reversed(range(12)):  # nobody is resampled after the last step
        slot = ancestors[t][slot] if t < 11 else slot
        path.append(np.asarray(trace.choices["x"])[t, slot])
    np.testing.assert_array_equal(np.stack(path[::-1], 1), trace.value.value[1])


def test_some_dead_particles_do_not_matter():
    def program():
        x = ppl.sample("x", dist.Bernoulli(0.25))
        ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf))
        return x, ppl.sample("y", dist.Normal(0.0, 1.0))

    population = ppl.seed(inference.smc(program, 100))(jax.random.key(0))
    assert np.all(population.value[0] == 1) and int(population.died) == -1


def test_when_all_die_the_result_and_a_warning_say_so():
    def program():
        def step(x, t):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.factor(jnp.where(t < 2, 0.0, -jnp.inf), "the gate")
            return x, None

        return jax.lax.scan(step, 0.0, jnp.arange(4))[0]

    population = jax.jit(ppl.seed(inference.smc(program, 10)))(jax.random.key(0))
    assert int(population.died) == 0 and "the gate" in population.factors[0]
    with pytest.warns(UserWarning, match="all 10 members have weight zero.*the gate"):
        assert float(population.log_evidence) == -np.inf
    assert "the gate" in repr(population)
    with pytest.raises(ppl.BorelaxError, match="the gate"):
        population.expectation()


def test_the_same_key_gives_the_same_particles_with_and_without_jit():
    run = ppl.seed(inference.smc(hidden_markov, 16))
    eager, jitted = run(jax.random.key(5), SYMBOLS), jax.jit(run)(jax.random.key(5), SYMBOLS)
    np.testing.assert_array_equal(eager.value, jitted.value)
    np.testing.assert_allclose(eager.log_weight, jitted.log_weight, rtol=1e-6)


def test_shared_values_are_not_copied_per_particle():
    matrix = jnp.ones((50, 50))

    def program():
        product = matrix @ matrix
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor(-(x**2))
        return ppl.sample("y", dist.Normal(x, 1.0)) * product[0, 0]

    jaxpr = jax.make_jaxpr(inference.smc(program, 7))()
    shapes = {v.aval.shape for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars}
    assert (50, 50) in shapes and (7, 50, 50) not in shapes


@pytest.mark.parametrize("n", [0, -3, 2.5])
def test_the_number_of_particles_is_checked(n):
    with pytest.raises(ValueError, match="positive integer"):
        inference.smc(hidden_markov, n)


def test_the_threshold_is_checked():
    with pytest.raises(ValueError, match="ess_threshold"):
        inference.smc(hidden_markov, 2, ess_threshold=-1.0)
