"""Regions against the distributions themselves: where their draws are, and where their densities are zero."""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms

from borelax import ppl
from borelax.ppl.staging import stage
from borelax.semantics.static.abstract import Abstract, Terms
from borelax.semantics.static.covers import covers

EYE = jnp.eye(2)
SCALARS = {
    "normal": dist.Normal(0.0, 3.0),
    "cauchy": dist.Cauchy(0.0, 1.0),
    "exponential": dist.Exponential(2.0),
    "lognormal": dist.LogNormal(0.0, 0.5),
    "gamma": dist.Gamma(2.0, 1.0),
    "beta": dist.Beta(2.0, 3.0),
    "unit": dist.Uniform(0.0, 1.0),
    "narrow": dist.Uniform(0.25, 0.5),
    "shifted": dist.Uniform(0.5, 1.5),
    "loguniform": dist.LogUniform(0.5, 4.0),
    "pareto": dist.Pareto(1.0, 2.0),
    "truncated": dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0),
    "left": dist.TruncatedNormal(3.0, 1.0, low=0.5),
    "vonmises": dist.VonMises(0.0, 1.0),
    "mixture": dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2), 1.0)),
    "affine": dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.AffineTransform(1.0, 2.0)),
    "point": dist.Delta(0.3),
    "other point": dist.Delta(0.75),
}
INTEGERS = {
    "coin": dist.Bernoulli(0.3),
    "heads": dist.Bernoulli(1.0),
    "logits": dist.Bernoulli(logits=0.5),
    "die": dist.Categorical(jnp.ones(3) / 3),
    "loaded": dist.Categorical(jnp.array([0.5, 0.0, 0.5])),
    "masked": dist.Categorical(logits=jnp.array([0.0, 0.0, -jnp.inf]), validate_args=False),
    "binomial": dist.Binomial(2, 0.5),
    "never": dist.Binomial(2, 0.0),
    "uniform": dist.DiscreteUniform(1, 2),
    "poisson": dist.Poisson(2.0),
    "geometric": dist.Geometric(0.5),
    "inflated": dist.ZeroInflatedPoisson(0.5, 1.0),
    "one": dist.Delta(jnp.array(1)),
    "two": dist.Delta(jnp.array(2)),
}
VECTORS = {
    "normals": dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    "multivariate": dist.MultivariateNormal(jnp.zeros(2), EYE),
    "gammas": dist.Gamma(jnp.ones(2), 1.0).to_event(1),
    "box": dist.Uniform(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])).to_event(1),
    "wide": dist.Uniform(jnp.zeros(2), 3.0).to_event(1),
    "dirichlet": dist.Dirichlet(jnp.ones(2)),
    "sphere": dist.ProjectedNormal(jnp.zeros(2)),
    "ordered": dist.TransformedDistribution(
        dist.Normal(jnp.zeros(2), 1.0).to_event(1), transforms.OrderedTransform()
    ),
}


def abstract_region(d, terms=None):
    """A site's region, by way of a program, and the dtype of its value. What is compared shares its terms."""
    found = Abstract(stage(lambda: ppl.sample("x", d)), terms)
    (visit,) = found.visits
    return found.region(visit), visit.dtype


@pytest.mark.parametrize("d", [*SCALARS.values(), *INTEGERS.values(), *VECTORS.values()])
def test_draws_are_in_the_span(d):
    region, dtype = abstract_region(d)
    span = region.span(dtype)
    draws = np.asarray(d.sample(jax.random.key(0), (200,)), np.float64)
    assert np.all(draws >= span.lower) and np.all(draws <= span.upper)
    if np.ndim(span.lower) and np.all(np.isfinite(span.lower)):  # and it is not much wider than they are
        assert np.all(draws.min(0) - span.lower <= 1.0)


SURFACES = {"point", "other point", "dirichlet", "sphere"}


def misses(inner: dist.Distribution, outer: dist.Distribution, draws: dict) -> bool:
    """Whether draws of the one have no density under the other, or small numbers among them no draws there."""
    x, y = draws[id(inner)], draws[id(outer)]
    outside = ~np.asarray(outer.support(jnp.asarray(x)))
    if np.issubdtype(x.dtype, np.integer):
        return bool(np.any(outside)) or not set(x[x <= 2].tolist()) <= set(y.tolist())
    with np.errstate(all="ignore"):
        return bool(np.any(outside) or np.any(np.asarray(outer.log_prob(jnp.asarray(x))) == -np.inf))


@pytest.mark.parametrize("family", [SCALARS, INTEGERS, VECTORS], ids=["scalars", "integers", "vectors"])
def test_an_answer_is_what_the_draws_say(family):
    terms = Terms()
    regions = {name: abstract_region(d, terms)[0] for name, d in family.items()}
    draws = {id(d): np.asarray(d.sample(jax.random.key(1), (500,))) for d in family.values()}
    counts = Counter()
    for a, b in itertools.product(family, repeat=2):
        verdict = covers(outer=regions[b], inner=regions[a]).verdict
        missed = misses(family[a], family[b], draws) or (a != b and bool({a, b} & SURFACES))
        assert (verdict, missed) not in [("yes", True), ("no", False)], (a, b)
        counts[verdict] += 1
    assert counts["yes"] > len(family) and counts["no"] > len(family)
    assert counts["unknown"] < counts.total() / 4


def test_each_covers_itself_unless_it_may_have_points():
    for name, d in {**SCALARS, **INTEGERS, **VECTORS}.items():
        region, _ = abstract_region(d)
        expected = "unknown" if name in ("inflated", "never") else "yes"
        assert covers(region, region).verdict == expected, name


@pytest.mark.parametrize(
    "d",
    [
        dist.HurdleGamma(0.5, concentration=1.0, rate=1.0),
        dist.MixtureGeneral(
            dist.Categorical(jnp.ones(2) / 2),
            [dist.Normal(0.0, 1.0), dist.Delta(0.0)],
            support=constraints.real,
        ),
        dist.Normal(0.0, 1.0).mask(False),
        dist.TransformedDistribution(dist.Delta(0.5), transforms.ExpTransform()),
    ],
)
def test_a_point_that_may_have_probability_is_not_covered_by_a_density(d):
    program = Abstract(stage(lambda: (ppl.sample("x", d), ppl.sample("y", dist.Normal(0.0, 1.0)))))
    inner, outer = map(program.region, program.visits)
    assert covers(outer, inner).verdict == "unknown"


def test_structured_supports():
    laws = {
        "simplex": dist.Dirichlet(jnp.ones(2)),
        "sphere": dist.ProjectedNormal(jnp.zeros(2)),
        "line": dist.MultivariateNormal(jnp.zeros(2), EYE),
    }
    terms = Terms()
    regions = {name: abstract_region(d, terms)[0] for name, d in laws.items()}
    for (a, inner), (b, outer) in itertools.product(regions.items(), repeat=2):
        assert covers(outer, inner).verdict == ("yes" if a == b else "no")


def test_a_surface_of_one_element_is_not_taken_for_one():
    assert abstract_region(dist.Dirichlet(jnp.ones(1)))[0].measure == "unknown"


def test_bounds_that_are_the_same_value_are_equal():
    def program(low):
        width = ppl.sample("width", dist.Exponential(1.0))
        same, narrower, other = (
            dist.Uniform(low, low + width),
            dist.Uniform(0.0, 0.5),
            dist.Uniform(low, width),
        )
        ppl.sample("x", dist.Uniform(low, low + width), proposal=same)
        ppl.sample("y", dist.Uniform(low, low + width), proposal=narrower)
        ppl.sample("z", dist.Uniform(low, low + width), proposal=other)

    found = Abstract(stage(program, jnp.array(0.0)))
    answers = [covers(found.region(v, of_proposal=True), found.region(v)).verdict for v in found.visits[1:]]
    assert answers == ["yes", "unknown", "unknown"]


def test_a_user_defined_distribution_is_unknown():
    class Mine(dist.Normal):
        pass

    Mine.__module__ = "mine"
    region, _ = abstract_region(Mine(0.0, 1.0))
    assert region.measure == "unknown" and not region.full
