from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from borelax import ppl
from borelax.ppl.choices import align, flatten, nest, spell

NAMES = st.sampled_from("abc")
NESTED = st.dictionaries(
    NAMES,
    st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, min_size=1), max_leaves=6),
)


@given(NESTED)
def test_nest_is_the_inverse_of_flatten(choices):
    flat = flatten(choices)
    assert nest(flat) == choices
    assert all(isinstance(part, str) for address in flat for part in address)
    assert list(flat.values()) == [choices_at(choices, address) for address in flat]


def choices_at(choices, address):
    for part in address:
        choices = choices[part]
    return choices


@pytest.mark.parametrize(
    "choices", [1.0, [("x", 1.0)], jnp.zeros(2), None], ids=["float", "list", "array", "none"]
)
def test_choices_are_dicts(choices):
    with pytest.raises(TypeError, match="nested dicts keyed by address"):
        flatten(choices)


@pytest.mark.parametrize("key", [0, ("a", "b"), None])
def test_addresses_are_strings(key):
    with pytest.raises(TypeError, match="addresses are strings"):
        flatten({"scope": {key: 1.0}})


def test_a_site_has_no_sites_below_it():
    with pytest.raises(ppl.AddressError, match=r"'x/y' lies under 'x'"):
        nest({("x",): 1.0, ("x", "y"): 2.0})


def test_addresses_are_spelt_with_slashes():
    assert spell(("a", "b", "c")) == "a/b/c"


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_align_broadcasts_from_the_left(shape):
    flag = jnp.arange(int(np.prod(shape))).reshape(shape) % 2 == 0
    value = jnp.ones((*shape, 4, 5))
    picked = jnp.where(align(flag, value), value, 0.0)
    np.testing.assert_array_equal(picked.sum((-2, -1)), 20.0 * flag)


def test_the_union_of_masked_choices_takes_what_is_present():
    one = ppl.Masked(jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), jnp.array([True, False, False]))
    other = ppl.Masked(-one.value, jnp.array([False, True, False]))
    union = one | other
    np.testing.assert_array_equal(union.present, [True, True, False])
    np.testing.assert_array_equal(union.value[:2], [[1.0, 2.0], [-3.0, -4.0]])


def test_masked_is_a_pytree():
    masked = ppl.Masked(jnp.arange(3), jnp.array([True, False, True]))
    doubled = jax.jit(lambda m: jax.tree.map(lambda x: x * 2 if x.dtype != bool else ~x, m))(masked)
    np.testing.assert_array_equal(doubled.value, [0, 2, 4])
    np.testing.assert_array_equal(doubled.present, [False, True, False])
