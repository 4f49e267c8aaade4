"""Truncated, censored, zero-inflated and hurdle distributions as sites: right, or refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.integrate import quad
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl.effects import log_prob

KEY = jax.random.key(0)
INF = np.inf
BASES = {
    "Cauchy": dist.Cauchy(0.5, 1.5),
    "Laplace": dist.Laplace(0.5, 1.5),
    "Logistic": dist.Logistic(0.5, 1.5),
    "Normal": dist.Normal(0.5, 1.5),
    "SoftLaplace": dist.SoftLaplace(0.5, 1.5),
}
BOUNDS = [(-2.0, None), (2.0, None), (None, 3.0), (None, -1.0), (-2.0, 3.0), (2.0, 3.0)]


def ends(low, high):
    return -INF if low is None else low, INF if high is None else high


TRUNCATED = {
    f"{name} {low} {high}": (dist.TruncatedDistribution(base, low=low, high=high), *ends(low, high))
    for name, base in BASES.items()
    for low, high in (BOUNDS if name == "Normal" else BOUNDS[-2:])
}
TRUNCATED |= {
    "Gamma 1 None": (dist.TruncatedGamma(2.0, 0.7, low=1.0), 1.0, INF),
    "Gamma None 4": (dist.TruncatedGamma(2.0, 0.7, high=4.0), 0.0, 4.0),
    "Gamma 1 4": (dist.TruncatedGamma(2.0, 0.7, low=1.0, high=4.0), 1.0, 4.0),
    "power law -1": (dist.DoublyTruncatedPowerLaw(-1.0, 1.0, 4.0), 1.0, 4.0),
    "power law 1.5": (dist.DoublyTruncatedPowerLaw(1.5, 1.0, 4.0), 1.0, 4.0),
    "power law below": (dist.LowerTruncatedPowerLaw(-3.0, 1.0), 1.0, INF),
    "folded": (dist.FoldedDistribution(dist.Normal(0.5, 1.5)), 0.0, INF),
}


def site(d):
    return lambda: ppl.sample("x", d)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_density_is_that_of_its_draws(name):
    """Its mass is one, by quadrature to the error that quad reports; so is the share of draws below some point."""
    d, low, high = TRUNCATED[name]
    density = jax.jit(lambda x: jnp.exp(log_prob(d, x)))
    with jax.enable_x64(True):
        middle = float(np.clip(1.5, low + 0.4, high - 0.4)) if high - low > 0.8 else (low + high) / 2
        (below, error), (above, other) = quad(density, low, middle), quad(density, middle, high)
        # the parameters are float32: a mass may be off by some of their units in the last place
        assert abs(below + above - 1.0) < error + other + 1e2 * np.finfo(np.float32).eps
        for outside in (low - 0.5, high + 0.5):
            assert not np.isfinite(outside) or float(density(outside)) == 0.0
    draws = jax.jit(jax.vmap(ppl.seed(site(d))))(jax.random.split(KEY, 20_000))
    assert np.all(draws >= low) and np.all(draws <= high)
    assert_mean(draws < middle, below)


def test_a_truncated_site_is_conditioned_inside_its_bounds():
    """The bounds may be draws themselves, in a batch too."""

    def model():
        low = ppl.sample("low", dist.Uniform(0.0, 1.0))
        return ppl.sample("x", dist.TruncatedNormal(jnp.zeros(2), 1.0, low=low))

    with pytest.raises(ppl.ChoiceError, match="outside the support of LeftTruncatedDistribution"):
        ppl.log_density(model)({"low": 0.5, "x": jnp.array([0.6, 0.4])})
    density = jax.jit(lambda x: ppl.log_density(model)({"low": jnp.array(0.5), "x": x}))
    assert density(jnp.array([0.6, 0.4])) == -INF
    expected = stats.norm.logpdf([0.6, 0.7]).sum() - 2 * stats.norm.logsf(0.5)
    assert float(density(jnp.array([0.6, 0.7]))) == pytest.approx(expected, rel=1e-5)
    x = jax.vmap(ppl.simulate(model))(jax.random.split(KEY, 1000))
    assert np.all(x.value >= x.choices["low"][:, None]) and np.all(np.isfinite(x.log_density))


@pytest.mark.parametrize("bounds", [{"low": 6.0, "high": 7.0}, {"low": 15.0}, {"high": -15.0}])
def test_a_density_that_cannot_be_resolved_is_not_infinite(bounds):
    """float32 has no number for the mass that is kept: the density is not a number rather than +inf."""
    d = dist.TruncatedNormal(0.0, 1.0, **bounds)
    assert np.isnan(log_prob(d, bounds.get("low", bounds.get("high"))))
    assert np.isnan(log_prob(d.expand([2]).to_event(1), jnp.full(2, bounds.get("low", bounds.get("high")))))


COUNTS = {
    "ZeroInflatedPoisson": dist.ZeroInflatedPoisson(0.3, 2.0),
    "ZeroInflatedProbs": dist.ZeroInflatedDistribution(dist.Binomial(3, 0.5), gate=0.3),
    "ZeroInflatedLogits": dist.ZeroInflatedDistribution(dist.Geometric(0.3), gate_logits=0.3),
    "ZeroInflatedNegativeBinomial2": dist.ZeroInflatedNegativeBinomial2(2.0, 1.0, gate=0.4),
    "HurdlePoisson": dist.HurdlePoisson(0.3, 2.0),
    "HurdleProbs": dist.HurdleDistribution(dist.Binomial(3, 0.5), gate=0.3),
    "HurdleLogits": dist.HurdleDistribution(dist.Poisson(2.0), gate_logits=0.3),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_with_more_zeros(name):
    d = COUNTS[name]
    k = jnp.arange(200)
    mass = np.exp(jax.vmap(lambda k: log_prob(d, k))(k), dtype=np.float64)
    assert mass.sum() == pytest.approx(1.0, rel=1e-5)
    draws = np.asarray(jax.jit(jax.vmap(ppl.seed(site(d))))(jax.random.split(KEY, 20_000)))
    assert_mean(draws[:, None] == np.arange(4), mass[:4])


def test_zero_inflation_by_enumeration():
    """A zero-inflated site, against the program that draws the zero by a coin."""

    def by_coin():
        zero = ppl.sample("zero", dist.Bernoulli(0.3))
        return jax.lax.cond(zero == 1, lambda: 0, lambda: ppl.sample("x", dist.Binomial(3, 0.5)))

    inflated = {int(x): w for x, w in semantics.meaning(site(COUNTS["ZeroInflatedProbs"]))()}
    total: dict = {}
    for value, weight in semantics.meaning(by_coin)():
        total[int(value)] = total.get(int(value), 0.0) + weight
    assert inflated == pytest.approx(
        total, rel=1e-6
    )  # 0.3 and 0.5 are float32 in one and float64 in the other


@pytest.mark.parametrize("d", [dist.HurdleGamma(0.3, 2.0, 1.0), dist.HurdleLogNormal(0.3, 0.0, 1.0)])
def test_a_continuous_hurdle_has_an_atom_at_zero(d):
    trace = jax.vmap(ppl.simulate(site(d)))(jax.random.split(KEY, 20_000))
    assert np.all(np.isfinite(trace.log_density))
    assert_mean(trace.value == 0, 0.3)
    np.testing.assert_allclose(trace.log_density[np.asarray(trace.value) == 0], np.log(0.3), rtol=1e-6)


# ------------------------------------------------------------------------- censored observations

LEFT, RIGHT = dist.LeftCensoredDistribution, dist.RightCensoredDistribution


@pytest.mark.parametrize(
    ("base", "exact"),
    [
        (dist.Exponential(0.5), stats.expon(scale=2.0)),
        (dist.LogNormal(0.5, 2.0), stats.lognorm(2.0, scale=np.exp(0.5))),
        (dist.Weibull(3.0, 2.0), stats.weibull_min(2.0, scale=3.0)),
        (dist.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
        (dist.Uniform(-1.0, 2.0), stats.uniform(-1.0, 3.0)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_bound_has_the_probability_of_what_is_beyond_it(base, exact):
    """Inside the support, at its ends and outside, next to values that were seen exactly."""
    with jax.enable_x64(True):
        for value in (-3.0, -1.0, 0.0, 0.5, 1.75, 2.0, 4.0):
            with np.errstate(divide="ignore"):
                expected = {LEFT: exact.logcdf(value), RIGHT: exact.logsf(value)}
            for kind, log_tail in expected.items():
                assert float(log_prob(kind(base, True), value)) == pytest.approx(log_tail, rel=1e-6)
    mixed = RIGHT(base, jnp.array([True, False])).to_event(1)
    value = jnp.array([1.5, 1.25])
    total = ppl.log_density(lambda: ppl.observe("y", mixed, value))({})
    assert float(total) == pytest.approx(exact.logsf(1.5) + exact.logpdf(1.25), rel=1e-5)


@pytest.mark.parametrize(
    ("base", "exact"),
    [
        (dist.Exponential(1.0), stats.expon()),
        (dist.Gamma(2.0, 1.0), stats.gamma(2.0)),
        (dist.Logistic(0.5, 1.0), stats.logistic(0.5)),
        (dist.LogNormal(0.5, 0.25), stats.lognorm(0.25, scale=np.exp(0.5))),
        (dist.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
        (dist.Weibull(3.0, 2.0), stats.weibull_min(2.0, scale=3.0)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_far_tails(base, exact):
    """In float32, where 1 - F is rounded to nothing."""
    for value in (5.0, 25.0):
        assert float(log_prob(RIGHT(base, True), value)) == pytest.approx(exact.logsf(value), rel=1e-5)


def test_a_tail_that_cannot_be_resolved_is_not_a_number():
    """1 - F of a Gumbel is 5e-5 at 10, some hundred units in the last place of 1, but 2e-9 at 20."""
    tail = lambda x: float(log_prob(RIGHT(dist.Gumbel(0.0, 1.0), True), x))  # noqa: E731
    assert np.isnan(tail(20.0))
    assert tail(10.0) == pytest.approx(stats.gumbel_r.logsf(10.0), abs=1 / 16)
    with jax.enable_x64(True):
        assert tail(20.0) == pytest.approx(stats.gumbel_r.logsf(20.0), rel=1e-6)


def test_the_likelihood_of_a_bound_can_be_differentiated():
    for kind, rate in ((RIGHT, -2.0), (LEFT, 2.0 / np.expm1(2.0))):
        for bound, expected in ((2.0, rate), (-1.0, 0.0)):
            gradient = jax.grad(lambda rate: log_prob(kind(dist.Exponential(rate), True), bound))(1.0)
            assert float(gradient) == pytest.approx(expected, rel=1e-5)


def test_a_value_at_an_end_of_the_support_that_was_seen():
    half_normal = dist.TruncatedNormal(0.0, 1.0, low=0.0)
    for value, expected in ((0.0, np.log(2) - 0.5 * np.log(2 * np.pi)), (-1.0, -INF)):
        assert float(log_prob(RIGHT(half_normal, False), value)) == pytest.approx(expected, rel=1e-6)


def test_inference_from_censored_data():
    """Survival times, some known only to exceed a bound: the posterior is Gamma(a + number seen, b + total time)."""
    times, censored = jnp.array([0.5, 1.5, 2.0, 2.0]), jnp.array([False, False, True, True])

    def model():
        rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
        ppl.observe("time", dist.RightCensoredDistribution(dist.Exponential(rate), censored), times)
        return rate

    population = jax.jit(ppl.seed(inference.importance(model, 100_000)))(KEY)
    weight = np.exp(np.asarray(population.log_weight, np.float64))
    evidence = 6.0 / 7.0**4  # Gamma(4) / Gamma(2) / (1 + 6)^4
    assert_mean(weight / evidence, 1.0)
    assert_mean(weight / evidence * population.value, 4.0 / 7.0)


# ------------------------------------------------------------------------- what is refused

MIXED = dist.MixtureGeneral(
    dist.Categorical(jnp.array([0.5, 0.5])), [dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)]
)
NEVER = {
    "interval-censored": (
        dist.IntervalCensoredDistribution(dist.Normal(0.0, 1.0), jnp.array(False), jnp.array(False)),
        "IntervalCensoredDistribution draws values of another shape",
    ),
    "bounds of a count": (
        RIGHT(dist.Poisson(2.0), True),
        "RightCensoredDistribution of Poisson counts the bound",
    ),
    "wrapped": (LEFT(dist.Normal(0.0, 1.0), True).expand([2]), "wraps a censored distribution"),
    "mixture": (MIXED, "supports with parameters"),
    "inflated": (
        dist.ZeroInflatedDistribution(dist.DiscreteUniform(1, 3), gate=0.5),
        "DiscreteUniform cannot be 0",
    ),
    "hurdle": (dist.HurdleDistribution(dist.Exponential(1.0), gate=0.5), "use HurdleGamma, HurdleLogNormal"),
    "deep inside": (MIXED.expand([2]).to_event(1), "supports with parameters"),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_wrong_density_is_refused(name):
    d, message = NEVER[name]
    with pytest.raises(ppl.UnsupportedError, match=rf"site 'x' at test_laws.py:\d+: .*{message}"):
        ppl.seed(site(d))(KEY)
    with pytest.raises(ppl.UnsupportedError, match=rf"site 'y' at test_laws.py:\d+: .*{message}"):
        ppl.log_density(lambda: ppl.observe("y", d, jnp.ones(d.shape())))({})


@pytest.mark.parametrize(
    ("d", "message"),
    [
        (LEFT(dist.Normal(0.0, 1.0), True), "ppl.observe it, or draw the uncensored value"),
        (RIGHT(dist.Normal(0.0, 1.0), True), "ppl.observe it, or draw the uncensored value"),
        (dist.TruncatedPolyaGamma(), "its draws are too small on average"),
    ],
    ids=["left", "right", "Polya-Gamma"],
)
def test_wrong_draws_are_refused(d, message):
    with pytest.raises(ppl.UnsupportedError, match=rf"site 'x' at test_laws.py:\d+: .*{message}"):
        ppl.seed(site(d))(KEY)
    with pytest.raises(ppl.UnsupportedError, match=message):
        ppl.seed(lambda: ppl.sample("x", dist.Normal(0.0, 1.0), proposal=d))(KEY)


def test_a_mixture_whose_support_is_given():
    d = dist.MixtureGeneral(
        MIXED.mixing_distribution, MIXED.component_distributions, support=dist.constraints.real
    )
    for x, density in [(0.5, 0.5), (1.5, 0.0), (2.5, 0.5)]:
        assert float(jnp.exp(jax.jit(log_prob)(d, x))) == pytest.approx(density, rel=1e-6)
    trace = jax.vmap(ppl.simulate(site(d)))(jax.random.split(KEY, 1000))
    np.testing.assert_allclose(trace.log_density, np.log(0.5), rtol=1e-6)
