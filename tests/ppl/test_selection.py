"""Selections are sets of addresses: the laws of their algebra, and what they select."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borelax import ppl

CHOICES = {"a": {"x": 1, "y": {"z": 2, "x": 3}}, "b": 4, "c": {"x": 5}}
ADDRESSES = ["a/x", "a/y/z", "a/y/x", "b", "c/x"]
PARTS = ["a", "a/x", "a/y", "a/y/z", "b", "c", lambda address: address.endswith("x")]

atoms = st.lists(st.sampled_from(PARTS), max_size=3).map(lambda parts: ppl.select(*parts))
selections = st.recursive(
    atoms,
    lambda inner: st.one_of(
        inner.map(lambda a: ~a),
        st.tuples(inner, inner).map(lambda ab: ab[0] | ab[1]),
        st.tuples(inner, inner).map(lambda ab: ab[0] & ab[1]),
        st.tuples(inner, inner).map(lambda ab: ab[0] - ab[1]),
    ),
    max_leaves=5,
)


def chosen(selection) -> set[str]:
    return {address for address in ADDRESSES if address in selection}


@given(selections, selections, selections)
def test_the_laws_of_sets(a, b, c):
    x, y, everything = chosen(a), chosen(b), set(ADDRESSES)
    assert chosen(a | b) == x | y
    assert chosen(a & b) == x & y
    assert chosen(a - b) == x - y
    assert chosen(~a) == everything - x
    assert chosen(~(a | b)) == chosen(~a & ~b)
    assert chosen(a & (b | c)) == chosen((a & b) | (a & c))
    assert chosen(~~a) == x


@given(selections)
def test_the_selected_part_of_choices(selection):
    """Selecting and its complement divide the choices: no sibling is lost."""
    flat = {address: value for address, value in zip(ADDRESSES, [1, 2, 3, 4, 5])}
    inside, outside = spelled(selection.of(CHOICES)), spelled((~selection).of(CHOICES))
    assert inside == {address: flat[address] for address in chosen(selection)}
    assert inside | outside == flat and not inside.keys() & outside.keys()


def spelled(choices, prefix="") -> dict:
    flat = {}
    for name, value in choices.items():
        flat |= spelled(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


@pytest.mark.parametrize(
    "make", [lambda s: s, lambda s: ~s, lambda s: ppl.select("b") | s], ids=["", "not", "or"]
)
def test_an_unknown_address_is_an_error(make):
    with pytest.raises(
        ppl.AddressError, match=r"names 'a/w', which is no site here \(did you mean 'a/x'\?\)"
    ):
        make(ppl.select("a/w")).of(CHOICES)
    with pytest.raises(ppl.AddressError, match="names 'x'"):
        make(ppl.select("x")).of(CHOICES)


def test_nothing_and_everything():
    assert ppl.select().of(CHOICES) == {} and (~ppl.select()).of(CHOICES) == CHOICES


def test_only_addresses_and_predicates():
    with pytest.raises(TypeError, match="got 3"):
        ppl.select(3)


def test_a_selection_says_what_it_is():
    assert repr(~(ppl.select("a/x") | ppl.select("b"))) == "~(select('a/x') | select('b'))"
