"""Posteriors that a sampler cannot do, each with the words in which a summary says so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from borelax import inference, ppl

KEY = jax.random.key(0)


def warnings(program, *args, kernel=inference.nuts, num_samples=200, num_warmup=200, **options) -> str:
    run = inference.mcmc(kernel(program, **options), num_samples, num_warmup)
    return "\n".join(run(KEY, *args).summary().warnings)


def two_modes():
    x = ppl.sample("x", dist.Normal(0.0, 10.0))
    ppl.factor(jnp.logaddexp(*(dist.Normal(at, 1.0).log_prob(x) for at in (-10.0, 10.0))))


def test_modes_that_no_chain_goes_between():
    said = warnings(two_modes)
    assert (
        "for 'x', above 1.01: the chains do not agree on the posterior yet. Each agrees with itself" in said
    )
    assert "if the posterior has several modes, no chain finds the way from one to another" in said


def test_chains_that_are_slow_are_not_said_to_be_in_modes():
    """Steps that are much too small: chains differ from themselves, too."""
    said = warnings(
        two_modes, kernel=inference.hmc, step_size=0.05, num_steps=1, num_samples=50, num_warmup=0
    )
    assert "do not agree on the posterior yet. Warm up and draw for longer" in said
    assert "agrees with itself" not in said


def sum_of_two(ys):
    """The data tell the sum."""
    a, b = (ppl.sample(name, dist.Normal(0.0, 1000.0)) for name in "ab")
    ppl.observe("y", dist.Normal(a + b, 1.0).expand(ys.shape), ys)


def test_numbers_of_which_the_data_tell_the_sum():
    said = warnings(sum_of_two, jnp.array([1.0, 1.5, 0.7]), num_samples=100, num_warmup=100, max_doublings=5)
    assert (
        "'a' and 'b' go together (their correlation is -1.0000)" in said or "'b' and 'a' go together" in said
    )
    assert "the data tell some combination of them" in said
    assert "of the trajectories were cut short at the most steps they may take" in said


def shares():
    """The second share is one less the first, whatever the data."""
    p = ppl.sample("p", dist.Dirichlet(jnp.ones(2)))
    ppl.deterministic("copy", p)


def test_numbers_that_are_one_by_their_support_do_not_go_together():
    said = warnings(shares, kernel=inference.mh, proposal=ppl.select("p"), num_samples=20, num_warmup=0)
    assert "worth only" in said and "go together" not in said


def gaussian_process(xs, ys):
    """Without noise, so that all that keeps the matrix from being singular is the term on the diagonal."""
    width, length = (ppl.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("width", "length"))
    covariance = width**2 * jnp.exp(-((xs[:, None] - xs) ** 2) / (2 * length**2)) + 1e-5 * jnp.eye(len(xs))
    ppl.observe("y", dist.MultivariateNormal(0.0, covariance), ys)


def test_a_matrix_that_is_singular_in_single_precision():
    """In double precision, as the warning advises, it is none."""
    xs = np.linspace(0.0, 4.0, 30)
    options = {"num_samples": 100, "max_doublings": 4}
    with jax.enable_x64(False):
        single = warnings(gaussian_process, jnp.array(xs), jnp.sin(xs), **options)
    assert "That is what rounding looks like, of a covariance matrix that is nearly singular" in single
    assert 'Run in double precision, after jax.config.update("jax_enable_x64", True) (float64)' in single
    with jax.enable_x64(True):
        double = warnings(gaussian_process, jnp.array(xs), jnp.sin(xs), **options)
    assert "diverged" not in double and "float64" not in double


def large(offset):
    ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(offset)


def test_a_log_density_that_is_too_large_for_single_precision():
    options = {"kernel": inference.mh, "proposal": ppl.select("x"), "num_samples": 200, "num_warmup": 0}
    with jax.enable_x64(False):
        said = warnings(large, jnp.array(-3e6), **options)
        assert (
            "Log densities are as large as 3e+06, where numbers are 0.25 apart" in said and "float64" in said
        )
        assert warnings(large, jnp.array(-3e3), **options) == ""
