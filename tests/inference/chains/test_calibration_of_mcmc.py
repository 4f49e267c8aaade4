"""mcmc, warmup and all, draws from the posteriors of data that the program makes: simulation-based calibration.

Fits are a few hundred, side by side in one compiled function.
"""

from __future__ import annotations

import numpyro.distributions as dist
import pytest
from mutants import MUTANTS
from mutation import mutated

import borelax.inference
import borelax.ppl
import borelax.semantics


def model(ppl):
    def program():
        scale = ppl.sample("scale", dist.LogNormal(0.0, 1.0))
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(x, scale))

    return program


def calibration(lib, name: str, num_chains: int = 1, **options):
    """Of the first chain's draws, whatever the others teach it."""

    def posterior(target):
        kernel = getattr(lib.inference, name)(target, **options)
        run = lib.inference.mcmc(kernel, num_samples=15, num_warmup=150, num_chains=num_chains, thin=8)
        one_chain = lambda key: {site: x[0] for site, x in run(key).choices.items()}  # noqa: E731
        return lib.semantics.keyed(one_chain)

    budget = lib.semantics.Budget(draws=256, batch=128)
    return lib.semantics.simulation_based_calibration(model(lib.ppl), "y", posterior, budget)()


OPTIONS = {
    "nuts": {},
    "hmc": {"num_steps": 5},
    "mala": {},
    "chees": {"num_chains": 4, "max_steps": 20},
    "meads": {"num_chains": 8},
}


@pytest.mark.parametrize(("name", "options"), OPTIONS.items())
def test_it_is_calibrated(name, options):
    report = calibration(borelax, name, **options)
    assert report.holds, report


def test_without_the_jacobian_it_is_not():
    patch = next(
        mutant.patch for mutant in MUTANTS if mutant.bug.endswith("the density without the Jacobian")
    )
    with mutated(patch) as library:
        report = calibration(library, "mala")
    assert not report.holds, report


def test_with_momenta_that_are_too_large_it_is_not(monkeypatch):
    """As if those of a chain had been drawn from the inverse of its mass matrix, which is not one."""
    from blackjax.mcmc import metrics

    right = metrics.default_metric

    def wrong(inverse_mass):
        metric = right(inverse_mass)
        return metric._replace(sample_momentum=lambda key, x: inverse_mass * metric.sample_momentum(key, x))

    monkeypatch.setattr(metrics, "default_metric", wrong)
    report = calibration(borelax, "mala")
    assert not report.holds, report
