"""Against the joint Gaussian of all states and observations, written out as one large one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from scipy.stats import multivariate_normal
from thresholds import assert_mean

from borelax import inference, ppl
from borelax.models import LinearGaussian, StateSpaceError
from borelax.ppl import BorelaxError

COVARIANCES = ("covariance", "transition_noise", "emission_noise")


def spd(generator, n: int):
    root = generator.normal(size=(n, n))
    return root @ root.T + 0.3 * np.eye(n)


def random_model(
    d: int, m: int, steps: int, varying: bool, seed: int = 0
) -> tuple[LinearGaussian, np.ndarray]:
    """A state space in double precision, with observations of which some are missing."""
    generator = np.random.default_rng(seed)
    normal = lambda *shape: generator.normal(size=shape)  # noqa: E731
    of_steps, of_times = ((steps - 1,), (steps,)) if varying else ((), ())
    covariances = lambda lead, n: np.array([spd(generator, n) for _ in range(*lead or (1,))])  # noqa: E731
    squeeze = (lambda x: x) if varying else (lambda x: x[0])
    model = LinearGaussian(
        normal(d),
        spd(generator, d),
        0.7 * normal(*of_steps, d, d),
        squeeze(covariances(of_steps, d)),
        normal(*of_times, m, d),
        squeeze(covariances(of_times, m)),
        normal(*of_steps, d) if varying else None,
        normal(*of_times, m),
    )
    ys = normal(steps, m)
    ys[1] = np.nan
    ys[-1, 0] = np.nan
    return model, ys


def dense(model: LinearGaussian, ys: np.ndarray):
    """Means and covariances of all states given all observations, those given the past, and the log evidence."""
    steps, m = ys.shape
    d = len(model.mean)
    per = lambda x, n, rank: np.broadcast_to(x, (n, *np.shape(x)[-rank:]))  # noqa: E731
    gain, noise = per(model.transition, steps - 1, 2), per(model.transition_noise, steps - 1, 2)
    drift = per(np.zeros(d) if model.drift is None else model.drift, steps - 1, 1)
    emission, spread = per(model.emission, steps, 2), per(model.emission_noise, steps, 2)
    offset = per(model.offset, steps, 1)

    mean, covariance = np.zeros(steps * d), np.zeros((steps * d, steps * d))
    at = lambda t: slice(t * d, (t + 1) * d)  # noqa: E731
    mean[at(0)], covariance[at(0), at(0)] = model.mean, model.covariance
    for t in range(1, steps):
        mean[at(t)] = gain[t - 1] @ mean[at(t - 1)] + drift[t - 1]
        cross = gain[t - 1] @ covariance[at(t - 1), : t * d]
        covariance[at(t), : t * d], covariance[: t * d, at(t)] = cross, cross.T
        covariance[at(t), at(t)] = (
            gain[t - 1] @ covariance[at(t - 1), at(t - 1)] @ gain[t - 1].T + noise[t - 1]
        )

    whole = np.zeros((steps * m, steps * d))
    errors = np.zeros((steps * m, steps * m))
    for t in range(steps):
        whole[t * m : (t + 1) * m, at(t)] = emission[t]
        errors[t * m : (t + 1) * m, t * m : (t + 1) * m] = spread[t]

    def given(count: int):
        seen = np.flatnonzero(~np.isnan(ys[:count].ravel()))
        rows, y = whole[seen], ys.ravel()[seen] - offset.ravel()[seen]
        total = rows @ covariance @ rows.T + errors[np.ix_(seen, seen)]
        lift = covariance @ rows.T @ np.linalg.inv(total)
        log_evidence = multivariate_normal(rows @ mean, total).logpdf(y)
        return mean + lift @ (y - rows @ mean), covariance - lift @ rows @ covariance, log_evidence

    blocks = lambda m, c, t: (m[at(t)], c[at(t), at(t)])  # noqa: E731
    *smoothed, log_evidence = given(steps)
    smooth = [blocks(*smoothed, t) for t in range(steps)]
    filtered = [blocks(*given(t + 1)[:2], t) for t in range(steps)]
    return filtered, smooth, log_evidence, smoothed


@pytest.mark.parametrize(
    ("d", "m", "steps", "varying"), family([(3, 2, 5, True), (1, 1, 2, False), (2, 1, 6, True)])
)
def test_filter_and_smoother_are_the_joint_gaussian(d, m, steps, varying):
    model, ys = random_model(d, m, steps, varying)
    filtered, smoothed, log_evidence, _ = dense(model, ys)
    with jax.enable_x64(True):
        found = jax.jit(lambda model, ys: (model.filter(ys), model.smooth(ys)))(model, ys)
    for moments, expected in zip(found, (filtered, smoothed)):
        np.testing.assert_allclose(moments.mean, [mean for mean, _ in expected], atol=1e-9)
        np.testing.assert_allclose(moments.covariance, [c for _, c in expected], atol=1e-9)
        np.testing.assert_allclose(moments.log_evidence, log_evidence, atol=1e-9)


@pytest.fixture(scope="module")
def case():
    """A model with whole rows missing at most, so that the language can condition on them."""
    model, ys = random_model(2, 2, 4, varying=True, seed=1)
    ys[-1] = np.nan_to_num(ys[-1], nan=0.5)
    return model, ys


def test_the_posterior_has_the_density_of_the_conditioned_program_at_every_path(case):
    model, ys = case
    seen = ~np.isnan(ys).any(1)
    program = lambda model: model.generate(len(ys))  # noqa: E731
    paths = np.random.default_rng(0).normal(size=(5, *ys.shape[:1], 2))
    rest = np.random.default_rng(1).normal(size=ys.shape)

    def both(path):
        conditioned = ppl.condition(program, {"y": ppl.partly(np.nan_to_num(ys), seen)})
        filled = jnp.where(seen[:, None], ys, rest)
        unseen = jax.vmap(lambda e, o, r, x, y: multivariate(y, e @ x + o, r))(
            model.emission, model.offset, model.emission_noise, path, filled
        )
        joint = ppl.log_density(conditioned)({"x": path, "y": filled}, model)
        return joint - jnp.where(seen, 0.0, unseen).sum(), ppl.log_density(LinearGaussian.posterior)(
            {"x": path}, model, ys
        )

    with jax.enable_x64(True):
        model = jax.tree.map(jnp.asarray, model)
        expected, found = jax.jit(jax.vmap(both))(paths)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def multivariate(y, mean, covariance):
    return jax.scipy.stats.multivariate_normal.logpdf(y, mean, covariance)


def test_draws_have_the_posterior(case):
    model, ys = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), case)
    *_, (mean, covariance) = dense(*case)
    run = jax.jit(jax.vmap(ppl.seed(ppl.weigh(LinearGaussian.posterior)), in_axes=(0, None, None)))
    paths, log_weight = run(jax.random.split(jax.random.key(0), 20_000), model, ys)
    flat = np.asarray(paths.reshape(len(paths), -1), np.float64) - mean
    assert_mean(flat, np.zeros(len(mean)))
    assert_mean(flat[:, :, None] * flat[:, None, :], covariance)
    np.testing.assert_allclose(log_weight, dense(*case)[2], rtol=1e-5)


def test_the_evidence_has_a_gradient(case):
    model, ys = case
    generator = np.random.default_rng(2)
    towards = jax.tree.map(lambda x: generator.normal(size=x.shape), model)
    towards = replace(
        towards,
        **{name: x + np.swapaxes(x, -1, -2) for name in COVARIANCES for x in [getattr(towards, name)]},
    )
    with jax.enable_x64(True):
        evidence = lambda model: model.filter(ys).log_evidence  # noqa: E731
        value_and_gradient = jax.jit(jax.value_and_grad(evidence))
        gradient = value_and_gradient(model)[1]
        ahead, behind = (
            value_and_gradient(jax.tree.map(lambda x, v, h=h: x + h * v, model, towards))[0]
            for h in (1e-5, -1e-5)
        )
    slopes = jax.tree.leaves(jax.tree.map(lambda g, v: np.sum(np.asarray(g) * v), gradient, towards))
    assert all(np.isfinite(slope) and slope != 0 for slope in slopes)
    np.testing.assert_allclose(sum(slopes), (float(ahead) - float(behind)) / 2e-5, rtol=1e-6)


def test_single_precision_holds_where_covariances_are_far_apart():
    """A position that is seen almost exactly, and a speed that is seen through it alone."""
    step = jnp.array([[1.0, 1.0], [0.0, 1.0]])
    model = LinearGaussian(
        jnp.zeros(2), 1e4 * jnp.eye(2), step, 1e-4 * jnp.eye(2), jnp.array([[1.0, 0.0]]), 1e-4 * jnp.eye(1)
    )
    ys = jnp.cumsum(jnp.ones((200, 1)), 0)
    found = jax.jit(LinearGaussian.filter)(model, ys)
    with jax.enable_x64(True):
        exact = jax.jit(LinearGaussian.filter)(*jax.tree.map(lambda x: jnp.asarray(x, float), (model, ys)))
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-4)
    np.testing.assert_allclose(found.covariance, exact.covariance, rtol=2e-2, atol=1e-10)
    np.testing.assert_allclose(found.log_evidence, exact.log_evidence, rtol=1e-3)


def test_the_evidence_weighs_particles_of_a_parameter(case):
    """Particles for a parameter, each with its states integrated out: their weights are the evidences."""
    model, ys = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), case)
    evidence = jax.vmap(lambda scale: scaled(model, scale).filter(ys).log_evidence)

    def program(model, ys):
        scale = ppl.sample("scale", dist.Uniform(0.5, 2.0))
        scaled(model, scale).posterior(ys)
        return scale

    population = jax.jit(ppl.seed(inference.importance(program, 50)))(jax.random.key(0), model, ys)
    np.testing.assert_allclose(population.log_weight, evidence(population.value), rtol=1e-4)


def scaled(model: LinearGaussian, scale) -> LinearGaussian:
    return replace(model, transition=scale * model.transition)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"transition": jnp.eye(3)}, r"transition has shape \(3, 3\).*\(2, 2\)"),
        ({"transition_noise": jnp.ones((4, 2, 2))}, r"transition_noise.*\(3, 2, 2\)"),
        ({"emission_noise": jnp.eye(1)}, "emission_noise"),
        ({"covariance": jnp.eye(3)}, r"covariance.*must be \(2, 2\)(?!, or)"),
        ({"drift": jnp.zeros(3)}, "drift"),
        ({"mean": jnp.zeros(())}, r"mean and emission have shapes \(\)"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(change, match):
    model = LinearGaussian(jnp.zeros(2), jnp.eye(2), jnp.eye(2), jnp.eye(2), jnp.ones((3, 2)), jnp.eye(3))
    for run in (LinearGaussian.filter, LinearGaussian.smooth, LinearGaussian.posterior):
        with pytest.raises(BorelaxError, match=match):
            jax.make_jaxpr(partial(run, replace(model, **change)))(jnp.zeros((4, 3)))


def test_observations_of_another_shape_are_refused():
    model = LinearGaussian(jnp.zeros(2), jnp.eye(2), jnp.eye(2), jnp.eye(2), jnp.ones((3, 2)), jnp.eye(3))
    with pytest.raises(ValueError, match=r"\[T, 3\]"):
        model.filter(jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="at least one time"):
        model.filter(jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match="Python integer.*static argument"):
        jax.jit(ppl.seed(LinearGaussian.generate))(jax.random.key(0), model, 5)


def test_a_covariance_is_symmetric():
    two = jnp.eye(2)
    model = LinearGaussian(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.5, 1.0]]), two, two, two, two)
    with pytest.raises(StateSpaceError, match="covariance is not symmetric.*square root"):
        model.filter(jnp.zeros((1, 2)))


def level(mean: float) -> LinearGaussian:
    """One that hardly moves."""
    one = jnp.eye(1, dtype=jnp.float32)
    return LinearGaussian(jnp.full(1, mean, jnp.float32), 1e6 * one, one, 1e-8 * one, one, one)


def test_a_level_makes_no_difference_to_what_is_known_of_it():
    """Nor to the same draws: one far from zero is rounded, but neither is pulled back less for it."""
    noise = np.round(1024 * np.random.default_rng(0).normal(size=(5000, 1))) / 1024
    run = jax.jit(
        lambda model, ys: (
            model.smooth(ys),
            ppl.seed(ppl.weigh(LinearGaussian.posterior))(jax.random.key(0), model, ys)[0],
        )
    )
    near, far = (run(level(mean), jnp.asarray(mean + noise, jnp.float32)) for mean in (0.0, 128.0))
    spread = np.sqrt(near[0].covariance[:, 0])
    np.testing.assert_array_less(np.abs(far[0].mean - 128.0 - near[0].mean), 0.02 * spread)
    np.testing.assert_array_less(np.abs(far[1] - 128.0 - near[1]), 0.05 * spread)


def test_single_precision_stays_what_it_is_where_the_default_is_double():
    with jax.enable_x64(True):
        found = jax.eval_shape(LinearGaussian.smooth, level(0.0), jnp.zeros((2, 1)))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
