"""Kernels that follow gradients: transitions by quadrature, what they leave as it is, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEYS = jax.random.split(jax.random.key(0), 20_000)
START = 0.7


def skewed():
    return ppl.sample("x", dist.Gamma(2.0, 1.0))


def expected(num_steps: int, step_size: float, mass: float) -> np.ndarray:
    """What a step from START leads to: the means of log x, its square, and the probability of acceptance.

    By the trapezoidal rule over the momentum; u = log x has the log density 2 u - exp(u).
    """
    momentum = np.linspace(-9, 9, 200_001) * np.sqrt(mass)
    u, p = np.full_like(momentum, np.log(START)), momentum.copy()
    energy = lambda u, p: np.exp(u) - 2 * u + p**2 / (2 * mass)  # noqa: E731
    before = energy(u, p)
    for _ in range(num_steps):
        p = p + step_size / 2 * (2 - np.exp(u))
        u = u + step_size * p / mass
        p = p + step_size / 2 * (2 - np.exp(u))
    accept = np.exp(np.minimum(before - energy(u, p), 0))
    u0 = np.log(START)
    outcomes = np.stack([accept * u + (1 - accept) * u0, accept * u**2 + (1 - accept) * u0**2, accept])
    return np.trapezoid(outcomes * stats.norm.pdf(momentum, scale=np.sqrt(mass)), momentum)


def found(kernel):
    """The same of many steps."""
    trace = ppl.update(skewed, {"x": START})(ppl.simulate(skewed)(KEYS[0])).trace
    state = kernel.init(trace)

    def step(key):
        after = ppl.seed(kernel)(key, state)
        u = jnp.log(after.trace.value)
        return jnp.stack([u, u**2, after.info.acceptance_rate])

    return jax.jit(jax.vmap(step))(KEYS)


MASS = jnp.array([0.5])
TRANSITIONS = {
    "hmc": (inference.hmc, {"num_steps": 3, "step_size": 0.9}),
    "mala": (inference.mala, {"step_size": 1.4}),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_is_the_one_that_the_formula_gives(name):
    make, options = TRANSITIONS[name]
    number, step_size = options.get("num_steps", 1), options["step_size"]
    outcomes = found(make(skewed, inverse_mass=MASS, **options))
    right = expected(number, step_size, 2.0)
    assert 0.5 < right[2] < 0.95  # rejections matter
    assert_mean(outcomes, right)
    for wrong in (expected(number, 0.95 * step_size, 2.0), expected(number, step_size, 1.9)):
        with pytest.raises(AssertionError, match="largest z"):
            assert_mean(outcomes, wrong)


def test_the_energy_is_that_of_the_point_where_a_step_ends():
    """With a step of no length the energy is that of the start: its mean is minus the log density, plus n / 2."""
    kernel = inference.hmc(skewed, num_steps=1, step_size=1e-6, inverse_mass=MASS)
    rejected = inference.hmc(skewed, num_steps=1, step_size=50.0, inverse_mass=MASS)
    trace = ppl.update(skewed, {"x": START})(ppl.simulate(skewed)(KEYS[0])).trace
    for one in (kernel, rejected):
        energy = jax.jit(jax.vmap(lambda key: ppl.seed(one)(key, one.init(trace)).info.energy))(KEYS)
        assert_mean(energy, START - 2 * np.log(START) + 0.5)


# ------------------------------------------------------------------------------ what stays as it is


def walled(wall=1e30):
    """All that is beyond the wall is impossible; bounded sites of which most trajectories are rejected."""
    x = ppl.sample("x", dist.Uniform(0.0, 1.0).expand([3]))
    s = ppl.sample("s", dist.LogNormal(0.0, 1.0))
    ppl.factor(jnp.where(s < wall, 0.0, -jnp.inf))
    return x, s


@pytest.mark.parametrize("make", [inference.hmc, inference.nuts, inference.mala])
def test_a_rejected_step_leaves_every_bit_as_it_is(make):
    """Mapped to R^n and back, values would be rounded."""
    kernel = make(walled, step_size=1e4)

    def run(key):
        trace = ppl.simulate(walled)(key)
        return trace, ppl.seed(kernel)(key, kernel.init(trace))

    before, after = jax.jit(jax.vmap(run))(KEYS[:64])
    assert np.mean(after.info.divergent) > 0.9
    still = np.asarray(after.info.acceptance_rate == 0)
    assert still.sum() > 50
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after.trace)):
        np.testing.assert_array_equal(np.asarray(x)[still], np.asarray(y)[still])


@pytest.mark.parametrize("make", [inference.hmc, inference.nuts])
def test_a_value_on_the_edge_of_its_support_stays_there(make):
    trace = ppl.update(walled, {"x": jnp.array([0.0, 0.5, 0.5])})(ppl.simulate(walled)(KEYS[0])).trace
    kernel = make(walled, step_size=0.1)
    after = jax.jit(ppl.seed(kernel))(KEYS[1], kernel.init(trace))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), trace, after.trace))
    assert float(after.info.acceptance_rate) == 0.0


def test_the_trace_is_the_one_at_its_choices():
    def program(y):
        x = ppl.sample("x", dist.Gamma(2.0, 1.0))
        double = ppl.deterministic("double", 2 * x)
        z = ppl.sample("z", dist.Normal(x, 1.0), proposal=dist.Normal(0.0, 3.0))
        ppl.observe("y", dist.Normal(z, 1.0), y)
        return double + z

    y = jnp.array(1.0)
    kernel = inference.nuts(program, ["x"], step_size=0.5)
    state = kernel.init(ppl.simulate(program)(KEYS[0], y), y)
    after = jax.jit(ppl.seed(kernel))(KEYS[1], state, y).trace
    again = ppl.update(program)(after, y).trace
    assert float(after.choices["x"]) != float(state.trace.choices["x"])
    assert float(after.choices["z"]) == float(state.trace.choices["z"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), after, again)


def test_a_trajectory_has_at_most_as_many_steps_as_its_doublings_allow():
    kernel = inference.nuts(skewed, step_size=1e-3, max_doublings=3)
    info = jax.jit(ppl.seed(kernel))(KEYS[0], kernel.init(ppl.simulate(skewed)(KEYS[1]))).info
    assert int(info.num_steps) == 7 and bool(info.cut_short) and not bool(info.divergent)
    free = inference.nuts(skewed, step_size=0.5)
    assert not bool(jax.jit(ppl.seed(free))(KEYS[0], free.init(ppl.simulate(skewed)(KEYS[1]))).info.cut_short)


# ------------------------------------------------------------------------------ steps in a row


def labelled(y):
    z = ppl.sample("z", dist.Bernoulli(0.25))
    x = ppl.sample("x", dist.Gamma(2.0 + 6 * z, 1.0))
    p = ppl.sample("p", dist.Dirichlet(jnp.ones(3)))
    ppl.observe("y", dist.Normal(x + p[0], 1.0), y)
    return x


MAKERS = {
    "hmc": lambda: inference.hmc(labelled, ["x", "p"], num_steps=2, step_size=0.7),
    "nuts": lambda: inference.nuts(labelled, ["x", "p"], step_size=0.7, max_doublings=2),
    "mclmc": lambda: inference.mclmc(labelled, ["x", "p"], step_size=1.5),
}


@jax.jit
def what_is_there(trace, positions, y):
    """The log densities and gradients at some positions, and the trace at the last of them."""
    free = ppl.unconstrain(ppl.condition(labelled, {"z": trace.choices["z"]}))
    split = lambda position: {"p": position[:2], "x": position[2]}  # noqa: E731
    values = jax.vmap(jax.value_and_grad(lambda position: free.log_density(split(position), y)))(positions)
    return values, ppl.update(labelled, free.constrain(split(positions[-1]), y))(trace, y).trace


@pytest.mark.parametrize("name", MAKERS)
def test_a_place_has_the_gradient_where_it_is_and_leads_to_the_trace_there(name):
    kernel, y = MAKERS[name](), jnp.array(1.0)
    trace = jax.jit(ppl.simulate(labelled))(KEYS[0], y)

    @jax.jit
    def run(keys):
        state = kernel.init(trace, y)
        begin = replace(state, trace=kernel.loop.enter(trace, y))
        step = ppl.seed(kernel.loop.step)
        places = jax.lax.scan(lambda state, key: (step(key, state, y),) * 2, begin, keys)[1].trace
        return places, ppl.seed(kernel.loop.leave)(keys[0], jax.tree.map(lambda x: x[-1], places), y)

    places, left = run(KEYS[:16])
    (value, gradient), there = what_is_there(trace, places.position, y)
    np.testing.assert_allclose(places.log_density, value, rtol=1e-5)
    np.testing.assert_allclose(places.gradient, gradient, rtol=1e-4, atol=1e-5)
    assert 2 < len(np.unique(places.position[:, 0]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), left, there)


def two():
    z = ppl.sample("z", dist.Bernoulli(0.5))
    return ppl.sample("x", dist.Normal(2.0 * z - 1.0, 1.0))


@pytest.mark.parametrize("stale", [False, True])
def test_the_gradient_from_before_another_kernel_moved_is_not_the_one(stale):
    """What would save an evaluation in a cycle would be wrong, and is found to be."""
    gibbs = inference.gibbs(two, ["z"])
    hmc = inference.hmc(two, ["x"], num_steps=1, step_size=1.0)

    def step(state):
        before = hmc.loop.enter(state.trace)
        trace = gibbs(inference.State(state.trace)).trace
        place = hmc.loop.enter(trace)
        if stale:
            place = replace(place, log_density=before.log_density, gradient=before.gradient)
        after = hmc.loop.step(replace(state, trace=place))
        return replace(after, trace=hmc.loop.leave(after.trace))

    budget = semantics.Budget(draws=8_192, batch=1_024)
    kernel = inference.Kernel(two, hmc.init, step)
    assert semantics.leaves_invariant(kernel, two, budget=budget)().holds != stale


# ------------------------------------------------------------------------------ refusals


def kinds():
    x = ppl.sample("x", dist.Gamma(2.0, 1.0))
    ppl.sample("z", dist.Categorical(jnp.ones(3) / 3))
    ppl.sample("n", dist.Poisson(x))
    ppl.sample("turn", dist.ProjectedNormal(jnp.zeros(2)))
    jax.lax.cond(x > 1, lambda: ppl.sample("branch", dist.Normal(0.0, 1.0)), lambda: 0.0)


def none():
    ppl.factor(-1.0)


REFUSED = {
    "discrete": (
        lambda: inference.nuts(kinds, ["x", "z"]),
        r"'z' \(test_gradient_kernel.py:\d+\) is discrete.*inference.cycle\(inference.nuts\(program, \['x'\]\), "
        r"inference.gibbs\(program, \['z'\]\)\)",
    ),
    "discrete alone": (
        lambda: inference.nuts(kinds, ["z"]),
        r"write inference.gibbs\(program, \['z'\]\), with",
    ),
    "all, some discrete": (lambda: inference.hmc(kinds), r"gibbs\(program, \['z', 'n'\]\)"),
    "on a circle": (lambda: inference.mala(kinds, ["turn"]), "'turn' .*no one-to-one map"),
    "in a branch": (lambda: inference.hmc(kinds, ["branch"]), "'branch' .*missing from some branch"),
    "no site": (lambda: inference.hmc(none), "no site for hmc to move"),
    "none selected": (lambda: inference.hmc(kinds, []), "no site for hmc to move"),
}


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, match):
    kernel = make()
    trace = ppl.simulate(kernel.program)(KEYS[0])
    with pytest.raises(ppl.UnsupportedError, match=match):
        kernel.init(trace)


def test_an_unknown_address_is_refused():
    with pytest.raises(ppl.AddressError, match="did you mean 'x'"):
        inference.nuts(walled, ["xx"]).init(ppl.simulate(walled)(KEYS[0]))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: inference.nuts(skewed, "x"), TypeError, r"write \['x'\]"),
        (lambda: inference.hmc(skewed, step_size=0.0), ValueError, "step size is a positive number"),
        (lambda: inference.hmc(skewed, step_size=np.nan), ValueError, "step size is a positive number"),
        (lambda: inference.hmc(skewed, num_steps=0), ValueError, "positive number of steps"),
        (lambda: inference.nuts(skewed, max_doublings=1.5), ValueError, "positive number of times"),
        (lambda: inference.nuts(skewed, target_acceptance=1.0), ValueError, "between 0 and 1"),
        (lambda: inference.nuts(skewed, inverse_mass=1.0), ValueError, r"is \[n\]"),
        (lambda: inference.nuts(skewed, inverse_mass=jnp.ones((2, 3))), ValueError, r"the shape \(2, 3\)"),
        (lambda: inference.nuts(skewed, inverse_mass=jnp.array([1.0, -1.0])), ValueError, "positive"),
        (
            lambda: inference.nuts(skewed, inverse_mass=jnp.array([[1.0, 2.0], [2.0, 1.0]])),
            ValueError,
            "positive",
        ),
        (
            lambda: inference.nuts(skewed, inverse_mass=jnp.array([[1.0, 0.5], [0.0, 1.0]])),
            ValueError,
            "symmetric",
        ),
        (
            lambda: inference.nuts(skewed, inverse_mass=jnp.ones(2)).init(ppl.simulate(skewed)(KEYS[0])),
            ValueError,
            r"1 coordinates in all.*\(2,\)",
        ),
    ],
)
def test_options_that_make_no_sense(make, error, match):
    with pytest.raises(error, match=match):
        make()
