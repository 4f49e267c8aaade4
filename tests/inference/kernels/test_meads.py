"""MEADS: a step by the formulas, in NumPy; what folds of chains learn, likewise; and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from adaptation import stage
from posteriors import POSTERIORS, errors
from thresholds import z_threshold

from borelax import inference, ppl
from borelax.inference.kernels.tuning_by_meads import ByMeads, Damping, Learnt

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MASS = np.array([0.5, 2.0])


def skewed():
    return ppl.sample("x", dist.Gamma(2.0, 1.0).expand([2]))


# ------------------------------------------------------------------------------ a step


def leapfrog(u, p, h):
    """Of log x, whose log density is 2 u - exp(u), with momentum in units of the square root of the mass."""
    scale = np.sqrt(MASS)
    p = p + h / 2 * scale * (2 - np.exp(u))
    u = u + h * scale * p
    return u, p + h / 2 * scale * (2 - np.exp(u))


@pytest.mark.parametrize("level", [0.05, 0.9, -0.9])
def test_a_step_is_the_one_of_the_formulas(level):
    """Without damping nothing is drawn, and the level stays where it is."""
    h, p = 1.1, np.array([1.5, -0.7])
    kernel = inference.meads(skewed, step_size=h, damping=1e-12, inverse_mass=jnp.array(MASS, float))
    trace = ppl.update(skewed, {"x": jnp.array([0.7, 3.0])})(ppl.simulate(skewed)(KEY)).trace
    begun = ppl.seed(kernel.init)(KEY, trace)
    memory = replace(begun.memory, momentum=jnp.asarray(p, float), level=jnp.asarray(level))
    after = jax.jit(ppl.seed(kernel))(KEY, replace(begun, memory=memory))

    u = np.log([0.7, 3.0])
    energy = lambda u, p: np.sum(np.exp(u) - 2 * u + p**2 / 2)  # noqa: E731
    v, q = leapfrog(u, p, h)
    ratio = np.exp(energy(u, p) - energy(v, q))
    assert 0.1 < ratio < 0.8
    accepted = abs(level) < ratio
    expected = (v, q, level / ratio) if accepted else (u, -p, level)
    found = np.log(after.trace.value), after.memory.momentum, after.memory.level
    for x, y in zip(found, expected):
        np.testing.assert_allclose(x, y, rtol=1e-4)
    np.testing.assert_allclose(after.info.acceptance_rate, ratio, rtol=1e-4)
    assert np.isnan(after.info.energy)  # a momentum that persists changes it slowly, whatever the target


def test_the_momentum_is_drawn_anew_at_the_rate_of_the_damping_and_the_level_shifted():
    """In steps of no length: after one, a share exp(-h damping) of the momentum is left."""
    h, damping = 1e-3, 400.0
    kernel = inference.meads(skewed, step_size=h, damping=damping, inverse_mass=jnp.array(MASS, float))
    begun = ppl.seed(kernel.init)(KEY, ppl.simulate(skewed)(KEY))
    level = jnp.linspace(-0.9, 0.9, 4000)
    memory = replace(begun.memory, momentum=jnp.array([3.0, -1.0]))
    step = jax.vmap(lambda key, u: ppl.seed(kernel)(key, replace(begun, memory=replace(memory, level=u))))
    after = jax.jit(step)(jax.random.split(KEY, 4000), level).memory
    left = np.exp(-h * damping)
    z = (np.asarray(after.momentum) - left * np.array([3.0, -1.0])) / np.sqrt(1 - left**2)
    assert np.all(np.abs(z.mean(0)) < z_threshold(4) / np.sqrt(4000))
    assert np.all(np.abs(z.std(0) - 1) < z_threshold(4) / np.sqrt(2 * 4000))
    shifted = (level + 1 + (1 - left**2) / 2) % 2 - 1
    np.testing.assert_allclose(after.level, shifted, atol=2e-2)  # and divided by a ratio of about one


def test_a_step_that_goes_wrong_leaves_a_chain_able_to_go_on():
    """However large the energy: neither level nor momentum becomes anything but a number."""
    kernel = inference.meads(skewed, step_size=1e4, inverse_mass=jnp.array(MASS, float))
    begun = ppl.seed(kernel.init)(KEY, ppl.simulate(skewed)(KEY))
    after = jax.jit(ppl.seed(kernel))(KEY, begun)
    assert bool(after.info.divergent) and float(after.info.acceptance_rate) == 0.0
    np.testing.assert_array_equal(after.trace.value, begun.trace.value)
    assert np.all(np.isfinite(after.memory.momentum)) and -1 <= float(after.memory.level) <= 1


# ------------------------------------------------------------------------------ what is learnt

CHAINS, FOLDS, N = 24, 3, 2
POSITIONS, GRADIENTS = (RNG.normal(size=(CHAINS, N)) * scale for scale in ([1.0, 5.0], [1.0, 0.3]))
LEARNER = ByMeads(None, None, None, FOLDS)
learn = jax.jit(LEARNER.learn)


def memories(number: int, positions=POSITIONS, is_known=True) -> Damping:
    one = ppl.seed(lambda: LEARNER.start(jnp.zeros(N)))(KEY)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (CHAINS, *jnp.shape(x))), one)
    states = {"position": jnp.asarray(positions, float), "gradient": jnp.asarray(GRADIENTS, float)}
    counted = {"number": jnp.full(CHAINS, number), "is_known": jnp.full(CHAINS, is_known)}
    return replace(many, **states, **counted)


def folds(number: int) -> np.ndarray:
    """The chains in each."""
    key = jax.random.fold_in(jax.random.key(0), number // FOLDS)
    return np.asarray(jax.random.permutation(key, CHAINS)).reshape(FOLDS, -1)


def eigenvalue(rows: np.ndarray) -> float:
    """About the largest one: the sum of the squares of all over their sum, without the bias of few rows."""
    n, products = len(rows), rows @ rows.T
    squares = (np.sum(products**2) - np.sum(np.diag(products) ** 2)) / (n * (n - 1))
    return squares / (np.trace(products) / n)


def expected(order: np.ndarray, number: int, mass=None) -> list[tuple]:
    """Step size, damping and variances of each fold: the first and last by what the fold before it says."""
    width = [POSITIONS[fold].std(0, ddof=1) if mass is None else np.sqrt(mass) for fold in order]
    sizes = [min(1, 0.5 / np.sqrt(eigenvalue(GRADIENTS[fold] * sd))) for fold, sd in zip(order, width)]
    found = []
    for k, fold in enumerate(order):
        centred = (POSITIONS[fold] - POSITIONS[fold].mean(0)) / width[k]
        damping = max(1 / np.sqrt(eigenvalue(centred)), 1 / ((number + 1) * sizes[k - 1]))
        found.append((sizes[k - 1], damping, width[k - 1] ** 2))
    return found


@pytest.mark.parametrize("number", [0, 1, 50])
def test_each_fold_learns_from_its_neighbour(number):
    order = folds(number)
    after = learn(memories(number), stage())
    right = expected(order, number)
    for fold, (step_size, damping, variances) in zip(order, right):
        for chain in fold:
            np.testing.assert_allclose(after.step_size[chain], step_size, rtol=1e-4)
            np.testing.assert_allclose(after.damping[chain], damping, rtol=1e-4)
            np.testing.assert_allclose(after.inverse_mass[chain], variances, rtol=1e-4)
    assert np.all(after.number == number + 1)
    weight, begun = (number + 1) ** -0.5, (N**-0.25, 1.0, np.ones(N))
    means = [np.mean([one[i] for one in right], axis=0) for i in range(3)]
    averages = [(1 - weight) * x + weight * y for x, y in zip(begun, means)]
    last = learn(memories(number), stage(ends=True))
    for x, average in zip((last.step_size, last.damping, last.inverse_mass), averages):
        np.testing.assert_allclose(x, np.broadcast_to(average, x.shape), rtol=1e-4)


def test_folds_are_made_anew_when_each_has_had_its_turn():
    first, second, third = (learn(memories(number), stage()).step_size for number in (30, 32, 33))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != third)


def test_lost_chains_and_those_that_have_not_moved_teach_nothing():
    lost = np.arange(CHAINS) == 5
    broken = learn(memories(30, np.where(lost[:, None], np.nan, POSITIONS)), stage())
    still = learn(memories(30, is_known=jnp.asarray(~lost)), stage())
    for name in Learnt._fields:
        np.testing.assert_allclose(getattr(broken, name), getattr(still, name), rtol=1e-6)
        assert np.any(getattr(broken, name) != getattr(learn(memories(30), stage()), name))
    nobody = learn(memories(30, is_known=False), stage())
    np.testing.assert_allclose(nobody.step_size, N**-0.25, rtol=1e-6)
    at_one_place = learn(memories(30, np.ones((CHAINS, N))), stage())
    assert np.all(at_one_place.inverse_mass == 1.0) and np.all(np.isfinite(at_one_place.damping))


def test_what_is_given_stays():
    given = {"step_size": 0.25, "damping": 2.0, "inverse_mass": jnp.array([1.0, 2.0])}
    assert ByMeads(**given, num_folds=3).adapt_together is None
    learner = ByMeads(0.25, None, None, FOLDS)
    after = learner.learn(memories(30), stage(ends=True))
    assert np.all(after.step_size == 0.25) and np.all(after.damping != 1.0)
    mass = np.array([0.5, 30.0])
    after = ByMeads(None, None, jnp.asarray(mass, float), FOLDS).learn(memories(30), stage())
    found = np.unique(np.stack([after.step_size, after.damping], 1), axis=0)
    right = [one[:2] for one in expected(folds(30), 30, mass)]
    np.testing.assert_allclose(found, sorted(right), rtol=1e-4)
    assert np.all(after.inverse_mass == jnp.asarray(mass, float))


# ------------------------------------------------------------------------------ chains


def test_chains_draw_from_a_posterior_by_what_they_have_learnt_together():
    posterior = POSTERIORS["ill_scaled"]()
    run = inference.mcmc(inference.meads(posterior.program), 500, 600, num_chains=32, thin=10)
    draws = run(KEY, *map(jnp.asarray, posterior.args))
    assert draws.summary().warnings == ()
    found = errors(posterior, draws.choices, posterior.reference())
    assert all(np.all(x < z_threshold(6)) for x in found.values()), found
    memory = draws.state.memory
    for x in (memory.step_size, memory.damping, memory.inverse_mass):
        assert np.all(x == x[0])
    assert np.all(draws.info.step_size == memory.step_size[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step_size": 0.0}, "step size is a positive number"),
        ({"damping": -1.0}, "damping is a positive number"),
        ({"num_folds": 0}, "num_folds is a positive integer"),
        ({"inverse_mass": jnp.eye(2)}, "of meads is diagonal"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        inference.meads(skewed, **options)


@pytest.mark.parametrize("num_chains", [1, 4, 10])
def test_chains_that_make_no_folds_are_refused(num_chains):
    run = inference.mcmc(inference.meads(skewed), 2, 2, num_chains=num_chains)
    with pytest.raises(ValueError, match=f"num_folds=4.*at least twice as many, not {num_chains}"):
        run(KEY)
