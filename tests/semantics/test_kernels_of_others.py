"""Kernels of BlackJAX and NumPyro pass the checks as they are, and versions of them that are wrong do not."""

from __future__ import annotations

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from families import family
from numpyro.infer.hmc import hmc

from borelax import ppl, semantics

BUDGET = semantics.Budget(draws=8_192)


def target():
    """The logarithm of a waiting time, and a measurement of it: skewed, and its coordinates depend on each other."""
    x = jnp.log(ppl.sample("x", dist.Gamma(2.0, 1.0)))
    return jnp.stack([x, ppl.sample("y", dist.Normal(x, 0.5))])


def log_density(z):
    return dist.Gamma(2.0, 1.0).log_prob(jnp.exp(z[0])) + z[0] + dist.Normal(z[0], 0.5).log_prob(z[1])


def blackjax_step(make, log_density=log_density):
    """A BlackJAX algorithm as a program from position to position."""
    algorithm = make(log_density)
    return semantics.keyed(lambda key, z: algorithm.step(key, algorithm.init(z))[0].position)


def numpyro_step(algorithm, log_density=log_density, **options):
    start, step = hmc(lambda z: -log_density(z), algo=algorithm)

    def moved(key, z):
        state = start(
            z, 0, step_size=0.5, adapt_step_size=False, adapt_mass_matrix=False, rng_key=key, **options
        )
        return step(state).z

    return semantics.keyed(moved)


MASS = jnp.array([0.8, 0.5])
BLACKJAX = {
    "random walk": lambda f: blackjax.additive_step_random_walk(
        f, blackjax.mcmc.random_walk.normal(0.6 * jnp.ones(2))
    ),
    "MALA": lambda f: blackjax.mala(f, 0.1),
    "HMC": lambda f: blackjax.hmc(f, 0.3, MASS, 5),
    "NUTS": lambda f: blackjax.nuts(f, 0.4, MASS),
}
KERNELS = {f"BlackJAX: {name}": partial(blackjax_step, make) for name, make in BLACKJAX.items()} | {
    "NumPyro: NUTS": partial(numpyro_step, "NUTS", max_tree_depth=4),
    "NumPyro: HMC": partial(numpyro_step, "HMC", trajectory_length=1.5),
}


@pytest.mark.parametrize("kernel", family(KERNELS.values(), every=2), ids=KERNELS)
def test_a_right_kernel_passes(kernel):
    assert semantics.leaves_invariant(kernel(), target, BUDGET)().holds


@pytest.mark.parametrize("name", family(["BlackJAX: random walk", "BlackJAX: HMC"]))
def test_a_reversible_kernel_passes(name):
    assert semantics.detailed_balance(KERNELS[name](), target, BUDGET)().holds


@pytest.mark.parametrize("name", family(["BlackJAX: NUTS", "BlackJAX: MALA", "NumPyro: HMC"]))
def test_the_kernel_of_another_target_does_not_pass(name):
    """Without the Jacobian of the logarithm."""
    report = semantics.leaves_invariant(KERNELS[name](log_density=lambda z: log_density(z) - z[0]), target)()
    assert not report.holds and report.p_value < 1e-6


def test_elliptical_slice_sampling():
    def posterior(y):
        f = ppl.sample("f", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        ppl.observe("y", dist.Normal(f.sum(), 1.0), y)
        return f

    def step(key, f, y, scale=1.0):
        likelihood = lambda f: dist.Normal(f.sum(), scale).log_prob(y)  # noqa: E731
        algorithm = blackjax.elliptical_slice(likelihood, mean=jnp.zeros(2), cov=jnp.eye(2))
        return algorithm.step(key, algorithm.init(f))[0].position

    y = jnp.array(1.0)
    assert semantics.leaves_invariant(semantics.keyed(step), posterior, BUDGET)(y).holds
    wrong = semantics.keyed(partial(step, scale=0.5))
    assert not semantics.leaves_invariant(wrong, posterior)(y).holds


def joint():
    x = ppl.sample("x", dist.Gamma(2.0, 1.0))
    ppl.sample("y", dist.Normal(jnp.log(x), 0.5))


def sampler(target, log_density=lambda z, y: log_density(jnp.stack([z, y]))):
    """A chain of BlackJAX's NUTS for the posterior of x, from a draw of the prior: its logarithm is what moves."""

    def draws(key):
        start, *keys = jax.random.split(key, 48)
        algorithm = blackjax.nuts(lambda z: log_density(z[0], target.data["y"]), 0.8, jnp.ones(1))
        state = algorithm.init(jnp.log(jax.random.gamma(start, 2.0))[None])
        step = lambda state, key: (lambda new: (new, new.position[0]))(algorithm.step(key, state)[0])  # noqa: E731
        return {"x": jnp.exp(jax.lax.scan(step, state, jnp.stack(keys))[1][16::2][:15])}

    return semantics.keyed(draws)


def test_nuts_is_calibrated():
    budget = semantics.Budget(draws=1_024, batch=256)
    report = semantics.simulation_based_calibration(joint, "y", sampler, budget, draws=15)()
    assert report.holds, report


def test_nuts_without_a_jacobian_is_not():
    no_jacobian = partial(sampler, log_density=lambda z, y: log_density(jnp.stack([z, y])) - z)
    budget = semantics.Budget(draws=2_048, batch=256)
    report = semantics.simulation_based_calibration(joint, "y", no_jacobian, budget, draws=15)()
    assert not report.holds
