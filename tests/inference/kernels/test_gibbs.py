"""Gibbs sampling: exact conditionals, by enumeration of what a step does from every state."""

from __future__ import annotations

import importlib
from ast import literal_eval

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from moves import imbalance, irreversibility, moved, moves
from thresholds import assert_mean

from borelax import inference, ppl

gibbs_module = importlib.import_module("borelax.inference.kernels.gibbs")


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def a_branch():
    flag = bit("flag", 0.25)
    z = lax.cond(flag == 1, lambda: bit("a", 0.75) + 1, lambda: 3 * bit("b", 0.125))
    ppl.factor(0.5 * z)
    return bit("c", 0.25 + 0.125 * z)


conditioned = ppl.condition(a_branch, {"c": 1})


def chain(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Categorical(jnp.array([[0.75, 0.25], [0.125, 0.875]])[x]))
        ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), y)
        return x, x

    return lax.scan(step, 0, ys)[1]


def branches_under_vmap():
    flags = jax.vmap(lambda p: bit("flag", p))(jnp.array([0.25, 0.5]))
    values = jax.vmap(lambda f: lax.cond(f == 1, lambda: bit("a", 0.75), lambda: 0))(flags)
    ppl.factor(0.5 * values.sum() - 0.25 * flags.sum())


def many_kinds():
    x = ppl.sample("x", dist.Bernoulli(jnp.array([0.25, 0.5])).to_event(1))
    ppl.sample("n", dist.Binomial(2, 0.25 + 0.25 * x[0]))
    u = ppl.sample("u", dist.DiscreteUniform(3, 4))
    ppl.factor(0.25 * x.sum() * u)


def guided():
    flag = bit("flag", 0.25, proposal=dist.Bernoulli(1.0))
    bit("a", 0.25 + 0.5 * flag, proposal=dist.Bernoulli(0.125))


def partly_known():
    flips = lax.map(lambda p: bit("flip", p), jnp.array([0.25, 0.5]))
    ppl.factor(0.5 * flips.sum())


missing = ppl.condition(partly_known, {"flip": ppl.partly([1, 0], known=[True, False])})
YS = jnp.array([0, 1])

KERNELS = {
    "a site": (inference.gibbs(a_branch, ["c"]), ()),
    "sites of branches": (inference.gibbs(a_branch, ["a", "b"]), ()),
    "jointly across branches": (inference.gibbs(a_branch, [("flag", "a", "b")]), ()),
    "conditioned": (inference.gibbs(conditioned, [("flag", "a", "b")]), ()),
    "a scan": (inference.gibbs(chain, ["x"]), (YS,)),
    "a scan, jointly": (inference.gibbs(chain, [("x",)]), (YS,)),
    "a selection": (inference.gibbs(chain, ppl.select("x")), (YS,)),
    "vmap": (inference.gibbs(branches_under_vmap, ["a"]), ()),
    "vmap, jointly": (inference.gibbs(branches_under_vmap, [("flag", "a")]), ()),
    "many kinds": (inference.gibbs(many_kinds, ["x", "n", "u"]), ()),
    "guided": (inference.gibbs(guided, ["flag", "a"]), ()),
    "guided, jointly": (inference.gibbs(guided, [("flag", "a")]), ()),
    "known in part": (inference.gibbs(missing, ["flip"]), ()),
}

SINGLE = {"a site", "jointly across branches", "a scan, jointly", "vmap, jointly", "known in part"}


@pytest.mark.parametrize("name", family(KERNELS, every=2))
def test_the_target_is_kept(name):
    kernel, args = KERNELS[name]
    mass = moves(kernel, *args)
    assert imbalance(mass) < 1e-10
    assert moved(mass) > 0.05
    if name in SINGLE:
        assert irreversibility(mass) < 1e-10


@pytest.mark.parametrize(
    "kernel",
    [
        inference.gibbs(a_branch, [("flag", "a", "b", "c")]),
        inference.gibbs(guided, [("flag", "a")]),
        inference.gibbs(lambda: bit("x", 0.25), ["x"]),
    ],
    ids=["across branches", "guided", "one site"],
)
def test_a_block_of_all_sites_draws_from_the_target(kernel):
    """What comes after is independent of what was before."""
    mass = moves(kernel)
    total = sum(mass.values())
    target: dict = {}
    for (x, _), weight in mass.items():
        target[x] = target.get(x, 0.0) + weight / total
    assert {x for _, x in mass} == target.keys()
    for (x, y), weight in mass.items():
        assert weight / total == pytest.approx(target[x] * target[y], abs=1e-10)


def test_an_element_is_drawn_from_its_conditional():
    """The last step of a path is drawn given the first, whatever it was."""
    mass = moves(inference.gibbs(partly_known, ["flip"]))
    odds = np.exp(0.5)  # of the second flip
    for (x, y), weight in mass.items():
        from_x = sum(w for (z, _), w in mass.items() if z == x)
        first, second = literal_eval(y)["flip"]
        expected = (odds / 3 if first else 1) / (1 + odds / 3) * (odds if second else 1) / (1 + odds)
        assert weight / from_x == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda log_weight: jnp.zeros_like(log_weight),
        lambda log_weight: -log_weight,
        lambda log_weight: 2 * log_weight,
    ],
    ids=["uniform", "inverted", "weighed twice"],
)
@pytest.mark.parametrize("name", ["a site", "jointly across branches"])
def test_mutants_are_caught(name, mutant, monkeypatch):
    right = gibbs_module.pick_index
    monkeypatch.setattr(
        gibbs_module,
        "pick_index",
        lambda name, log_weight: right(name, jnp.where(log_weight > -jnp.inf, mutant(log_weight), -jnp.inf)),
    )
    assert imbalance(moves(KERNELS[name][0])) > 1e-3


def test_values_that_repeat_in_a_support_count_once_each():
    """Systematic resampling lists an ancestor vector for each interval of its uniform, and may list one twice."""

    def model():
        ancestors = ppl.sample("ancestors", inference.systematic(jnp.log(jnp.array([0.5, 0.375, 0.125]))))
        ppl.factor(0.25 * ancestors.sum())

    for sites in (["ancestors"], [("ancestors",)]):
        mass = moves(inference.gibbs(model, sites))
        assert irreversibility(mass) < 1e-10 and moved(mass) > 0.05


def test_a_block_without_possible_values_stays():
    def model(x):
        z = ppl.sample("z", dist.Categorical(jnp.ones(3) / 3))
        ppl.factor(jnp.array([-jnp.inf, jnp.nan, x])[z])

    for sites in (["z"], [("z",)]):
        kernel = inference.gibbs(model, sites)

        def run(z, x, kernel=kernel):
            trace = ppl.update(model, {"z": z})(ppl.simulate(model)(jax.random.key(0), x), x).trace
            return ppl.seed(kernel)(jax.random.key(1), kernel.init(trace, x), x).trace.choices["z"]

        after = jax.jit(jax.vmap(run))(jnp.array([0, 1, 2] * 2), jnp.array([-jnp.inf] * 3 + [0.0] * 3))
        assert after.tolist() == [0, 1, 2, 2, 2, 2]


def test_next_to_continuous_sites():
    """A mixture: given the parameters, which component each observation is from has a softmax for its law."""
    traced = []

    def mixture(ys):
        traced.append(ys)
        means = ppl.sample("means", dist.Normal(0.0, 2.0).expand([2]))

        def one(y):
            z = ppl.sample("z", dist.Categorical(jnp.array([0.25, 0.75])))
            ppl.observe("y", dist.Normal(means[z], 1.0), y)

        jax.vmap(one)(ys)

    kernel = inference.gibbs(mixture, ["z"])
    keys = jax.random.split(jax.random.key(1), 10_000)
    step = jax.jit(jax.vmap(ppl.seed(kernel), in_axes=(0, None, None)))
    counts = []
    for ys in (jnp.array([-1.0, 0.5, 3.0]), jnp.array([2.0, -0.5, 0.0])):
        state = kernel.init(ppl.simulate(mixture)(jax.random.key(0), ys), ys)
        means = state.trace.choices["means"]
        expected = jax.nn.softmax(jnp.log(jnp.array([0.25, 0.75])) - (ys[:, None] - means) ** 2 / 2, axis=-1)[
            :, 1
        ]
        assert_mean(step(keys, state, ys).trace.choices["z"], expected)
        counts.append(len(traced))
    assert counts[1] - counts[0] == 1  # the simulation, which is not compiled


# ------------------------------------------------------------------------- what is refused


def with_a_normal(n):
    ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.sample("z", dist.DiscreteUniform(0, n))
    ppl.sample("w", dist.Bernoulli(0.5).expand([20]))


REFUSED = {
    "unknown": (["y"], ppl.AddressError, r"no site 'y'"),
    "unknown selection": (ppl.select("y"), ppl.AddressError, "names 'y'"),
    "continuous": (
        ["x"],
        ppl.UnsupportedError,
        r"'x' \(test_gibbs.py:\d+\) has a Normal, whose support is not finite",
    ),
    "traced bounds": (["z"], ppl.UnsupportedError, r"'z' \(test_gibbs.py:\d+\) can have are not known"),
    "too many": ([("w",)], ppl.UnsupportedError, "1048576 runs at 'w'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    sites, error, match = REFUSED[name]
    n = jnp.array(3)
    kernel = inference.gibbs(with_a_normal, sites)
    state = kernel.init(ppl.simulate(with_a_normal)(jax.random.key(0), n), n)
    with pytest.raises(error, match=match):
        jax.jit(ppl.seed(kernel))(jax.random.key(1), state, n)


@pytest.mark.parametrize("sites", ["z", [], [1], [("z", 2)]])
def test_blocks_are_addresses(sites):
    with pytest.raises(TypeError, match="list of blocks"):
        inference.gibbs(with_a_normal, sites)
