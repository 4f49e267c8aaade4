"""The joint distribution test: exactly on finite programs, and against kernels that are wrong in many ways."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax

from borelax import inference, ppl, semantics


def coins():
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.sample("y", dist.Bernoulli(0.125 + 0.5 * x))


def branch():
    """Data of a site that only one branch has, and of one that every branch has."""
    x = ppl.sample("x", dist.Bernoulli(0.25))
    z = lax.cond(x == 1, lambda: ppl.sample("z", dist.Bernoulli(0.75)) + 1, lambda: 0)
    ppl.sample("y", dist.Bernoulli(0.25 + 0.25 * z))


def data_in_the_middle():
    """A parameter whose own distribution depends on the data."""
    x = ppl.sample("x", dist.Bernoulli(0.25))
    y = ppl.sample("y", dist.Bernoulli(0.125 + 0.5 * x))
    ppl.sample("z", dist.Bernoulli(0.25 + 0.25 * x + 0.375 * y))


KERNELS = {
    "gibbs": lambda target: inference.gibbs(target, ["x"]),
    "mh": lambda target: inference.mh(target, ppl.select("x")),
    "cycle": lambda target: inference.cycle(
        inference.mh(target, ppl.select("x")), inference.gibbs(target, ["x"])
    ),
}


@pytest.mark.parametrize(
    ("program", "kernel_of"),
    [(coins, KERNELS["mh"]), (data_in_the_middle, KERNELS["gibbs"]), (data_in_the_middle, KERNELS["cycle"])],
    ids=["mh", "gibbs", "cycle"],
)
def test_right_kernels_exactly(program, kernel_of):
    report = semantics.joint_distribution_test(program, "y", kernel_of)()
    assert report.holds and report.error < 1e-12 and report.how.startswith("exact")


@pytest.mark.parametrize("observed", ["y", ppl.select("y", "z")], ids=str)
def test_data_in_branches(observed):
    report = semantics.joint_distribution_test(branch, observed, KERNELS["mh"])()
    assert report.holds and report.error < 1e-12 and report.how.startswith("exact")


def test_errors_add_up():
    """A kernel that drifts a little: three steps go farther than one."""

    def drift(target):
        return lambda choices: {"x": choices["x"] | ppl.sample("up", dist.Bernoulli(0.125))}

    errors = [semantics.joint_distribution_test(coins, "y", drift, steps=n)().error for n in (1, 2, 3)]
    assert errors[0] > 0.05 and errors[0] < errors[1] < errors[2]


def flipping(wrong):
    """Metropolis-Hastings on a coin that proposes the other side, with any acceptance rule."""

    def kernel_of(target):
        def kernel(choices):
            other = {"x": 1 - choices["x"]}
            ratio = jnp.exp(ppl.log_density(target)(other) - ppl.log_density(target)(choices))
            accepted = ppl.sample("accept", dist.Bernoulli(wrong(ratio)))
            return {"x": jnp.where(accepted == 1, other["x"], choices["x"])}

        return kernel

    return kernel_of


def test_an_acceptance_rule_exactly():
    check = lambda rule: semantics.joint_distribution_test(coins, "y", flipping(rule))()  # noqa: E731
    assert check(lambda ratio: jnp.minimum(1, ratio)).holds
    assert not check(lambda ratio: jnp.minimum(1, 1 / ratio)).holds
    report = check(lambda ratio: 1.0)
    assert not report.holds and report.counterexample.program == "coins" and report.how.startswith("exact")


def test_a_kernel_that_ignores_the_data_keeps_the_parameters_but_not_the_joint_law():
    ignores = lambda target: lambda choices: {"x": ppl.sample("new", dist.Bernoulli(0.25))}  # noqa: E731
    with pytest.raises(semantics.CheckFailed, match="joint distribution of coins"):
        semantics.assert_joint_distribution_test(coins, "y", ignores)()


def test_how_data_are_redrawn():
    """A kernel that does nothing is right, so this tells whether the parameters that depend on the data are counted."""
    nothing = lambda target: lambda choices: choices  # noqa: E731
    report = semantics.joint_distribution_test(data_in_the_middle, "y", nothing)()
    assert report.holds and report.error < 1e-12


# ------------------------------------------------------------------------- by a test


def line(xs, *_):
    w = ppl.sample("w", dist.Normal(0.0, 1.0).expand([2]))
    ppl.sample("y", dist.Normal(w[0] + w[1] * xs, 0.5).to_event(1))


def metropolis(target):
    """A random walk. The arguments say what is wrong with it."""

    def step(key, choices, *args):
        _, power, seen = args
        propose, decide = jax.random.split(key)
        new = {"w": choices["w"] + 0.3 * jax.random.normal(propose, (2,))}
        data = {"y": jnp.where(seen == 1, target.data["y"], 0.0)}
        density = lambda w: ppl.log_density(ppl.condition(line, data))(w, *args)  # noqa: E731
        accepted = jnp.log(jax.random.uniform(decide)) < power * (density(new) - density(choices))
        return {"w": jnp.where(accepted, new["w"], choices["w"])}

    return semantics.keyed(step)


WRONG = {
    "always accepts": (0.0, 1.0),
    "the wrong way round": (-1.0, 1.0),
    "at another temperature": (0.5, 1.0),
    "other data": (1.0, 0.0),
}
check_metropolis = semantics.joint_distribution_test(line, "y", metropolis)
XS = jnp.array([-1.0, 0.0, 1.0])


def test_a_right_kernel():
    budget = semantics.Budget(draws=8_192)
    report = semantics.joint_distribution_test(line, "y", metropolis, budget)(
        XS, jnp.array(1.0), jnp.array(1.0)
    )
    assert report.holds and report.how.startswith("by a test on")


@pytest.mark.parametrize(("wrong",), family([(wrong,) for wrong in WRONG.values()], every=2), ids=WRONG)
def test_a_wrong_kernel_is_found(wrong):
    report = check_metropolis(XS, *map(jnp.array, wrong))
    assert not report.holds and report.p_value <= 1e-6


def test_a_kernel_of_ours():
    def proposal(choices, *_):
        ppl.sample("w", dist.Normal(choices["w"], 0.3))

    check = partial(semantics.joint_distribution_test, line, "y", budget=semantics.Budget(draws=8_192))
    assert check(lambda target: inference.mh(target, proposal))(XS).holds


# ------------------------------------------------------------------------- what is refused


def weighted():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(-x)
    ppl.sample("y", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("program", "observed", "error", "match"),
    [
        (weighted, "y", ppl.UnsupportedError, "carries weights.*sample site"),
        (coins, "z", ppl.AddressError, "'z', which is no site"),
        (coins, ["x", "y"], ppl.AddressError, "nothing to infer"),
    ],
)
def test_what_cannot_be_simulated_is_refused(program, observed, error, match):
    with pytest.raises(error, match=match):
        semantics.joint_distribution_test(program, observed, KERNELS["gibbs"])()


def test_what_moves_the_data_is_refused():
    moves_data = lambda target: lambda choices: {**choices, "y": jnp.array(1)}  # noqa: E731
    with pytest.raises(ppl.ChoiceError, match="has to return such choices"):
        semantics.joint_distribution_test(coins, "y", moves_data)()


@pytest.mark.parametrize("steps", [0, 1.5])
def test_steps_that_make_no_sense_are_refused(steps):
    with pytest.raises(ValueError, match="steps"):
        semantics.joint_distribution_test(coins, "y", KERNELS["gibbs"], steps=steps)
