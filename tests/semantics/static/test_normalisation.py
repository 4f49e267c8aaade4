"""Programs without mass, or with infinite mass, are found; what is found is true of what they mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from borelax import ppl, semantics
from borelax.semantics.static.normalisation import normalisation


def normal(name):
    return ppl.sample(name, dist.Normal(0.0, 1.0))


def severities(program, *args):
    return [finding.severity for finding in normalisation(program)(*args)]


def factored(weight):
    return lambda: ppl.factor(weight(normal("x")))


def observing(d, value):
    return lambda: ppl.observe("y", d, value)


def rejecting_branch():
    jax.lax.cond(normal("x") > 0.0, lambda: None, lambda: ppl.factor(-jnp.inf))


NO_MASS = {
    "constant": factored(lambda x: -jnp.inf),
    "log of zero": factored(lambda x: jnp.log(0.0 * jnp.abs(jnp.tanh(x)))),
    "log of a negative": factored(lambda x: jnp.log(jnp.minimum(-jnp.exp(x), 0.0) * 0.0)),
    "never true": factored(lambda x: jnp.where(x * x < 0.0, 0.0, -jnp.inf)),
    "in a loop": lambda: jax.lax.scan(lambda c, _: (ppl.factor(-jnp.inf), c)[1:] * 2, 0.0, jnp.arange(2)),
    "negative wait": observing(dist.Exponential(1.0), -2.0),
    "at the edge": observing(dist.HalfNormal(1.0), 0.0),
    "above one": observing(dist.Beta(2.0, 2.0), 1.5),
    "no such outcome": observing(dist.Categorical(jnp.ones(3) / 3), 3),
    "impossible outcome": observing(dist.Categorical(jnp.array([0.5, 0.0, 0.5])), 1),
    "too many": observing(dist.Binomial(3, 0.5), 4),
    "one of several": observing(dist.Exponential(jnp.ones(3)).to_event(1), jnp.array([1.0, 1.0, -1.0])),
    "computed": lambda: ppl.observe("y", dist.Uniform(2.0, 3.0), jax.nn.sigmoid(normal("x"))),
    "another point": observing(dist.Delta(1.0), 2.0),
}
SOME_MASS = {
    "plain": lambda: normal("x"),
    "factor": factored(lambda x: -x * x),
    "may reject": factored(lambda x: jnp.where(x > 0.0, 0.0, -jnp.inf)),
    "a branch rejects": rejecting_branch,
    "wait": observing(dist.Exponential(1.0), 2.0),
    "edge": observing(dist.Beta(2.0, 1.0), 1.0),
    "outcome": observing(dist.Categorical(jnp.array([0.5, 0.0, 0.5])), 2),
    "simplex": observing(dist.Dirichlet(jnp.ones(2)), jnp.array([0.5, 0.5])),
    "computed": lambda: ppl.observe("y", dist.Uniform(0.5, 3.0), jax.nn.sigmoid(normal("x"))),
    "the same point": observing(dist.Delta(1.0), 1.0),
    "nothing to do": lambda: jax.lax.scan(lambda c, _: (ppl.factor(-jnp.inf), c)[1:] * 2, 0.0, jnp.arange(0)),
}


@pytest.mark.parametrize("name", NO_MASS)
def test_no_mass_is_found(name):
    assert severities(NO_MASS[name]) == ["error"]
    draws = jax.vmap(lambda key: ppl.seed(ppl.weigh(NO_MASS[name]))(key)[1])(
        jax.random.split(jax.random.key(0), 20)
    )
    assert not np.any(np.exp(np.asarray(draws)) > 0)


@pytest.mark.parametrize("name", SOME_MASS)
def test_mass_is_left_alone(name):
    assert severities(SOME_MASS[name]) == []
    draws = jax.vmap(lambda key: ppl.seed(ppl.weigh(SOME_MASS[name]))(key)[1])(
        jax.random.split(jax.random.key(0), 20)
    )
    assert np.any(np.exp(np.asarray(draws)) > 0)


def test_an_observation_outside_in_a_branch_is_a_warning():
    def program():
        outside = lambda: ppl.observe("y", dist.Exponential(1.0), -1.0)  # noqa: E731
        jax.lax.cond(normal("x") > 0.0, outside, lambda: 0.0)

    assert severities(program) == ["warning"]


def test_random_finite_programs():
    """Three coins and three factors that reject: an error exactly if the enumerated mass is 0."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(12):
        tables = np.where(rng.uniform(size=(3, 2, 2)) < 0.5, -np.inf, 0.0)

        def program(tables=tables):
            coins = [ppl.sample(f"c{i}", dist.Bernoulli(0.5)) for i in range(3)]
            for table, a, b in zip(tables, coins, coins[1:] + coins[:1]):
                ppl.factor(jnp.asarray(table, float)[a, b])

        empty = semantics.meaning(program)().total == 0
        assert severities(program) == (["error"] if empty else [])
        found.append(empty)
    assert 0 < sum(found) < len(found)


def test_many_runs_and_unknown_arguments_are_not_added_up():
    def many():
        coins = jax.vmap(lambda _: ppl.sample("c", dist.Bernoulli(0.5)))(jnp.arange(40))
        ppl.factor(jnp.where(jnp.all(coins == 2), 0.0, -jnp.inf))

    assert severities(many) == ["error"]  # by its bounds

    def unknown(x):
        ppl.sample("c", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x > 0, 0.0, -jnp.inf))

    inside = []
    jax.jit(lambda x: (inside.append(severities(unknown, x)), x)[1])(jnp.array(0.0))
    assert inside == [[]] and severities(unknown, jnp.array(0.0)) == ["error"]


class Flat(dist.ImproperUniform):
    """An improper distribution with draws, of whatever law."""

    def sample(self, key, sample_shape=()):
        return jax.random.normal(key, (*sample_shape, *self.shape()))


def test_improper_draws():
    line = lambda: ppl.sample("x", Flat(constraints.real, (), ()))  # noqa: E731
    bounded = lambda: ppl.sample("x", Flat(constraints.unit_interval, (), ()))  # noqa: E731

    def weighed():
        ppl.observe("y", dist.Normal(line(), 1.0), 0.5)

    def indirectly():
        x = line()
        ppl.observe("y", dist.Normal(ppl.sample("z", dist.Normal(x, 1.0)), 1.0), 0.5)

    assert severities(line) == ["error"]
    assert severities(weighed) == severities(indirectly) == ["warning"]
    assert severities(bounded) == []


def test_an_infinite_weight_and_a_mask():
    assert severities(factored(lambda x: jnp.inf)) == ["error"]
    assert severities(factored(lambda x: jnp.exp(x))) == []
    assert severities(lambda: ppl.sample("x", dist.Normal(0.0, 1.0).mask(False))) == ["warning"]
