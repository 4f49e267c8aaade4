"""Samplers of NumPyro and BlackJAX that know a model, not only a density, pass the checks as they are.

The same checks, at the same budget, find samplers that are wrong. Kernels for a density are in
``test_kernels_of_others.py``.
"""

from __future__ import annotations

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from blackjax.smc import resampling
from families import family
from numpyro.infer import HMC, NUTS, DiscreteHMCGibbs

from borelax import ppl, semantics

BUDGET = semantics.Budget(draws=8_192)
FIXED = {"adapt_step_size": False, "adapt_mass_matrix": False}


# ------------------------------------------------------------------ NumPyro, with models of its own


def waiting():
    x = ppl.sample("x", dist.Gamma(2.0, 1.0))
    ppl.sample("y", dist.Normal(jnp.log(x), 0.5))


def numpyro_waiting(y, power=0.0):
    """The same with y observed, and times a power of x."""
    x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.factor("power", power * jnp.log(x))
    numpyro.sample("y", dist.Normal(jnp.log(x), 0.5), obs=y)


def nuts(target, power=0.0):
    """A step of NumPyro's NUTS, with NumPyro's own bijector, from the x that it is given."""
    kernel = NUTS(numpyro_waiting, step_size=0.5, max_tree_depth=4, **FIXED)

    def step(key, choices):
        args = (target.data["y"], power)
        start = kernel.init(key, 0, {"x": jnp.log(choices["x"])}, args, {})
        z = kernel.sample(start, args, {}).z
        return {"x": kernel.postprocess_fn(args, {})(z)["x"]}

    return semantics.keyed(step)


def test_nuts_agrees_with_its_model():
    report = semantics.joint_distribution_test(waiting, "y", nuts, BUDGET)()
    assert report.holds, report


def test_nuts_of_another_model_does_not():
    """Divided by x, which is what it is to forget the Jacobian of the logarithm."""
    assert not semantics.joint_distribution_test(waiting, "y", partial(nuts, power=-1.0), BUDGET)().holds


def mixture():
    c = ppl.sample("c", dist.Bernoulli(0.25))
    return c, ppl.sample("x", dist.Normal(2.0 * c, 1.0 - 0.5 * c))


def numpyro_mixture(p):
    c = numpyro.sample("c", dist.Bernoulli(p))
    numpyro.sample("x", dist.Normal(2.0 * c, 1.0 - 0.5 * c))


def gibbs_start(key, state, p, **options):
    """NumPyro's HMC within Gibbs at a state, its kernel with it."""
    inner = HMC(numpyro_mixture, step_size=0.4, trajectory_length=1.0, **FIXED)
    kernel = DiscreteHMCGibbs(inner, **options)
    return kernel, kernel.init(key, 0, {"c": state[0], "x": state[1]}, (p,), {})


def discrete_gibbs(p=0.25, **options):
    def step(key, state):
        kernel, start = gibbs_start(key, state, p, **options)
        z = kernel.sample(start, (p,), {}).z
        return z["c"].astype(state[0].dtype), z["x"]

    return semantics.keyed(step)


def test_a_gibbs_step_starts_where_it_is_told():
    """Or the two below would say nothing: drawing anew from the prior is invariant as well."""
    start = lambda c: gibbs_start(jax.random.key(0), (c, jnp.array(-3.5)), 0.25)[1].z  # noqa: E731
    z = jax.vmap(start)(jnp.array([0, 1]))
    assert z["c"].tolist() == [0, 1] and z["x"].tolist() == [-3.5, -3.5]


@pytest.mark.parametrize("modified", family([False, True]))
def test_gibbs_over_what_is_discrete_and_hmc_over_the_rest(modified):
    report = semantics.leaves_invariant(discrete_gibbs(modified=modified), mixture, BUDGET)()
    assert report.holds, report


def test_gibbs_at_other_odds():
    assert not semantics.leaves_invariant(discrete_gibbs(p=0.5), mixture, BUDGET)().holds


# ------------------------------------------------------------------ BlackJAX, from a prior to a posterior

Y, PARTICLES = 1.0, 4


def squared():
    """A posterior of two modes."""
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(x**2, 0.5), Y)
    return x


def tempered(resample, counted=(1.0, 1.0)):
    """Two steps of BlackJAX's tempered SMC, as members and their log weights.

    ``counted`` says which steps' increments of the log evidence are added up.
    """
    algorithm = blackjax.tempered_smc(
        dist.Normal(0.0, 1.0).log_prob,
        lambda x: dist.Normal(x**2, 0.5).log_prob(Y),
        blackjax.mala.build_kernel(),
        blackjax.mala.init,
        {"step_size": jnp.array([0.2])},
        resample,
        num_mcmc_steps=1,
    )

    def run(key):
        start, *keys = jax.random.split(key, 3)
        state, log_evidence = algorithm.init(jax.random.normal(start, (PARTICLES,))), 0.0
        for key, power, count in zip(keys, (0.5, 1.0), counted):
            state, info = algorithm.step(key, state, power)
            log_evidence += count * info.log_likelihood_increment
        return state.particles, jnp.log(PARTICLES * state.weights) + log_evidence

    return semantics.keyed(run)


as_it_is = lambda result: result  # noqa: E731 -- members and log weights already


@pytest.mark.parametrize("name", family(["systematic", "multinomial"]))
def test_tempered_smc_is_properly_weighted(name):
    algorithm = tempered(getattr(resampling, name))
    report = semantics.properly_weighted(algorithm, squared, BUDGET, read=as_it_is)()
    assert report.holds, report


def first_of_all(key, weights, count):
    """A resampler that is biased: everybody descends from the first."""
    return jnp.zeros(count, int)


@pytest.mark.parametrize(
    "wrong",
    [tempered(resampling.systematic, (0.0, 1.0)), tempered(first_of_all)],
    ids=["the evidence of its first step is lost", "it resamples without looking at weights"],
)
def test_tempered_smc_that_is_wrong(wrong):
    assert not semantics.properly_weighted(wrong, squared, BUDGET, read=as_it_is)().holds
