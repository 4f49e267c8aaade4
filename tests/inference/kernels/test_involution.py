"""The volume that involutions change, against determinants worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import ppl
from borelax.inference.kernels.involution import involute
from borelax.ppl.staging import stage

THREE = dist.Normal(0.0, 1.0).expand([3])


def model():
    ppl.sample("x", THREE)
    ppl.sample("y", dist.LogNormal(0.0, 1.0))
    ppl.sample("z", dist.Categorical(jnp.ones(4) / 4))
    flag = ppl.sample("flag", dist.Bernoulli(0.5))
    jax.lax.cond(flag == 1, lambda: ppl.sample("a", THREE), lambda: jnp.zeros(3))
    jax.lax.cond(flag == 1, lambda: jnp.zeros(3), lambda: ppl.sample("b", THREE))


def auxiliary():
    ppl.sample("u", dist.Normal(0.0, 1.0))


def moved(involution, flag=1):
    sites = {
        (side, *info.address): info
        for side, program in (("choices", model), ("auxiliary", auxiliary))
        for info in stage(program).of_kind("sample")
    }
    present, absent = (
        ppl.Masked(jnp.array([1.0, 2.0, 3.0]), jnp.array(bool(here))) for here in (flag, 1 - flag)
    )
    choices = {
        "x": jnp.array([0.5, -1.0, 2.0]),
        "y": jnp.array(2.0),
        "z": jnp.array(1),
        "flag": jnp.array(flag),
        "a": present,
        "b": absent,
    }
    return jax.jit(lambda *point: involute(involution, point, sites))(choices, {"u": jnp.array(3.0)})


def reflect(x):
    """A reflection of points that are scaled along one axis, and scaled back."""
    scale, normal = jnp.array([2.0, 1.0, 1.0]), jnp.array([1.0, 2.0, 2.0]) / 3
    return (scale * x - 2 * normal * jnp.dot(normal, scale * x)) / scale


INVOLUTIONS = {
    "nothing": (lambda c, u: (c, u), 0.0),
    "reciprocal": (lambda c, u: ({**c, "y": 1 / c["y"]}, u), -np.log(4.0)),
    "reflection": (lambda c, u: ({**c, "x": reflect(c["x"])}, u), 0.0),
    "permutation": (lambda c, u: ({**c, "x": c["x"][::-1]}, u), 0.0),
    "discrete": (lambda c, u: ({**c, "z": 3 - c["z"]}, u), 0.0),
    "product": (lambda c, u: ({**c, "y": c["y"] * jnp.exp(c["x"].sum())}, {"u": u["u"]}), None),
    "across": (lambda c, u: ({**c, "y": jnp.exp(u["u"])}, {"u": jnp.log(c["y"])}), 3.0 - np.log(2.0)),
    "one by a power of the other": (
        lambda c, u: ({**c, "x": c["x"] * u["u"]}, {"u": 1 / u["u"]}),
        np.log(3.0),
    ),
}


@pytest.mark.parametrize("name", INVOLUTIONS)
def test_the_volume(name):
    involution, expected = INVOLUTIONS[name]
    log_volume = float(moved(involution)[1])
    if expected is None:  # it does not come back
        assert log_volume == -np.inf
    else:
        assert log_volume == pytest.approx(expected, abs=1e-5)


def change_branch(choices, auxiliary):
    """Doubles a into b, or halves b into a."""
    a, b = choices["a"], choices["b"]
    other = {"a": ppl.Masked(b.value / 2, b.present), "b": ppl.Masked(2 * a.value, a.present)}
    return {**choices, **other, "flag": 1 - choices["flag"]}, auxiliary


@pytest.mark.parametrize("flag", [0, 1])
def test_only_what_is_present_counts(flag):
    (choices, _), log_volume = moved(change_branch, flag)
    assert int(choices["flag"]) == 1 - flag
    assert float(log_volume) == pytest.approx((1 if flag else -1) * 3 * np.log(2.0), rel=1e-5)


def lose_dimensions(choices, auxiliary):
    """Comes back, but from a point with three numbers less."""
    a = choices["a"]
    return {**choices, "a": ppl.Masked(a.value * 1.0, ~a.present)}, auxiliary


def test_the_numbers_of_dimensions_have_to_agree():
    assert float(moved(lose_dimensions)[1]) == -np.inf
