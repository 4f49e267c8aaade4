from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from borelax.inference.exact.merge import add_up, classes


def test_members_are_alike_where_all_is_the_same():
    whole = jnp.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, 1]])
    real = jnp.array([0.5, 0.0, 0.5, 1.5, -0.0, jnp.nan])
    flag = jnp.array([True, True, True, True, True, True])
    number, count = classes([whole, real, flag], jnp.ones(6, bool))
    assert int(count) == 4
    assert number[0] == number[2] and number[1] == number[4]
    assert len(set(number.tolist())) == 4


def test_members_without_weight_are_in_no_class():
    number, count = classes([jnp.array([2, 1, 1, 3])], jnp.array([True, False, True, False]))
    assert int(count) == 2 and sorted(number.tolist()) == [0, 1, 2**30, 2**30]
    number, count = classes([], jnp.array([True, True]))
    assert int(count) == 1 and number.tolist() == [0, 0]


def test_weights_are_added_up_by_class():
    log_weight = jnp.array([0.5, -jnp.inf, 1.5, -200.0, 0.0])
    state = jnp.array([0, 1, 0, 2, 4])  # the last one is in none
    total = add_up(log_weight, state, 4)
    np.testing.assert_allclose(total[:3], [np.logaddexp(0.5, 1.5), -np.inf, -200.0], rtol=1e-6)
    assert total[3] == -np.inf
    gradient = jax.grad(lambda x: add_up(x, state, 4)[0])(log_weight)
    np.testing.assert_allclose(gradient, [1 / (1 + np.e), 0, np.e / (1 + np.e), 0, 0], rtol=1e-5)
    assert np.isnan(add_up(log_weight.at[1].set(jnp.nan), state, 4)[1])
