"""Posteriors that are known, by NUTS with its defaults: means and standard deviations, within Monte Carlo error."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from families import family
from posteriors import POSTERIORS, errors
from thresholds import z_threshold

from borelax import inference

COMPARISONS = 2 * 60  # a mean and a standard deviation of each number, of which there are fewer than that


@pytest.mark.parametrize("name", family(POSTERIORS))
def test_means_and_standard_deviations(name):
    posterior = POSTERIORS[name]()
    reference = posterior.reference()
    run = inference.mcmc(inference.nuts(posterior.program, **posterior.options), num_warmup=500)
    args = [jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x for x in posterior.args]
    draws = run(jax.random.key(1), *args)
    assert draws.summary().warnings == ()
    sites = draws.choices | draws.deterministic
    z = errors(posterior, sites, reference)
    threshold = z_threshold(COMPARISONS)
    assert all(np.all(one < threshold) for one in z.values()), z
    # The same draws, a little too far to the right or too wide, are found out.
    for site, (mean, sd) in reference.items():
        x = np.asarray(sites[site], np.float64)
        for wrong in (x + 0.4 * sd, mean + 1.5 * (x - mean)):
            assert np.all(errors(posterior, {site: wrong}, {site: (mean, sd)})[site].max(0) > threshold), site
