"""Metropolis-Hastings: detailed balance, exactly, on finite programs; invariance by statistics on continuous ones."""

from __future__ import annotations

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from moves import imbalance, irreversibility, moved, moves
from thresholds import assert_mean, z_threshold

from borelax import inference, ppl

mh_module = importlib.import_module("borelax.inference.kernels.mh")
metropolis_module = importlib.import_module("borelax.inference.kernels.metropolis")
KEYS = jax.random.split(jax.random.key(0), 20_000)


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


# ------------------------------------------------------------------------- finite programs


def a_branch():
    """A flag that says which of two sites there is, and a third that depends on it."""
    flag = bit("flag", 0.25)
    z = lax.cond(flag == 1, lambda: bit("a", 0.75) + 1, lambda: 3 * bit("b", 0.125))
    ppl.factor(0.5 * z)
    return flag, z, bit("c", 0.25 + 0.125 * z)


def guided():
    flag = bit("flag", 0.25, proposal=dist.Bernoulli(0.5))
    z = lax.cond(flag == 1, lambda: bit("a", 0.75, proposal=dist.Bernoulli(0.25)), lambda: 0)
    ppl.factor(0.5 * z)


def chain(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Categorical(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]])[x % 2]))
        ppl.observe("y", dist.Bernoulli(0.25 + 0.25 * x), y)
        return x, x

    return lax.scan(step, 0, ys)[1]


conditioned = ppl.condition(a_branch, {"c": 1})
YS = jnp.array([0, 1])


def flip(name):
    """An asymmetric proposal of another value."""
    return lambda choices: bit(name, 0.25 + 0.25 * choices[name])


def with_its_branches(choices):
    """The flag, and a value for whichever site that brings."""
    flag = bit("flag", 0.25 + 0.25 * choices["flag"])
    lax.cond(flag == 1, lambda: bit("a", 0.25), lambda: bit("b", 0.625))


def with_one_branch(choices):
    """The flag, and a value for one site; the other is drawn by the program."""
    flag = bit("flag", 0.25 + 0.25 * choices["flag"])
    lax.cond(flag == 1, lambda: bit("a", 0.25), lambda: 0)


def with_a_value_too_many(choices):
    """Proposes a value for ``a`` whether or not there is to be such a site."""
    bit("flag", 0.25 + 0.25 * choices["flag"])
    bit("a", 0.25)


def in_a_branch(choices):
    """Proposes a flag only where c is 1."""
    lax.cond(choices["c"] == 1, lambda: bit("flag", 0.125), lambda: 0)


def in_a_guided_way(choices):
    """The proposal of a proposal's site is for importance sampling, and is not drawn from here."""
    bit("flag", 0.25 + 0.25 * choices["flag"], proposal=dist.Bernoulli(0.125))


def path(choices, ys):
    """A whole path, each step drawn from the old one."""
    lax.map(
        lambda x: ppl.sample("x", dist.Categorical(jnp.array([0.25, 0.25, 0.5])[(jnp.arange(3) + x) % 3])),
        choices["x"],
    )


KERNELS = {
    "selection": (inference.mh(a_branch, ppl.select("flag")), ()),
    "selection of all": (inference.mh(a_branch, ~ppl.select()), ()),
    "selection, guided": (inference.mh(guided, ppl.select("flag")), ()),
    "selection in a scan": (inference.mh(chain, ppl.select("x")), (YS,)),
    "flip": (inference.mh(a_branch, flip("c")), ()),
    "flip of the flag": (inference.mh(a_branch, flip("flag")), ()),
    "flip, guided": (inference.mh(guided, flip("flag")), ()),
    "flip, and another drawn anew": (inference.mh(a_branch, flip("flag"), redrawn=ppl.select("c")), ()),
    "flip, conditioned": (inference.mh(conditioned, flip("flag")), ()),
    "flip with its branches": (inference.mh(a_branch, with_its_branches), ()),
    "flip with one branch": (inference.mh(a_branch, with_one_branch), ()),
    "a value too many": (inference.mh(a_branch, with_a_value_too_many), ()),
    "in a branch": (inference.mh(a_branch, in_a_branch), ()),
    "in a guided way": (inference.mh(a_branch, in_a_guided_way), ()),
    "path": (inference.mh(chain, path), (YS,)),
}


@pytest.mark.parametrize("name", family(KERNELS, every=2))
def test_detailed_balance(name):
    kernel, args = KERNELS[name]
    mass = moves(kernel, *args)
    assert irreversibility(mass) < 1e-10
    assert moved(mass) > 0.01


def test_the_probability_of_a_move():
    """From x to y with probability q(y | x) min(1, p(y) q(x | y) / p(x) q(y | x))."""

    def model():
        ppl.factor(
            jnp.array([0.0, 1.0, 0.5])[ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))]
        )

    q = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75], [0.5, 0.25, 0.25]])
    p = np.array([0.5, 0.25, 0.25]) * np.exp([0.0, 1.0, 0.5])
    kernel = inference.mh(
        model, lambda choices: ppl.sample("x", dist.Categorical(jnp.asarray(q)[choices["x"]]))
    )
    mass = moves(kernel)
    for x in range(3):
        for y in {0, 1, 2} - {x}:
            expected = p[x] * q[x, y] * min(1.0, p[y] * q[y, x] / (p[x] * q[x, y]))
            assert mass[repr({"x": x}), repr({"x": y})] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "mutant",
    [lambda ratio, old, new: (new - old, old, new), lambda ratio, old, new: (-ratio, old, new)],
    ids=["the proposal's density dropped", "the ratio inverted"],
)
@pytest.mark.parametrize("name", ["flip", "flip with its branches"])
def test_mutants_are_caught(name, mutant, monkeypatch):
    right = metropolis_module.acceptance_probability
    monkeypatch.setattr(metropolis_module, "acceptance_probability", lambda *terms: right(*mutant(*terms)))
    assert imbalance(moves(KERNELS[name][0])) > 1e-3


def test_names_of_the_target_do_not_matter():
    def model():
        bit("accept", 0.25)
        with ppl.scope("program"):
            bit("kernel", 0.75)
        with ppl.scope("proposal"):
            bit("accept", 0.375)

    for selection in (ppl.select("accept"), ppl.select("program"), ppl.select("proposal/accept")):
        mass = moves(inference.mh(model, selection))
        assert irreversibility(mass) < 1e-10 and moved(mass) > 0.01


# ------------------------------------------------------------------------- involutions


def two_and_a_flag():
    x = ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
    y = ppl.sample("y", dist.Categorical(jnp.array([0.25, 0.125, 0.625])))
    flag = bit("flag", 0.25 + 0.125 * x)
    ppl.factor(0.25 * flag * y)


def nothing(choices):
    return None


def swap(choices, auxiliary):
    return {**choices, "x": choices["y"], "y": choices["x"]}, auxiliary


def shift(choices, auxiliary):
    """x goes up by u, and u changes its sign, modulo 3."""
    u = auxiliary["u"]
    return {**choices, "x": (choices["x"] + u) % 3}, {"u": (-u) % 3}


def shift_and_forget(choices, auxiliary):
    return {**choices, "x": (choices["x"] + auxiliary["u"]) % 3}, auxiliary


def step_up(choices):
    ppl.sample("u", dist.Categorical(jnp.array([0.125, 0.5, 0.375]) + 0.125 * choices["flag"]))


def exchange(choices, auxiliary):
    """The site that there is becomes the other one; what the auxiliary bit was for its value stays."""
    a, b = choices["a"], choices["b"]
    other = {
        "a": ppl.Masked(b.value, b.present),
        "b": ppl.Masked(a.value, a.present),
        "flag": 1 - choices["flag"],
    }
    return {**choices, **other}, auxiliary


INVOLUTIONS = {
    "swap": inference.mh(two_and_a_flag, nothing, swap),
    "shift": inference.mh(two_and_a_flag, step_up, shift),
    "exchange of branches": inference.mh(a_branch, nothing, exchange),
}


@pytest.mark.parametrize("name", INVOLUTIONS)
def test_detailed_balance_of_involutions(name):
    mass = moves(INVOLUTIONS[name])
    assert irreversibility(mass) < 1e-10
    assert moved(mass) > 0.01


def test_a_map_that_does_not_come_back_does_not_move():
    """Where it does (here, with u = 0) it stays where it is."""
    mass = moves(inference.mh(two_and_a_flag, step_up, shift_and_forget))
    assert imbalance(mass) < 1e-10 and moved(mass) < 1e-10


def scales():
    a = ppl.sample("a", dist.Gamma(2.0, 1.0))
    ppl.sample("b", dist.Gamma(3.0, 1.0 / a))
    ppl.sample("c", dist.Normal(0.0, 1.0).expand([2]))


def stretch(choices, auxiliary):
    u = auxiliary["u"]
    return {**choices, "a": choices["a"] * u, "b": choices["b"] / u**2}, {"u": 1 / u}


def split_or_merge():
    """One number, or two: given their number, each is standard normal up to its mean."""
    two = bit("two", 0.375)
    lax.cond(
        two == 1,
        lambda: ppl.sample("a", dist.Normal(1.0, 1.0)) - ppl.sample("b", dist.Normal(-1.0, 1.0)),
        lambda: ppl.sample("m", dist.Normal(0.0, 1.0)),
    )


def half_width(choices):
    """Auxiliary only where there is one number."""
    lax.cond(choices["two"] == 1, lambda: 0.0, lambda: ppl.sample("u", dist.Normal(0.5, 1.0)))


def split(choices, auxiliary):
    a, b, m, u = choices["a"], choices["b"], choices["m"], auxiliary["u"]
    split = {
        "a": ppl.Masked(m.value + 3 * u.value, m.present),
        "b": ppl.Masked(m.value - 3 * u.value, m.present),
    }
    merged = {"m": ppl.Masked((a.value + b.value) / 2, a.present)}
    return {**split, **merged, "two": 1 - choices["two"]}, {
        "u": ppl.Masked((a.value - b.value) / 6, a.present)
    }


def statistics_of_scales(choices):
    log_a = jnp.log(choices["a"])
    return jnp.stack(
        [choices["a"], log_a, jnp.log(choices["b"]), log_a**2, choices["a"] * (choices["b"] < 4)]
    )


def statistics_of_split_or_merge(choices):
    a, b, m = (jnp.where(choices[x].present, choices[x].value, 0.0) for x in "abm")
    return jnp.stack([1.0 * choices["two"], a, b, m, a * b, m**2, a**2])


CONTINUOUS = {
    "stretch": (
        scales,
        lambda choices: ppl.sample("u", dist.LogNormal(0.25, 0.5)),
        stretch,
        statistics_of_scales,
    ),
    "split or merge": (split_or_merge, half_width, split, statistics_of_split_or_merge),
}


def before_and_after(name, steps=3):
    """Statistics of draws from the target, and of the same after some steps; and how many were accepted."""
    program, proposal, involution, statistics = CONTINUOUS[name]
    kernel = inference.repeat(inference.mh(program, proposal, involution), steps)

    def run(key):
        start, go = jax.random.split(key)
        trace = ppl.simulate(program)(start)
        state = ppl.seed(kernel)(go, kernel.init(trace))
        return statistics(trace.choices), statistics(state.trace.choices), state.info.accepted

    return jax.jit(jax.vmap(run))(KEYS)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_involutions_keep_the_target(name):
    """The steps do not change any mean: the differences have mean zero."""
    before, after, accepted = before_and_after(name)
    assert_mean(np.asarray(after) - np.asarray(before), np.zeros(before.shape[1]))
    assert accepted.mean() > 0.1


@pytest.mark.parametrize(
    ("name", "factor"),
    [("stretch", 0.0), ("split or merge", -1.0)],
    ids=["dropped", "inverted"],
)
def test_a_wrong_jacobian_is_caught(name, factor, monkeypatch):
    right = mh_module.involute

    def wrong(*args):
        image, log_volume = right(*args)
        return image, jnp.where(jnp.isfinite(log_volume), factor * log_volume, log_volume)

    monkeypatch.setattr(mh_module, "involute", wrong)
    before, after, _ = before_and_after(name)
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    z = np.abs(change.mean(0)) / (change.std(0, ddof=1) / np.sqrt(len(change)) + 1e-300)
    assert z.max() > z_threshold(change.shape[1])


# ------------------------------------------------------------------------- continuous proposals


def test_a_random_walk_on_a_conjugate_posterior():
    """Started from the posterior N(y / 2, 1 / 2), it stays there. Data are arguments: one compilation does for all."""
    traced = []

    def model(y):
        traced.append(y)
        ppl.observe("y", dist.Normal(ppl.sample("x", dist.Normal(0.0, 1.0)), 1.0), y)

    step = lambda choices, y: ppl.sample("x", dist.Normal(choices["x"] + 0.5 * (y - choices["x"]), 0.75))  # noqa: E731
    kernel = inference.repeat(inference.mh(model, step), 3)

    @jax.jit
    @lambda run: jax.vmap(run, in_axes=(0, None))
    def run(key, y):
        start, go = jax.random.split(key)
        x = y / 2 + jax.random.normal(start) / jnp.sqrt(2)
        trace = ppl.update(model, {"x": x})(ppl.simulate(model)(start, y), y).trace
        x = ppl.seed(kernel)(go, kernel.init(trace, y), y).trace.choices["x"]
        return jnp.stack([x, x**2, x**3])

    counts = []
    for y in (0.5, -2.0):
        mean, variance = y / 2, 1 / 2
        expected = [mean, mean**2 + variance, mean**3 + 3 * mean * variance]
        assert_mean(run(KEYS, jnp.array(y)), expected)
        counts.append(len(traced))
    assert counts[0] == counts[1]


# ------------------------------------------------------------------------- densities of zero, and none


def test_acceptance_probability():
    probability = metropolis_module.acceptance_probability
    inf, nan = jnp.inf, jnp.nan
    assert float(probability(-1.0, 0.0, 0.0)) == pytest.approx(np.exp(-1.0))
    assert float(probability(inf, 0.0, 0.0)) == 1.0
    for ratio, old, new in [
        (nan, 0.0, nan),
        (nan, 0.0, 0.0),
        (-inf, 0.0, -inf),
        (nan, -inf, -inf),
        (nan, nan, nan),
    ]:
        assert float(probability(ratio, old, new)) == 0.0
    for ratio, old in [(inf, -inf), (nan, -inf), (-inf, -inf), (nan, nan)]:
        assert float(probability(ratio, old, 0.0)) == 1.0


def test_it_leaves_what_has_no_density_and_does_not_come_back():
    def model():
        x = ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))
        ppl.factor(jnp.array([-jnp.inf, 0.0, jnp.nan])[x])

    kernel = inference.mh(model, lambda choices: ppl.sample("x", dist.Categorical(jnp.ones(3) / 3)))
    keys = jax.random.split(jax.random.key(1), 64)

    def run(key, x):
        trace = ppl.update(model, {"x": x})(ppl.simulate(model)(key)).trace
        return ppl.seed(inference.repeat(kernel, 32))(key, kernel.init(trace)).trace.choices["x"]

    after = jax.jit(jax.vmap(run))(keys, jnp.arange(64) % 3)
    assert np.all(np.asarray(after) == 1)


# ------------------------------------------------------------------------- what is refused


def start(program, *args):
    return ppl.simulate(program)(jax.random.key(0), *args)


def run(kernel, *args):
    trace = start(kernel.program, *args)
    return ppl.seed(kernel)(jax.random.key(1), kernel.init(trace, *args), *args)


def gaussian():
    ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.sample("p", dist.Dirichlet(jnp.ones(3)))


def weighted(choices):
    ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(1.0)


def estimated(choices):
    def noisy():
        ppl.sample("out", dist.Normal(ppl.sample("in", dist.Normal(0.0, 1.0)), 1.0))

    law = ppl.marginal(noisy, "out", partial(inference.importance, n=2))
    ppl.sample("x", law())


REFUSED = {
    "unknown selection": (ppl.select("y"), None, ppl.AddressError, "names 'y'"),
    "unknown proposal": (
        lambda c: bit("xx"),
        None,
        ppl.AddressError,
        r"'xx', which is no site.*did you mean 'x'",
    ),
    "weighted": (weighted, None, ppl.UnsupportedError, r"carries a weight, 'factor' \(test_mh.py:\d+\)"),
    "estimated": (
        estimated,
        None,
        ppl.UnsupportedError,
        r"density of 'x' \(test_mh.py:\d+\) is only an estimate",
    ),
    "not a pair": (nothing, lambda c, u: c, ppl.ChoiceError, "returns a pair"),
    "a site lost": (nothing, lambda c, u: ({"x": c["x"]}, u), ppl.ChoiceError, "has lost 'choices/p'"),
    "a site made": (nothing, lambda c, u: ({**c, "y": c["x"]}, u), ppl.ChoiceError, "has made 'choices/y'"),
    "another shape": (
        nothing,
        lambda c, u: ({**c, "x": jnp.ones(2)}, u),
        ppl.ChoiceError,
        r"'x' \(test_mh.py:\d+\)",
    ),
    "a simplex": (
        nothing,
        lambda c, u: ({**c, "p": c["p"][::-1]}, u),
        ppl.UnsupportedError,
        "'p' .*fewer dimensions",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    proposal, involution, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        run(inference.mh(gaussian, proposal, involution))


def test_a_selection_has_no_involution():
    with pytest.raises(TypeError, match="leave out redrawn"):
        inference.mh(a_branch, flip("c"), lambda x, u: (x, u), ppl.select("flag"))
    with pytest.raises(TypeError, match="proposal program"):
        inference.mh(gaussian, ppl.select("x"), swap)
