from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.ppl.given import check_given
from borelax.ppl.staging import stage


def model(b):
    ppl.sample("slope", dist.Normal(0.0, 1.0))
    ppl.sample("count", dist.Poisson(1.0))
    ppl.sample("shift", dist.DiscreteUniform(-3, 3))
    ppl.observe("seen", dist.Normal(0.0, 1.0), 0.0)
    ppl.deterministic("known", 1.0)
    with ppl.scope("block"):
        jax.vmap(lambda m: ppl.sample("row", dist.Normal(m, 1.0).expand([3]).to_event(1)))(jnp.zeros(2))
    return lax.cond(b, lambda: ppl.sample("maybe", dist.Normal(0.0, 1.0)), lambda: 0.0)


STAGED = stage(model, jnp.array(True))
COMPLETE = {
    "slope": 0.5,
    "count": 2,
    "shift": -1,
    "block": {"row": np.zeros((2, 3))},
    "maybe": ppl.Masked(0.5, True),
}


def check(choices, *, complete=False):
    return check_given(STAGED, choices, complete=complete)


def test_what_fits_becomes_arrays_of_the_sites_dtypes():
    given = check(COMPLETE, complete=True)
    described = {address: (x.shape, x.dtype) for address, x in given.items() if address != ("maybe",)}
    assert described == {
        ("slope",): ((), jnp.float32),
        ("count",): ((), jnp.int32),
        ("shift",): ((), jnp.int32),
        ("block", "row"): ((2, 3), jnp.float32),
    }
    maybe = given["maybe",]
    assert (maybe.value.dtype, maybe.present.dtype, maybe.present.shape) == (jnp.float32, bool, ())


def test_a_plain_value_of_an_optional_site_is_present():
    maybe = check({"maybe": 0.5})["maybe",]
    assert float(maybe.value) == 0.5 and bool(maybe.present)


@pytest.mark.parametrize("value", [1, True, np.int64(1), np.float64(1.0), jnp.array(1), 1.0], ids=str)
def test_a_real_site_takes_any_number(value):
    array = check({"slope": value})["slope",]
    assert float(array) == 1.0 and array.dtype == jnp.float32


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        (
            {"slop": 1.0},
            ppl.AddressError,
            r"no site 'slop' \(did you mean 'slope'\?\); it has 'slope' \(test_given.py:\d+\), 'count'",
        ),
        ({"block": {"rows": 1.0}}, ppl.AddressError, r"no site 'block/rows' \(did you mean 'block/row'\?\)"),
        ({"zzz": 1.0}, ppl.AddressError, r"no site 'zzz'; it has"),
        ({"block": 1.0}, ppl.AddressError, "'block' is a scope, not a site: give a dict"),
        ({"seen": 1.0}, ppl.AddressError, r"'seen' \(test_given.*already observed"),
        ({"known": 1.0}, ppl.AddressError, r"'known' \(test_given.*computed, not sampled"),
        ({"slope": np.zeros(5)}, ppl.ChoiceError, r"'slope' .*has shape \(\).*shape \(5,\)"),
        ({"block": {"row": np.zeros(3)}}, ppl.ChoiceError, r"shape \(2, 3\) \(a leading axis.*shape \(3,\)"),
        ({"block": {"row": [[0.0] * 3, [0.0]]}}, ppl.ChoiceError, "is not an array"),
        ({"slope": "steep"}, ppl.ChoiceError, "'slope'"),
        ({"slope": None}, ppl.ChoiceError, "'slope'.*is not an array"),
        ({"slope": 1j}, ppl.ChoiceError, "dtype float32, but a value of dtype complex"),
        ({"count": 1.0}, ppl.ChoiceError, "dtype int32, but a value of dtype float64"),
        ({"count": 2**31}, ppl.ChoiceError, "does not fit into int32: 2147483648"),
        ({"shift": np.uint32(2**32 - 1)}, ppl.ChoiceError, "does not fit into int32"),
        ({"count": 2**80}, ppl.ChoiceError, "'count'"),
        ({"slope": ppl.Masked(1.0, True)}, ppl.ChoiceError, "'slope' .*in every branch.*not a Masked"),
        ({"maybe": ppl.Masked(1.0, np.array([True]))}, ppl.ChoiceError, r"'maybe'.*shape \(1,\)"),
        ({"maybe": ppl.Masked(1.0, 1)}, ppl.ChoiceError, "'maybe'.*dtype bool"),
    ],
    ids=(
        "mistyped scoped unlike scope observed computed shape axis ragged string none complex float overflow "
        "wrapped bignum masked present-shape present-dtype"
    ).split(),
)
def test_what_does_not_fit_is_refused(choices, error, message):
    with pytest.raises(error, match=message):
        check(choices)


@pytest.mark.parametrize("missing", ["slope", "block", "maybe"])
def test_a_missing_value_is_named(missing):
    choices = {name: value for name, value in COMPLETE.items() if name != missing}
    with pytest.raises(ppl.AddressError, match=rf"no value given for '{missing}.* \(test_given\.py:\d+\)"):
        check(choices, complete=True)
    assert len(check(choices)) == 4


def test_a_program_without_sites_says_so():
    with pytest.raises(ppl.AddressError, match="no site 'x'; it has none"):
        ppl.log_density(lambda: 1.0)({"x": 1.0})


def test_errors_are_also_the_built_in_ones():
    with pytest.raises(KeyError):
        check({"slop": 1.0})
    with pytest.raises(ValueError):
        check({"slope": np.zeros(5)})


def test_a_site_in_a_while_loop_is_refused():
    body = lambda x: x + ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    program = lambda: lax.while_loop(lambda x: x < 1.0, body, 0.0)  # noqa: E731
    with pytest.raises(ppl.UnsupportedError, match=r"'x' \(test_given.*while_loop"):
        ppl.trace_type(ppl.condition(program, {"x": 1.0}))()


def test_a_known_value_is_checked_against_the_support_also_within_vmap():
    program = lambda: jax.vmap(lambda r: ppl.sample("x", dist.Exponential(r)))(jnp.ones(2))  # noqa: E731
    assert np.isfinite(ppl.log_density(program)({"x": np.array([1.0, 2.0])}))
    with pytest.raises(ppl.ChoiceError, match=r"'x'.*outside the support of Exponential"):
        ppl.log_density(program)({"x": np.array([1.0, -2.0])})


def test_a_value_where_a_site_is_not_reached_may_be_anything():
    member = lambda b: lax.cond(b, lambda: ppl.sample("x", dist.Exponential(1.0)), lambda: 0.0)  # noqa: E731
    masked = ppl.Masked(np.array([1.0, -5.0]), np.array([True, False]))
    density = ppl.log_density(jax.vmap(member))({"x": masked}, jnp.array([True, False]))
    assert float(density) == -1.0


def test_a_weakly_typed_value_is_known_while_a_program_is_traced():
    program = lambda: ppl.sample("x", dist.Bernoulli(0.5))  # noqa: E731
    weak = jnp.array(1)
    assert weak.weak_type
    assert ppl.simulate(ppl.condition(program, {"x": weak}))(jax.random.key(0)).value == 1
    with pytest.raises(ppl.ChoiceError, match="outside the support"):
        ppl.simulate(ppl.condition(program, {"x": weak + 1}))(jax.random.key(0))
