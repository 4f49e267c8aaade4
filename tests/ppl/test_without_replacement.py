from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thresholds import assert_mean

from borelax import ppl, semantics
from borelax.ppl.without_replacement import WithoutReplacement


def test_every_order_of_every_choice_is_equally_likely():
    measure = semantics.meaning(lambda: ppl.sample("i", WithoutReplacement(4, 2)))()
    weights = {tuple(value.tolist()): weight for value, weight in measure}
    expected = {(i, j): 1 / 12 for i in range(4) for j in range(4) if i != j}
    assert weights == pytest.approx(expected, rel=1e-12)


def test_draws_have_the_probabilities():
    draws = WithoutReplacement(4, 2).sample(jax.random.key(0), (20_000,))
    first, second = np.asarray(draws).T
    assert draws.shape == (20_000, 2) and np.all(first != second)
    frequencies = np.stack([(first == i) & (second == j) for i in range(4) for j in range(4) if i != j], -1)
    assert_mean(frequencies, np.full(12, 1 / 12))


@pytest.mark.parametrize(
    ("value", "log_prob"), [([2, 0], -np.log(6)), ([1, 1], -np.inf), ([0, 3], -np.inf), ([-1, 0], -np.inf)]
)
def test_the_density(value, log_prob):
    d = WithoutReplacement(3, 2)
    assert float(d.log_prob(jnp.array(value))) == pytest.approx(log_prob, rel=1e-6)
    assert d.log_prob(jnp.array([value] * 5)).shape == (5,)


def test_a_shuffle_chooses_everything():
    draw = WithoutReplacement(5, 5).sample(jax.random.key(0))
    assert sorted(draw.tolist()) == [0, 1, 2, 3, 4]


def test_too_many_possibilities_are_not_enumerated():
    with pytest.raises(ppl.UnsupportedError, match="2 out of 1000 .* 999000 possibilities"):
        WithoutReplacement(1000, 2).enumerate_support()
