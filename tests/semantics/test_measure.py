"""Finite measures: what is one value, what is equal, and the algebra."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from borelax.ppl import Masked
from borelax.semantics import Difference, Measure

COIN = Measure([0, 1], [0.75, 0.25])


def die(n: int) -> Measure:
    return Measure(range(n), np.full(n, 1 / n))


# ------------------------------------------------------------------------- what is one value


def test_equal_values_are_one_and_null_ones_none():
    measure = Measure([1, 0, 1, 2], [0.25, 0.5, 0.25, 0.0])
    assert measure.values == [1, 0] and measure.weights.tolist() == [0.5, 0.5]
    assert len(measure) == 2 and measure.total == 1.0


def test_from_a_stack_and_from_log_weights():
    values = {"x": np.array([0, 1, 0]), "y": np.array([[0.5], [1.0], [0.5]])}
    one = Measure.of(values, np.log([0.25, 0.5, 0.25]))
    other = Measure.stacked(values, [0.25, 0.5, 0.25])
    assert one == other and len(one) == 2
    assert one.stack["y"].shape == (2, 1)


def test_zeros_are_one_value_and_so_are_what_is_not_a_number():
    assert len(Measure([0.0, -0.0], [0.5, 0.5])) == 1
    other_nan = np.uint64(0xFFF8000000000001).view(np.float64)
    assert len(Measure([np.nan, other_nan], [0.5, 0.5])) == 1
    assert Measure([np.nan], [1.0]) == Measure([other_nan], [1.0])
    assert Measure([np.inf], [1.0]) != Measure([-np.inf], [1.0])


def test_what_is_not_present_does_not_count():
    here, away = np.array([True, False]), np.array([False, False])
    one = Measure([Masked(np.array([1, 2]), here), Masked(np.array([1, 3]), here)], [0.5, 0.25])
    assert len(one) == 1 and one.total == 0.75
    assert one.distance(Measure([Masked(np.array([1, 9]), here)], [0.75])) == 0.0
    assert one.distance(Measure([Masked(np.array([1, 2]), away)], [0.75])) == 0.75


def test_arrays_pairs_and_empty_values():
    assert len(Measure([(), ()], [1.0, 2.0])) == 1
    assert Measure([jnp.array([1, 0]), np.array([1, 0])], [1.0, 2.0]) == Measure([np.array([1, 0])], [3.0])
    assert len(Measure([(0, 1), (1, 0)], [1.0, 1.0])) == 2


def test_values_have_one_structure_and_one_weight_each():
    with pytest.raises(TypeError, match="one structure"):
        Measure([0, (0, 1)], [1.0, 1.0])
    with pytest.raises(ValueError, match="2 values and 1 weights"):
        Measure([0, 1], [1.0])


# ------------------------------------------------------------------------- what is equal


def test_the_distance_is_that_of_the_set_where_two_differ_most():
    one, other = Measure(range(4), [0.4, 0.3, 0.2, 0.1]), Measure(range(4), [0.1, 0.5, 0.2, 0.2])
    subsets = [[i for i in range(4) if mask >> i & 1] for mask in range(16)]
    largest = max(abs(sum(one.weights[i] - other.weights[i] for i in s)) for s in subsets)
    assert one.distance(other) == pytest.approx(largest) == pytest.approx(0.3)
    assert other.distance(one) == pytest.approx(0.3)


def test_the_distance_of_measures_of_different_mass():
    assert COIN.distance(2.0 * COIN) == pytest.approx(1.0)
    assert COIN.distance(Measure([], [])) == pytest.approx(1.0)
    assert Measure([5], [1.0]).distance(Measure([6], [1.0])) == pytest.approx(1.0)


def test_differences_come_largest_first():
    one, other = Measure(range(3), [0.5, 0.25, 0.25]), Measure([2, 0, 7], [0.5, 0.375, 0.125])
    found = [(int(d.value), d.one, d.other) for d in one.differences(other)]
    assert sorted(found[:2]) == [(1, 0.25, 0.0), (2, 0.25, 0.5)]
    assert sorted(found[2:]) == [(0, 0.5, 0.375), (7, 0.0, 0.125)]
    assert len(one.differences(other, tolerance=0.2)) == 2
    assert str(Difference(1, 0.25, 0.5)) == "1: 0.25 and 0.5"


def test_equality_is_up_to_rounding_of_weights():
    assert COIN == Measure([1, 0], [0.25 + 1e-12, 0.75])
    assert COIN != Measure([1, 0], [0.25 + 1e-9, 0.75])
    assert Measure([0], [1e6]) == Measure([0], [1e6 + 1e-5])  # relative to the mass if it is large
    assert COIN != "coin"
    with pytest.raises(TypeError, match="unhashable"):
        hash(COIN)


def test_equality_is_up_to_rounding_of_values():
    """Also of values halfway between two of ten digits, and next to a power of two or of ten."""
    rng = np.random.default_rng(0)
    dyadic = [k * 2.0**-n for n in range(40) for k in (1, 3, 5)]
    values = [*dyadic, 10.0, 100.0, 0.1, 0.3, *(rng.normal(size=300) * 10.0 ** rng.integers(-3, 6, 300))]
    for x in values:
        for nudge in (3e-16, -3e-16):
            assert Measure([x], [1.0]).distance(Measure([x * (1 + nudge)], [1.0])) == 0.0
    for x in (0.25, 3.0, 1e5):
        assert Measure([x], [1.0]).distance(Measure([x * (1 + 1e-8)], [1.0])) == 1.0


def test_values_of_single_precision_agree_to_fewer_digits():
    x = np.float32(1 / 3)
    assert Measure([x], [1.0]).distance(Measure([np.nextafter(x, np.float32(1))], [1.0])) == 0.0
    assert Measure([x], [1.0]).distance(Measure([np.float32(x + 1e-3)], [1.0])) == 1.0


def test_integers_of_any_width_are_the_same():
    assert Measure([np.int32(3)], [1.0]) == Measure([np.int64(3)], [1.0])


def test_measures_of_different_structures_cannot_be_compared():
    with pytest.raises(TypeError, match="different structures"):
        COIN.distance(Measure([(0, 1)], [1.0]))


# ------------------------------------------------------------------------- the algebra


def test_expectations_are_not_normalised():
    measure = Measure([(1, 2.0), (3, 4.0)], [0.5, 1.5])
    one, other = measure.expectation()
    assert (one, other) == (5.0, 7.0)
    np.testing.assert_array_equal(measure.expectation(lambda v: np.array([v[0], v[1] ** 2])), [5.0, 26.0])


def test_pushing_forward_adds_up():
    assert die(4).map(lambda x: x % 2) == Measure([0, 1], [0.5, 0.5])
    f, g = (lambda x: x // 2), (lambda x: x + 1)
    assert die(6).map(f).map(g) == die(6).map(lambda x: g(f(x)))
    assert die(6).map(lambda x: x) == die(6)


def test_the_laws_of_bind():
    def f(x):
        return Measure([x, x + 1], [0.5, 0.25 * (1 + x)])

    def g(x):
        return Measure([x * x, x % 3], [0.125, 2.0])

    unit = lambda x: Measure([x], [1.0])  # noqa: E731
    assert unit(3).bind(f) == f(3)
    assert die(4).bind(unit) == die(4)
    assert die(4).bind(f).bind(g) == die(4).bind(lambda x: f(x).bind(g))
    assert die(4).bind(f).total == pytest.approx(0.25 * sum(0.5 + 0.25 * (1 + x) for x in range(4)))


def test_products_have_the_marginals_and_commute():
    product = COIN * die(3)
    assert product.map(lambda v: v[0]) == COIN and product.map(lambda v: v[1]) == die(3)
    assert (die(3) * COIN).map(lambda v: (v[1], v[0])) == product
    assert (COIN * (2.0 * die(3))).total == pytest.approx(2.0)


def test_sums_and_multiples():
    assert COIN + COIN == 2.0 * COIN
    assert 0.5 * (COIN + Measure([2], [1.0])) == Measure([0, 1, 2], [0.375, 0.125, 0.5])


def test_normalising():
    assert (3.0 * COIN).normalise() == COIN
    with pytest.raises(ZeroDivisionError, match="total mass zero"):
        Measure([], []).normalise()
    with pytest.raises(ZeroDivisionError, match="total mass zero"):
        Measure([1], [0.0]).normalise()


# ------------------------------------------------------------------------- how it looks


def test_it_shows_its_values():
    assert repr(COIN) == "Measure on 2 values, total mass 1\n  0.75  0\n  0.25  1"
    assert repr(Measure([], [])) == "Measure on 0 values, total mass 0"
    *_, last = repr(die(25)).splitlines()
    assert last == "  ... and 5 more" and len(repr(die(25)).splitlines()) == 22


def test_in_a_notebook_it_has_bars():
    html = COIN._repr_html_()
    assert "Measure on 2 values, total mass 1" in html
    assert "width:100.0%" in html and "width:33.3%" in html and "0.75" in html
    assert "… and 5 more" in die(25)._repr_html_()
    assert "total mass 0" in Measure([], [])._repr_html_()


def test_what_it_shows_is_escaped():
    assert "<script>" not in Measure([0], [1.0]).map(lambda x: {"<script>": x})._repr_html_()


def test_a_weight_that_is_no_number_equals_nothing():
    lost = Measure([1, 2], [0.5, np.nan])
    for other in (lost, Measure([1, 2], [0.5, 0.5]), Measure([1], [0.5])):
        assert np.isnan(lost.distance(other)) and lost != other and other != lost
        assert lost.differences(other)[0].value == 2
