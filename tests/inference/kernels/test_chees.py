"""ChEES: the transition is that of HMC, the ascent that of the criterion; and what chains learn is one for all."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from adaptation import dual_averaging, shrunk, stage
from posteriors import POSTERIORS, errors
from thresholds import z_threshold

from borelax import inference, ppl
from borelax.inference.kernels.hmc import fixed_length
from borelax.inference.kernels.tuning import Tuner
from borelax.inference.kernels.tuning_by_chees import ByChees, Length, Proposal

KEY = jax.random.key(0)
CHAINS, N = 1000, 3
RNG = np.random.default_rng(0)


def skewed():
    return ppl.sample("x", dist.Gamma(2.0, 1.0))


# ------------------------------------------------------------------------------ the transition


def test_it_is_hmc_along_trajectories_of_a_halton_sequence():
    """Of 1/2, 1/4, 3/4, 1/8, ... of the length, in whole steps."""
    kernel = inference.chees(skewed, step_size=0.25, trajectory_length=2.0, inverse_mass=jnp.array([0.5]))
    state = kernel.init(ppl.simulate(skewed)(KEY))
    step = jax.jit(ppl.seed(kernel))
    taken = []
    for number, key in enumerate(jax.random.split(KEY, 7)):
        before, state = state, step(key, state)
        taken.append(int(state.info.num_steps))
        if number in (0, 2):
            tuner = Tuner(0.25, jnp.array([0.5]), False, 0.8)
            same = fixed_length("chees", skewed, None, taken[-1], tuner)  # with the name, so with its key
            again = jax.jit(ppl.seed(same))(key, same.init(before.trace))
            np.testing.assert_allclose(state.trace.value, again.trace.value, rtol=1e-6)
    assert taken == [4, 2, 6, 1, 5, 3, 7]


def test_a_trajectory_has_at_most_so_many_steps():
    kernel = inference.chees(skewed, step_size=0.01, trajectory_length=2.0, max_steps=5)
    after = jax.jit(ppl.seed(kernel))(KEY, kernel.init(ppl.simulate(skewed)(KEY)))
    assert int(after.info.num_steps) == 5 and after.info.cut_short


def test_after_a_short_warmup_chains_move():
    """The last search for a step size has steps enough, to come down from where it begins."""
    program = lambda: ppl.sample("x", dist.Normal(jnp.zeros(3), jnp.array([0.1, 1.0, 10.0])))  # noqa: E731
    draws = inference.mcmc(inference.chees(program), 10, 20, num_chains=16)(KEY)
    assert draws.info.acceptance_rate.mean() > 0.5 and not draws.info.cut_short.any()


# ------------------------------------------------------------------------------ the criterion


def circling(share: float, length: float, scale=1.0, rates=1.0) -> Proposal:
    """The trajectories of chains whose target is normal, with that scale: circles, at unit mass ellipses."""
    start = scale * RNG.normal(size=(CHAINS, N))
    momentum = RNG.normal(size=(CHAINS, N))
    time = share * length / scale
    end = start * np.cos(time) + scale * momentum * np.sin(time)
    turned = momentum * np.cos(time) - start / scale * np.sin(time)
    one = jnp.ones(CHAINS)
    arrays = [jnp.asarray(x, float) for x in (start, end, turned)]
    return Proposal(*arrays, rates * one, jnp.zeros(CHAINS, bool), share * one)


def memory_of(learner: ByChees, proposal: Proposal, is_new=True, **changes) -> Length:
    one = learner.start(jnp.zeros(N))
    ascent = learner._begun(*(jnp.asarray(changes.get(x, 1.0)) for x in ("step_size", "trajectory_length")))
    one = replace(one, ascent=ascent, **{name: jnp.asarray(x, float) for name, x in changes.items()})
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (CHAINS, *jnp.shape(x))), one)
    return replace(many, proposal=proposal, is_new=jnp.full(CHAINS, is_new))


LEARNER = ByChees(None, None, None, 0.7, 1000)
learn = jax.jit(LEARNER.learn)


@pytest.mark.parametrize(("share", "length"), [(0.5, 2.8), (0.9, 1.5), (0.5, 3.5), (0.9, 3.0)])
def test_a_length_goes_towards_a_quarter_of_the_period(share, length):
    """Of a normal law the criterion is, up to a factor, sin(time)^2: as much as the squared radius changes."""
    after = learn(memory_of(LEARNER, circling(share, length), trajectory_length=length), stage())
    moved = np.log(np.asarray(after.ascent.trajectory_length[0]) / length)
    np.testing.assert_allclose(moved, 0.1 * np.sign(np.sin(2 * share * length)), rtol=1e-3)
    assert np.all(after.trajectory_length == after.trajectory_length[0]) and not np.any(after.is_new)


def test_the_criterion_is_in_units_of_the_mass():
    """With the target's variances as the inverse mass its scale does not matter."""
    proposal = circling(0.5, 2.8)
    scale = jnp.array([0.01, 1.0, 100.0])
    scaled = proposal._replace(
        start=proposal.start * scale, end=proposal.end * scale, momentum=proposal.momentum / scale
    )
    found = [
        learn(memory_of(LEARNER, x, trajectory_length=2.8, inverse_mass=mass), stage())
        for x, mass in ((proposal, jnp.ones(N)), (scaled, scale**2))
    ]
    ascents = [after.ascent.optim_state for after in found]
    for x, y in zip(*map(jax.tree.leaves, ascents)):
        np.testing.assert_allclose(x, y, rtol=1e-3)


def test_the_step_size_follows_the_harmonic_mean_of_acceptance_rates():
    rates = RNG.uniform(0.1, 1.0, size=CHAINS)
    harmonic = 1 / np.mean(1 / rates)
    memory = memory_of(LEARNER, circling(0.5, 2.0, rates=rates), step_size=0.4)
    found = []
    for last in (False, False, True):
        memory = learn(replace(memory, is_new=jnp.ones(CHAINS, bool)), stage(ends=last))
        found.append(float(memory.step_size[0]))
    sizes, _ = dual_averaging([harmonic] * 3, 0.4, 0.7)
    np.testing.assert_allclose(found[:2], sizes[:2], rtol=1e-4)
    weights = [(1 - 2**-0.5) * (1 - 3**-0.5), 2**-0.5 * (1 - 3**-0.5), 3**-0.5]
    np.testing.assert_allclose(np.log(found[2]), np.dot(weights, np.log(sizes)), rtol=1e-3)


def test_what_is_given_stays():
    options = {"step_size": 0.3, "trajectory_length": 2.0, "inverse_mass": jnp.array([1.0, 2.0, 3.0])}
    for name in options:
        others = {other: x for other, x in options.items() if other != name}
        learner = ByChees(*(others.get(key) for key in options), 0.7, 1000)
        memory = memory_of(learner, circling(0.5, 2.5))
        after = learner.learn(memory, stage(in_window=True, ends_window=True, ends=True))
        assert np.all(getattr(after, name)[0] != getattr(memory, name)[0])
        for other, x in others.items():
            np.testing.assert_allclose(getattr(after, other)[0], x, rtol=1e-6)
    assert ByChees(*options.values(), 0.7, 1000).adapt_together is None


def test_the_inverse_mass_is_the_variance_of_all_chains_in_a_window():
    """Its end keeps a length in units of the widest coordinate, a step size in those of the narrowest."""
    scale = np.array([0.5, 1.0, 4.0])
    first, second = (
        circling(0.5, 2.0)._replace(start=jnp.asarray(RNG.normal(size=(CHAINS, N)) * scale)) for _ in "ab"
    )
    known = jnp.array([1.0, 1.0, 1.01])
    begun = memory_of(LEARNER, first, trajectory_length=2.0, step_size=0.3, inverse_mass=known)
    within = learn(begun, stage(in_window=True))
    np.testing.assert_array_equal(within.inverse_mass, begun.inverse_mass)
    again = replace(within, proposal=second, is_new=jnp.ones(CHAINS, bool))
    after = learn(again, stage(in_window=True, ends_window=True))
    all_of_them = np.concatenate([first.start, second.start])
    variance = np.diag(shrunk(np.cov(all_of_them.T), 2 * CHAINS))
    np.testing.assert_allclose(after.inverse_mass[7], variance, rtol=1e-4)
    before = learn(again, stage(in_window=True)).ascent
    wider = np.sqrt(variance / known)
    length, step_size = (x[0] for x in ByChees._averages(before)[::-1])
    found = after.ascent.trajectory_length[0], after.ascent.step_size[0]
    np.testing.assert_allclose(found, [length / wider.max(), step_size / wider.min()], rtol=1e-4)
    assert np.all(after.moments.count == 0)
    unknown = learn(
        replace(again, inverse_mass=jnp.ones((CHAINS, N))), stage(in_window=True, ends_window=True)
    )
    np.testing.assert_allclose(unknown.ascent.trajectory_length, np.pi / 2, rtol=1e-6)


def test_lost_chains_and_those_that_have_not_moved_teach_nothing():
    proposal = circling(0.5, 2.8)
    lost = jnp.arange(CHAINS) % 3 == 0
    broken = proposal._replace(start=jnp.where(lost[:, None], jnp.nan, proposal.start))
    still = memory_of(LEARNER, proposal, trajectory_length=2.8)
    found = [
        learn(x, stage(in_window=True))
        for x in (memory_of(LEARNER, broken, trajectory_length=2.8), replace(still, is_new=~lost))
    ]
    for x in found:
        assert np.all(x.moments.count == CHAINS - np.sum(lost)) and np.all(np.isfinite(x.trajectory_length))
    np.testing.assert_allclose(found[0].moments.squares, found[1].moments.squares, rtol=1e-5)
    asleep = learn(memory_of(LEARNER, proposal, is_new=False, trajectory_length=2.8), stage(in_window=True))
    assert np.all(asleep.ascent.step == 1) and np.all(asleep.moments.count == 0)
    np.testing.assert_allclose(asleep.trajectory_length, 2.8, rtol=1e-6)


# ------------------------------------------------------------------------------ chains


def test_chains_draw_from_a_posterior_by_what_they_have_learnt_together():
    posterior = POSTERIORS["ill_scaled"]()
    kernel = inference.chees(posterior.program)
    run = inference.mcmc(kernel, num_samples=500, num_warmup=400, num_chains=16)
    draws = run(KEY, *map(jnp.asarray, posterior.args))
    assert draws.summary().warnings == ()
    found = errors(posterior, draws.choices, posterior.reference())
    assert all(np.all(x < z_threshold(6)) for x in found.values()), found
    memory = draws.state.memory
    for x in (memory.step_size, memory.trajectory_length, memory.inverse_mass):
        assert np.all(x == x[0])
    assert np.all(draws.info.step_size == memory.step_size[0])
    assert (
        np.all(draws.info.num_steps == draws.info.num_steps[0]) and len(np.unique(draws.info.num_steps)) > 1
    )
    assert draws.info.acceptance_rate.mean() > 0.6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step_size": 0.0}, "step size is a positive number"),
        ({"trajectory_length": -1.0}, "trajectory length is a positive number"),
        ({"max_steps": 0}, "positive number of steps"),
        ({"target_acceptance": 1.0}, "between 0 and 1"),
        ({"inverse_mass": jnp.eye(2)}, "of chees is diagonal"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        inference.chees(skewed, **options)


def test_one_chain_has_nobody_to_learn_with():
    run = inference.mcmc(inference.chees(skewed), 2, 2, num_chains=1)
    with pytest.raises(ValueError, match="num_chains is 2 or more.*inference.nuts"):
        run(KEY)
