"""Independent draws: the rows follow the law that ``vmap`` over split keys gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from thresholds import assert_mean

from borelax.ppl.randomness import independent

KEY = jax.random.key(0)
SHAPES = jnp.array([0.5, 3.0, 20.0])


def marsaglia(key, scale):
    """A rejection loop written by hand: uniform on the disc of radius ``scale``, its squared radius."""

    def body(carry):
        key, _ = carry
        key, used = jax.random.split(key)
        return key, jax.random.uniform(used, (2,), minval=-1.0)

    _, point = jax.lax.while_loop(lambda carry: jnp.sum(carry[1] ** 2) > 1, body, (key, jnp.full(2, 2.0)))
    return scale * jnp.sum(point**2)


SAMPLERS = {
    "normal": (lambda key, a: a * jax.random.normal(key), lambda x, a: stats.norm.cdf(x, scale=a)),
    "gamma": (lambda key, a: jax.random.gamma(key, a), stats.gamma.cdf),
    "beta": (lambda key, a: jax.random.beta(key, a, 2.0), lambda x, a: stats.beta.cdf(x, a, 2.0)),
    "exponential": (lambda key, a: jax.random.exponential(key) / a, lambda x, a: stats.expon.cdf(x * a)),
    "rejection": (marsaglia, lambda x, a: x / a),
    "split and fold": (
        lambda key, a: a * jax.random.uniform(jax.random.fold_in(jax.random.split(key, 3)[1], 7)),
        lambda x, a: x / a,
    ),
    "fold in an operand": (
        lambda key, a: a * jax.random.uniform(jax.random.fold_in(key, a.astype(int))),
        lambda x, a: x / a,
    ),
}


def assert_independent_uniforms(u) -> None:
    """Means, second moments and all correlations, ``u[draws, ...]``."""
    centred = np.asarray(u, np.float64).reshape(len(u), -1) - 0.5
    assert_mean(centred, np.zeros(centred.shape[1]))
    assert_mean(np.einsum("ni,nj->nij", centred, centred), np.eye(centred.shape[1]) / 12)
    assert_mean(centred**4, np.full(centred.shape[1], 1 / 80))


def many(fun, *args, count=2000):
    return np.asarray(
        jax.jit(jax.vmap(lambda key: fun(key, *args)))(jax.random.split(KEY, count)), np.float64
    )


@pytest.mark.parametrize(("sampler", "cdf"), SAMPLERS.values(), ids=SAMPLERS)
def test_rows_are_independent_draws(sampler, cdf):
    draws = many(independent(sampler, 3, (True,)), SHAPES)
    assert_independent_uniforms(cdf(draws, np.asarray(SHAPES, np.float64)))


@pytest.mark.parametrize("name", ["normal", "gamma", "rejection"])
def test_an_operand_that_all_rows_share(name):
    sampler, cdf = SAMPLERS[name]
    assert_independent_uniforms(cdf(many(independent(sampler, 4, (False,)), jnp.array(3.0)), 3.0))


@pytest.mark.parametrize("name", ["normal", "gamma", "rejection", "split and fold"])
def test_axes_nest(name):
    sampler, cdf = SAMPLERS[name]
    nested = independent(independent(sampler, 3, (True,)), 2, (False,))
    draws = many(nested, SHAPES)
    assert draws.shape == (2000, 2, 3)
    assert_independent_uniforms(cdf(draws, np.asarray(SHAPES, np.float64)))
    crossed = independent(independent(sampler, 2, (False,)), 3, (True,))
    draws = many(crossed, SHAPES)
    assert draws.shape == (2000, 3, 2)
    assert_independent_uniforms(cdf(draws, np.asarray(SHAPES, np.float64)[:, None]))


DISCRETE = {
    "poisson, small and large": (
        lambda key, a: jax.random.poisson(key, a),
        lambda a: stats.poisson.pmf(np.arange(60), a),
    ),
    "categorical": (
        lambda key, a: jax.random.categorical(key, jnp.log(jnp.array([1.0, 2.0]) * jnp.array([a, 1.0]))),
        lambda a: np.array([a, 2.0]) / (a + 2.0),
    ),
    "permutation": (lambda key, a: jax.random.permutation(key, 3)[0], lambda a: np.full(3, 1 / 3)),
    "binomial": (
        lambda key, a: jax.random.binomial(key, 10, a / 25).astype(int),
        lambda a: stats.binom.pmf(np.arange(11), 10, a / 25),
    ),
}


@pytest.mark.parametrize(("sampler", "pmf"), DISCRETE.values(), ids=DISCRETE)
def test_the_law_is_that_of_vmap_over_split_keys(sampler, pmf):
    by_split = lambda key, xs: jax.vmap(sampler)(jax.random.split(key, 3), xs)  # noqa: E731
    for fun in (independent(sampler, 3, (True,)), by_split):
        draws = many(fun, SHAPES)
        for column, a in zip(draws.T, np.asarray(SHAPES, np.float64)):
            probabilities = pmf(a)
            likely = np.flatnonzero(probabilities * len(column) > 100)  # where a mean is nearly normal
            assert_mean(column[:, None] == likely, probabilities[likely])


def test_a_function_that_ignores_its_key():
    same = independent(lambda key, x, y: x + y, 3, (True, False))
    np.testing.assert_array_equal(same(KEY, jnp.arange(3), jnp.array(10)), [10, 11, 12])
    np.testing.assert_array_equal(
        independent(lambda key, y: y, 3, (False,))(KEY, jnp.arange(2)), [[0, 1]] * 3
    )


def test_keys_that_are_returned_differ():
    keys = independent(lambda key: jax.random.split(key, 2), 3, ())(KEY)
    assert keys.shape == (3, 2)
    assert len(np.unique(jax.random.key_data(keys).reshape(6, -1), axis=0)) == 6


def test_bits_are_generated_once_for_all_rows():
    """What ``independent`` is for: one large call of the generator, not one per row."""
    fun = independent(lambda key, mean: mean + jax.random.normal(key, (4,)), 5, (True,))
    text = str(jax.make_jaxpr(fun)(KEY, jnp.zeros(5)))
    assert text.count("random_bits[") == 1 and "shape=(5, 4)" in text and "random_split" not in text


def test_the_same_key_gives_the_same_draws_under_jit():
    for sampler, _ in SAMPLERS.values():
        fun = independent(sampler, 3, (True,))
        np.testing.assert_allclose(jax.jit(fun)(KEY, SHAPES), fun(KEY, SHAPES), rtol=1e-6)
