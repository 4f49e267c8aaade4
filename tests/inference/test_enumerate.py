from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
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
    """The gradient of the evidence is that of the forward algorithm, by finite differences of the exact measure."""
    log_evidence = lambda p: inference.enumerate(chain)(p).log_evidence  # noqa: E731
    with jax.enable_x64(True):
        p = jnp.asarray(P, float)
        gradient = jax.grad(log_evidence)(p)
        step = 1e-6
        for i in range(3):
            up, down = (np.log(semantics.meaning(chain)(p.at[i].add(s)).total) for s in (step, -step))
            assert float(gradient[i]) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)


def test_it_is_a_program_without_draws():
    assert ppl.trace_type(inference.enumerate(branches))(P) == {}
    batch = jax.vmap(inference.enumerate(branches))(jnp.stack([P, P[::-1]]))
    for i, p in enumerate((P, P[::-1])):
        single = inference.enumerate(branches)(p)
        np.testing.assert_allclose(batch.log_evidence[i], single.log_evidence, rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(ppl.UnsupportedError, match="whose support is not finite"):
        inference.enumerate(lambda: ppl.sample("x", dist.Poisson(1.0)))()
    many = lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([20]))  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match=r"1048576 runs at 'x' .*more than the 100000"):
        inference.enumerate(many)()
    with pytest.raises(ppl.UnsupportedError, match="16 runs"):
        inference.enumerate(lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([4])), most=10)()
