"""ppl.loop: a bounded loop with sites, against the sums that can be done by hand and against while_loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
MOST = 6


def failures(p=0.25, most=MOST):
    """The failures before the first success, cut off at ``most`` trials."""

    def trial(carry):
        count, _ = carry
        success = ppl.sample("success", dist.Bernoulli(p))
        return count + 1 - success, success == 1

    return ppl.loop(lambda carry: ~carry[1], trial, (0, jnp.array(False)), most)[0]


def geometric(p, most):
    return [p * (1 - p) ** k for k in range(most)] + [(1 - p) ** most]


def test_the_number_of_steps_has_its_distribution():
    measure = semantics.meaning(failures)(jnp.array(0.25))
    assert {int(value): weight for value, weight in measure} == pytest.approx(
        dict(enumerate(geometric(0.25, MOST))), rel=1e-12
    )


def test_a_trace_has_the_steps_that_were_taken():
    traces = jax.jit(jax.vmap(ppl.simulate(failures)))(jax.random.split(KEY, 64))
    taken = np.minimum(np.asarray(traces.value) + 1, MOST)
    present = traces.choices["success"].present
    np.testing.assert_array_equal(present, np.arange(MOST) < taken[:, None])
    np.testing.assert_allclose(
        np.exp(traces.log_density), np.array(geometric(0.25, MOST))[traces.value], rtol=1e-5
    )
    again = jax.vmap(ppl.log_density(failures))(traces.choices)
    np.testing.assert_allclose(again, traces.log_density, rtol=1e-5)
    assert len(set(taken.tolist())) > 3


def test_choices_of_steps_that_are_not_taken_have_no_density():
    choices = {"success": ppl.Masked(jnp.array([0, 1, 0, 0, 0, 0]), jnp.arange(MOST) < 3)}
    assert ppl.log_density(failures)(choices) == -jnp.inf
    choices = {"success": ppl.Masked(jnp.array([0, 0, 0, 0, 0, 0]), jnp.arange(MOST) < 3)}
    assert ppl.log_density(failures)(choices) == -jnp.inf


def test_it_runs_as_while_loop_does():
    def by_while(n, bound):
        return lax.while_loop(lambda c: (c[0] < n) & (c[1] < bound), lambda c: (c[0] + 2, c[1] + 1), (0, 0))[
            0
        ]

    def by_loop(n):
        return ppl.loop(lambda c: c < n, lambda c: c + 2, 0, max_steps=5)

    n = jnp.arange(14)
    np.testing.assert_array_equal(jax.vmap(by_loop)(n), jax.vmap(lambda n: by_while(n, 5))(n))
    np.testing.assert_array_equal([by_loop(k) for k in n], jax.vmap(by_loop)(n))
    assert ppl.loop(lambda c: True, lambda c: c + 1, 0, max_steps=0) == 0


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_it_stops_when_all_members_have(batch):
    executed = []

    def body(c):
        jax.debug.callback(lambda c: executed.append(int(c)), c)
        return c + 1

    def counted(n):
        return ppl.loop(lambda c: c < n, body, 0, max_steps=100)

    n = np.arange(1, 1 + np.prod(batch, dtype=int)).reshape(batch)
    for _ in batch:
        counted = jax.vmap(counted)
    np.testing.assert_array_equal(jax.jit(counted)(n), n)
    jax.effects_barrier()
    assert len(executed) == n.size * n.max()


def test_populations_stop_when_all_members_have():
    executed = []

    def program():
        n = ppl.sample("n", dist.Categorical(jnp.array([0.25, 0.25, 0.5])))

        def body(c):
            jax.debug.callback(lambda c: executed.append(int(c)), c)
            ppl.factor(-1.0)
            return c + 1

        return ppl.loop(lambda c: c < n, body, 0, max_steps=50)

    population = ppl.seed(inference.smc(program, 20))(KEY)
    jax.effects_barrier()
    assert len(executed) == 2 * 20
    assert set(population.value.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_weights_inside_a_loop(algorithm):
    def program():
        def body(carry):
            total, _ = carry
            x = ppl.sample("x", dist.Bernoulli(0.5))
            ppl.factor(0.5 * x)
            return total + x, x == 0

        total, _ = ppl.loop(lambda carry: ~carry[1], body, (0, jnp.array(False)), max_steps=2)
        return total, ppl.sample("y", dist.Bernoulli(0.25))

    exact = semantics.meaning(program)().total
    by_hand = 0.5 + np.exp(0.5) * 0.25 + np.exp(1.0) * 0.25
    assert exact == pytest.approx(by_hand, rel=1e-12)
    runs = semantics.meaning(algorithm(program, 2))()
    total = sum(weight * np.exp(population.log_weight).mean() for population, weight in runs)
    assert total == pytest.approx(exact, rel=1e-12)


def test_the_density_can_be_differentiated():
    choices = {"success": ppl.Masked(jnp.array([0, 0, 1, 0, 0, 0]), jnp.arange(MOST) < 3)}
    density = lambda p: ppl.log_density(failures)(choices, p)  # noqa: E731
    p = jnp.array(0.25)
    assert float(jax.jit(jax.grad(density))(p)) == pytest.approx(1 / 0.25 - 2 / 0.75, rel=1e-5)


def test_a_condition_that_draws():
    def program():
        return ppl.loop(lambda c: ppl.sample("again", dist.Bernoulli(0.25)) == 1, lambda c: c + 1, 0, 2)

    measure = {int(value): weight for value, weight in semantics.meaning(program)()}
    assert measure == pytest.approx({0: 0.75, 1: 0.1875, 2: 0.0625}, rel=1e-12)


def test_what_is_refused():
    with pytest.raises(ValueError, match="max_steps"):
        ppl.loop(lambda c: True, lambda c: c, 0, max_steps=-1)
    with pytest.raises(ValueError, match="max_steps"):
        ppl.loop(lambda c: True, lambda c: c, 0, max_steps=2.5)
    with pytest.raises(TypeError, match="scalar bool, got int32"):
        ppl.loop(lambda c: c, lambda c: c, 0, max_steps=1)
