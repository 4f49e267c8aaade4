from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hidden_markov import EMITS, MOVES, PROGRAMS, SEEN, all_runs, chain, forward_backward
from jax import lax

from borelax import inference, ppl
from borelax.ppl.choices import flatten
from borelax.ppl.population import DegenerateError
from borelax.ppl.without_replacement import WithoutReplacement


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_they_are_those_of_all_runs(program):
    with jax.enable_x64(True):
        found = flatten(jax.jit(inference.posterior_marginals(program))())
    (_, choices), weights = all_runs(program)
    choices = flatten(choices)
    assert found.keys() == choices.keys()
    for address, marginal in found.items():
        choice = choices[address]
        drawn, present = (choice.value, choice.present) if isinstance(choice, ppl.Masked) else (choice, True)
        for k, value in enumerate(np.asarray(marginal.values)):
            expected = np.average((drawn == value) & present, axis=0, weights=weights)
            np.testing.assert_allclose(marginal.probability[..., k], expected, atol=1e-12)


def test_the_backward_algorithm():
    with jax.enable_x64(True):
        found = jax.jit(inference.posterior_marginals(chain))(jnp.asarray(MOVES), jnp.asarray(EMITS), SEEN)
    _, expected = forward_backward(MOVES, EMITS, SEEN)
    np.testing.assert_allclose(found["state"].probability, expected, atol=1e-12)


def test_independent_copies_and_values_that_are_arrays():
    """Axes of vmap and of the distribution are axes of the probabilities; a value may have axes itself."""
    weights = jnp.array([[0.25, 0.5, 0.75], [0.125, 0.25, 0.5]])

    def program():
        x = jax.vmap(lambda p: ppl.sample("x", dist.Bernoulli(p)))(weights)
        order = ppl.sample("order", WithoutReplacement(3, 2))
        ppl.factor(jnp.log(1.0 + order[0]))
        return x

    found = jax.jit(inference.posterior_marginals(program))()
    np.testing.assert_allclose(found["x"].probability, jnp.stack([1 - weights, weights], -1), rtol=1e-5)
    expected = (1.0 + found["order"].values[:, 0]) / 12
    assert found["order"].values.shape == (6, 2)
    np.testing.assert_allclose(found["order"].probability, expected, rtol=1e-5)


def test_what_is_refused():
    marginals = lambda program: jax.jit(inference.posterior_marginals(program))()  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match="'x' .*whose support is not finite"):
        marginals(lambda: ppl.sample("x", dist.Poisson(1.0)))

    def moving():
        a = ppl.sample("a", dist.Bernoulli(0.5))
        return ppl.sample("b", inference.systematic(jnp.array([0.0, 0.5 * a])))

    with pytest.raises(ppl.UnsupportedError, match="'b' .*values depend on what is computed before"):
        marginals(moving)

    def disagreeing():
        a = ppl.sample("a", dist.Bernoulli(0.5))
        return lax.cond(
            a == 1,
            lambda: ppl.sample("b", dist.Categorical(jnp.ones(2) / 2)),
            lambda: ppl.sample("b", dist.Categorical(jnp.ones(3) / 3)),
        )

    with pytest.raises(ppl.UnsupportedError, match="'b' .*other values in one branch"):
        marginals(disagreeing)


def impossible():
    x = ppl.sample("x", dist.Bernoulli(0.5))
    ppl.factor(jnp.where(x < 2, -jnp.inf, 0.0))


def test_nothing_has_a_posterior_where_nothing_has_weight():
    with pytest.raises(DegenerateError, match="no run of the program has weight"):
        inference.posterior_marginals(impossible)()
    assert np.isnan(jax.jit(inference.posterior_marginals(impossible))()["x"].probability).all()
