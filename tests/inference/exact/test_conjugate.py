"""The transformed program has the density of the program at every value: evidence times posterior is prior times
likelihood. Where it is known, the evidence is compared as well."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from scipy.special import betaln
from thresholds import assert_mean

from borelax import inference, ppl
from borelax.inference.exact.conjugate_pairs import log_density
from borelax.ppl import BorelaxError, UnsupportedError
from borelax.ppl.describe import spell_support

_generator = np.random.default_rng(0)
COUNTS = np.array([3, 0, 2, 5])
REALS = _generator.normal(size=4)
DESIGN = _generator.normal(size=(4, 2))
EXPOSURE = np.array([0.5, 2.0, 1.0, 3.0])
BITS = np.array([1, 0, 1, 1])
GROUP = np.array([0, 1, 1, 2])


def observe_each(name: str, law, values) -> None:
    jax.vmap(lambda y: ppl.observe(name, law, y))(jnp.asarray(values))


# ------------------------------------------------------------------------- programs with a site "z"


def bernoulli():
    observe_each("y", dist.Bernoulli(ppl.sample("z", dist.Beta(2.0, 0.5))), BITS)


def binomial():
    z = ppl.sample("z", dist.Beta(2.0, 0.5))
    ppl.observe("y", dist.Binomial(jnp.array([4, 1, 2, 9]), z).to_event(1), COUNTS)


def geometric():
    ppl.observe("y", dist.Geometric(ppl.sample("z", dist.Beta(2.0, 0.5))).expand([4]), COUNTS)


def poisson_with_exposure():
    ppl.observe("y", dist.Poisson(ppl.sample("z", dist.Gamma(2.0, 0.5)) * EXPOSURE), COUNTS)


def exponential():
    z = ppl.sample("z", dist.Exponential(0.5))
    ppl.observe("y", dist.Exponential(z / jnp.array([2.0, 1.0, 1.0, 5.0])), EXPOSURE)


def gamma():
    z = ppl.sample("z", dist.Gamma(2.0, 0.5))
    observe_each("y", dist.Gamma(3.0, 2.0 * z), EXPOSURE)


def categorical():
    z = ppl.sample("z", dist.Dirichlet(jnp.array([0.5, 1.0, 2.0])))
    observe_each("y", dist.Categorical(z), GROUP)


def multinomial():
    z = ppl.sample("z", dist.Dirichlet(jnp.array([0.5, 1.0, 2.0, 1.0])))
    ppl.observe("y", dist.Multinomial(10, z), COUNTS)


def markov_moves():
    """A row for each state, of which the one is taken that a known state says."""
    z = ppl.sample("z", dist.Dirichlet(jnp.array([0.5, 1.0, 2.0])).expand([3]).to_event(1))

    def step(state, new):
        ppl.observe("y", dist.Categorical(z[state]), new)
        return new, None

    lax.scan(step, 0, jnp.asarray(GROUP))


def normal_mean():
    """With integers for parameters."""
    z = ppl.sample("z", dist.Normal(0, 2))
    ppl.observe("y", dist.Normal(z, jnp.array([1, 2, 2, 3])).to_event(1), REALS)


def line_through_a_point():
    """With other sites in the mean and in the scale."""
    z = ppl.sample("z", dist.Normal(ppl.sample("m", dist.Normal(0.0, 1.0)), 2.0))
    scale = ppl.sample("scale", dist.Gamma(3.0, 3.0))
    ppl.observe("y", dist.Normal(1.0 - DESIGN[:, 0] * z + scale, scale), REALS)


def regression():
    z = ppl.sample("z", dist.Normal(0.5, 2.0).expand([2]))
    ppl.observe("y", dist.Normal(DESIGN @ z + 0.25, 0.5), REALS)


def correlated_regression():
    z = ppl.sample("z", dist.MultivariateNormal(jnp.array([0.5, 0.0]), jnp.array([[2.0, 0.5], [0.5, 1.0]])))
    covariance = jnp.eye(4) + 0.25
    ppl.observe("y", dist.MultivariateNormal(DESIGN @ z, covariance), REALS)
    ppl.observe("x", dist.MultivariateNormal(z, 0.5 * jnp.eye(2)).expand([3]), jnp.ones((3, 2)))


def drifting():
    """A sum of the site's elements, on the carry of a scan."""
    z = ppl.sample("z", dist.Normal(0.5, 2.0).expand([2, 2]).to_event(2))

    def step(level, inputs):
        x, y = inputs
        level = 0.5 * level + x @ z
        ppl.observe("y", dist.Normal(level, 0.5).to_event(1), jnp.stack([y, -y]))
        return level, None

    lax.scan(step, jnp.zeros(2), (jnp.asarray(DESIGN), jnp.asarray(REALS)))


def groups():
    """A plate of the site, with one or more observations for each, or none; and of two kinds."""
    z = jax.vmap(lambda m: ppl.sample("z", dist.Normal(m, 2.0)))(jnp.array([0.0, 1.0, 2.0, 3.0]))
    ppl.observe("y", dist.Normal(z[GROUP], 0.5), REALS)
    ppl.observe("x", dist.Normal(-2.0 * z[0], 1.5), 3.0)


def local():
    """A site in every step of a scan, whose prior is drawn by the program."""

    def step(a, y):
        z = ppl.sample("z", dist.Beta(a, 1.0))
        ppl.observe("y", dist.Bernoulli(z), y)
        return ppl.sample("a", dist.Gamma(3.0, 3.0)), z**2

    return lax.scan(step, 0.5, jnp.asarray(BITS))


def remembered():
    """An element that is used in the step after as well, on the carry."""

    def step(before, y):
        z = ppl.sample("z", dist.Normal(0.5, 2.0))
        ppl.observe("y", dist.Normal(0.5 * z - before, 0.5), y)
        return z, None

    lax.scan(step, 0.0, jnp.asarray(REALS))


def several_kinds():
    """Of each element by itself, of sums, and of events with correlated noise."""
    z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([2]))
    ppl.observe("a", dist.Normal(z, 0.5).to_event(1), REALS[:2])
    ppl.observe("b", dist.Normal(2.0 * jnp.cumsum(z) - z[::-1], 0.75), REALS[2:])
    correlated = dist.MultivariateNormal(jnp.stack([z[0], 1.0 - z[1]]), jnp.array([[1.0, 0.5], [0.5, 1.0]]))
    observe_each("c", correlated, REALS.reshape(2, 2))


def plates_in_plates():
    def each(m, y):
        z = ppl.sample("z", dist.Normal(m, 1.5))
        ppl.observe("y", dist.Normal(3.0 * z - 1.0, 0.5), y)

    jax.vmap(lambda m, ys: jax.vmap(each, (None, 0))(m, ys))(
        jnp.arange(2.0), jnp.asarray(REALS).reshape(2, 2)
    )


def some_missing():
    """Elements that are replaced by constants."""
    z = ppl.sample("z", dist.Gamma(2.0, 0.5))
    ppl.observe("y", dist.Poisson(jnp.where(BITS == 1, z, 2.0)), COUNTS)


def unobserved():
    return jnp.exp(ppl.sample("z", dist.Beta(2.0, 0.5)))


PROGRAMS = [
    bernoulli,
    binomial,
    geometric,
    poisson_with_exposure,
    exponential,
    gamma,
    categorical,
    multinomial,
    markov_moves,
    normal_mean,
    line_through_a_point,
    regression,
    correlated_regression,
    drifting,
    groups,
    local,
    remembered,
    several_kinds,
    plates_in_plates,
    some_missing,
    unobserved,
]


VALUES = {
    "unit interval": lambda shape: _generator.uniform(size=shape),
    "positive": lambda shape: _generator.gamma(2.0, size=shape),
    "simplex": lambda shape: _generator.dirichlet(np.ones(shape[-1]), size=shape[:-1]),
    "real": lambda shape: _generator.normal(size=shape),
    "real vector": lambda shape: _generator.normal(size=shape),
}


@pytest.mark.parametrize("program", family(PROGRAMS, every=2), ids=lambda program: program.__name__)
def test_the_density_is_kept_at_every_value(program):
    transformed = inference.conjugate(program, "z")
    sites = {name: site for name, site in ppl.trace_type(program)().items() if site.kind == "sample"}
    choices = {name: VALUES[spell_support(site.support)]((3, *site.shape)) for name, site in sites.items()}
    with jax.enable_x64(True):
        densities = jax.jit(
            jax.vmap(lambda x: (ppl.log_density(program)(x), ppl.log_density(transformed)(x)))
        )
        expected, found = densities(jax.tree.map(jnp.asarray, choices))
    assert len(set(np.asarray(expected).tolist())) == 3 and np.all(np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------- weights and draws


def one_binomial():
    ppl.observe("y", dist.Binomial(9, ppl.sample("z", dist.Beta(2.0, 0.5))), 5)


def one_poisson():
    ppl.observe("y", dist.Poisson(3.0 * ppl.sample("z", dist.Gamma(2.0, 0.5))), 5)


@pytest.mark.parametrize(
    ("program", "law", "value", "z"),
    family(
        [
            (one_poisson, lambda: dist.GammaPoisson(2.0, 0.5 / 3.0), 5, 0.5),
            (one_binomial, lambda: dist.BetaBinomial(2.0, 0.5, 9), 5, 0.5),
            (
                multinomial,
                lambda: dist.DirichletMultinomial(jnp.array([0.5, 1.0, 2.0, 1.0]), 10),
                COUNTS,
                np.ones(4) / 4,
            ),
        ]
    ),
    ids=["poisson", "binomial", "multinomial"],
)
def test_the_evidence_is_the_density_of_the_compound_distribution(program, law, value, z):
    transformed = inference.conjugate(program, "z")
    with jax.enable_x64(True):
        z = jnp.asarray(z)
        ratio = ppl.log_density(transformed)({"z": z}) - ppl.log_density(without_weights(transformed))(
            {"z": z}
        )
        np.testing.assert_allclose(ratio, law().log_prob(value), rtol=1e-10)


def without_weights(program):
    """The draws of a program alone: of a transformed one, the posterior of its site."""
    return lambda: ppl.weigh(program)()


def test_draws_have_the_posterior_and_weights_do_not_depend_on_them():
    run = jax.jit(jax.vmap(ppl.seed(ppl.trace(inference.conjugate(regression, "z")))))
    trace = run(jax.random.split(jax.random.key(0), 20_000))
    assert np.ptp(trace.log_weight) == 0
    precision = np.eye(2) / 4 + DESIGN.T @ DESIGN / 0.25
    mean = np.linalg.solve(precision, np.full(2, 0.5) / 4 + DESIGN.T @ (REALS - 0.25) / 0.25)
    away = np.asarray(trace.choices["z"], np.float64) - mean
    assert_mean(away, np.zeros(2))
    assert_mean(away[:, :, None] * away[:, None, :], np.linalg.inv(precision))


def test_what_is_returned_and_recorded_is_of_the_value_that_is_drawn():
    def program():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.observe("y", dist.Normal(ppl.deterministic("mean", 2 * z), 1.0), 1.0)
        ppl.deterministic("odds", z / (1 - z))
        return ppl.sample("other", dist.Normal(0.0, 1.0)), jnp.sin(z)

    trace = ppl.simulate(inference.conjugate(program, "z"))(jax.random.key(0))
    z = trace.choices["z"]
    assert trace.value == (trace.choices["other"], jnp.sin(z))
    assert trace.deterministic == {"mean": 2 * z, "odds": z / (1 - z)}


def test_sites_that_are_conditioned_on_are_observations():
    """A Gibbs step: given all else, a draw from the full conditional."""

    def program():
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        return jax.vmap(lambda _: ppl.sample("x", dist.Normal(mean, 2.0)))(jnp.arange(4))

    with pytest.raises(UnsupportedError, match="law of a later draw, 'x'"):
        ppl.trace_type(inference.conjugate(program, "mean"))()
    step = inference.conjugate(ppl.condition(program, {"x": REALS.astype(np.float32)}), "mean")
    precision = 1.0 + 4 / 4
    expected = dist.Normal(REALS.sum() / 4 / precision, precision**-0.5).log_prob(0.25)
    np.testing.assert_allclose(ppl.log_density(without_weights(step))({"mean": 0.25}), expected, rtol=1e-5)


def test_parameters_may_be_integers():
    def program():
        m = jax.vmap(lambda m: ppl.sample("m", dist.Normal(m, 1)))(jnp.arange(2))
        p = ppl.sample("p", dist.Beta(1, 1))
        ppl.observe("x", dist.Normal(m, 1).to_event(1), jnp.array([1, 2]))
        ppl.observe("y", dist.Bernoulli(p), 1)
        return m, p

    both = inference.conjugate(inference.conjugate(program, "m"), "p")
    assert {site.dtype for site in ppl.trace_type(both)().values()} == {jnp.dtype(jnp.float32)}
    densities = jax.jit(lambda choices: [ppl.log_density(p)(choices) for p in (program, both)])
    expected, found = densities({"m": jnp.array([0.5, -0.5]), "p": 0.25})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_two_sites_one_after_the_other():
    def program():
        a, b = ppl.sample("a", dist.Normal(0.0, 1.0)), ppl.sample("b", dist.Gamma(2.0, 1.0))
        ppl.observe("x", dist.Normal(a, 1.0), 1.0)
        ppl.observe("y", dist.Exponential(b), 2.0)

    both = inference.conjugate(inference.conjugate(program, "a"), "b")
    densities = jax.jit(lambda choices: [ppl.log_density(p)(choices) for p in (program, both)])
    expected, found = densities({"a": 0.3, "b": 1.5})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_other_sites_may_be_in_branches():
    def program(plate):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))

        def shifted(b):
            x = lax.cond(b == 1, lambda: ppl.sample("x", dist.Normal(1.0, 1.0)), lambda: 0.0)
            return ppl.observe("y", dist.Normal(z + x, 0.5), 1.0)

        return jax.vmap(shifted)(plate)

    choices = {"z": 0.25, "x": ppl.Masked(jnp.array([0.5, 0.0]), jnp.array([True, False]))}
    densities = jax.jit(
        lambda b: [ppl.log_density(p)(choices, b) for p in (program, inference.conjugate(program, "z"))]
    )
    expected, found = densities(jnp.array([1, 0]))
    assert np.isfinite(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_value_outside_the_support_has_no_weight():
    def program(y):
        ppl.observe("y", dist.Poisson(ppl.sample("z", dist.Gamma(2.0, 0.5))), y)

    density = jax.jit(lambda y: ppl.log_density(inference.conjugate(program, "z"))({"z": 1.0}, y))
    assert density(jnp.array(-3.0)) == -jnp.inf


def test_the_evidence_has_the_gradient_of_the_compound_density():
    def evidence(a):
        def program():
            ppl.observe("y", dist.Poisson(3.0 * ppl.sample("z", dist.Gamma(a, 0.5))), 5)

        return ppl.log_density(inference.collapse(program, "z"))({})

    expected = jax.grad(lambda a: dist.GammaPoisson(a, 0.5 / 3.0).log_prob(5))(2.0)
    np.testing.assert_allclose(jax.jit(jax.grad(evidence))(2.0), expected, rtol=1e-4)


# ------------------------------------------------------------------------- in single precision


def assert_kept(program, z, compiled=jax.jit) -> None:
    """In single precision."""
    both = compiled(
        lambda z: [ppl.log_density(p)({"z": z}) for p in (program, inference.conjugate(program, "z"))]
    )
    expected, found = both(jnp.asarray(z))
    assert np.isfinite(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("of_prior", "of_noise"), [(100_000, 1), (1e5, 100_000), (1e-22, 1e-22), (1.0, 1e-25)]
)
def test_squares_of_scales_are_out_of_range(of_prior, of_noise):
    def program():
        z = ppl.sample("z", dist.Normal(0, of_prior))
        ppl.observe("y", dist.Normal(z, of_noise), 3.0 * of_noise)

    # XLA squares the scale of a single Normal as well, which is then no number: compiled, so is the program's density.
    assert_kept(program, 2.5 * of_noise, compiled=lambda function: function)


def observed_at(index, of_event=False):
    def program():
        if of_event:
            z = ppl.sample("z", dist.Dirichlet(jnp.array([1.0, 1.0, 2.0])).expand([2]))
            ppl.observe("y", dist.Categorical(z[index]), jnp.arange(3))
        else:
            z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([3]))
            ppl.observe("y", dist.Normal(z[index], 1.0), jnp.arange(3.0))

    return program


def test_an_index_out_of_bounds_is_the_last_one_as_in_the_program():
    index = jnp.array([0, 1, 5])
    assert_kept(observed_at(index), [0.1, 0.2, 0.3])
    assert_kept(observed_at(index, of_event=True), [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])


def test_what_is_no_number_is_replaced():
    x, e = jnp.array([1.0, jnp.nan, 2.0]), jnp.array([2.0, 0.0])

    def program():
        z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([2]))
        ppl.observe("y", dist.Normal(jnp.where(jnp.isnan(x), 0.0, x * z[1]), 1.0), jnp.ones(3))
        ppl.observe("x", dist.Normal(jnp.where(e > 0, z / e, 0.0), 1.0), jnp.ones(2))

    assert_kept(program, [0.3, -0.2])


@pytest.mark.parametrize("mean", [lambda z: z, lambda z: z + z])
def test_the_evidence_far_from_the_prior_is_that_in_double_precision(mean):
    y = (1000.0 + 1e-3 * _generator.normal(size=1000)).astype(np.float32)

    def evidence(y):
        def program():
            z = ppl.sample("z", dist.Normal(0.0, 1000.0))
            ppl.observe("y", dist.Normal(mean(z), 1e-3).expand([1000]).to_event(1), y)

        return jax.jit(lambda: ppl.log_density(inference.collapse(program, "z"))({}))()

    found = evidence(jnp.asarray(y))
    with jax.enable_x64(True):
        expected = evidence(jnp.asarray(y, float))
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize(("a", "b", "count"), [(1.0, 2.0, 10**8), (1.0, 2.0, 2 * 10**7), (1e7, 3.0, 1)])
def test_a_probability_near_one(a, b, count):
    def program():
        ppl.observe("y", dist.Binomial(count, ppl.sample("z", dist.Beta(a, b))), count)

    found = jax.jit(lambda: ppl.log_density(inference.collapse(program, "z"))({}))()
    np.testing.assert_allclose(found, betaln(a + count, b) - betaln(a, b), atol=1e-4)


def test_log_beta_is_that_of_scipy():
    a, b = np.array([0.5, 6.0, 2.0, 8.0, 7.99, 100.0, 0.3]), np.array([0.3, 10.5, 1e8, 8.0, 8.01, 1e6, 40.0])
    with jax.enable_x64(True):
        found = [-log_density(dist.Beta(x, y), 0.5) + (x + y - 2) * np.log(0.5) for x, y in zip(a, b)]
    np.testing.assert_allclose(found[:2], betaln(a, b)[:2], rtol=1e-12)
    np.testing.assert_allclose(found, betaln(a, b), rtol=1e-8)


# ------------------------------------------------------------------------- what is not for the observations


def test_what_is_done_with_the_value_is_done_once_with_what_is_drawn():
    seen = []

    def program():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        jax.debug.callback(lambda z: seen.append(float(z)), z)
        ppl.observe("y", dist.Normal(z, 1.0), 1.0)
        return z, jax.pure_callback(np.sign, jax.ShapeDtypeStruct((), z.dtype), z)

    z, sign = ppl.seed(ppl.weigh(inference.conjugate(program, "z")))(jax.random.key(0))[0]
    jax.effects_barrier()
    assert seen == [float(z)] and sign == np.sign(z)


# ------------------------------------------------------------------------- what is refused


def with_a_derivative(function):
    function = jax.custom_jvp(function)
    function.defjvp(lambda primals, tangents: (function(*primals), 0.0))
    return function


BETA, GAMMA, NORMAL = dist.Beta(2.0, 0.5), dist.Gamma(1.0, 1.0), dist.Normal(0.0, 1.0)
DIRICHLET = dist.Dirichlet(jnp.ones(3))


def z_then(use, law=BETA):
    """The program that draws z and does something with it."""

    def program():
        use(ppl.sample("z", law))

    return program


def seen(likelihood):
    """The use of z as a parameter of a likelihood."""

    def use(z):
        d = likelihood(z)
        return ppl.observe("y", d, jnp.zeros(d.shape(), int))

    return use


REFUSED = {
    "another likelihood": (
        z_then(seen(lambda z: dist.Normal(z, 1.0))),
        "is a Normal, which is not one of Bern",
    ),
    "logits": (z_then(seen(lambda z: dist.Bernoulli(logits=z))), "BernoulliLogits.*by probs"),
    "a function": (
        z_then(seen(lambda z: dist.Bernoulli(z**2))),
        r"probs of 'y'.*integer_pow \(test_conjugate.py:",
    ),
    "half of a probability": (z_then(seen(lambda z: dist.Bernoulli(0.5 * z))), "be elements.*mul"),
    "one less": (z_then(seen(lambda z: dist.Bernoulli(1 - z))), "be elements of its value, .*sub"),
    "a constant in a rate": (
        z_then(seen(lambda z: dist.Poisson(z + 1.0)), GAMMA),
        "times what does not.*add",
    ),
    "an inverse": (z_then(seen(lambda z: dist.Poisson(1 / z)), GAMMA), "div"),
    "no gradient": (z_then(seen(lambda z: dist.Poisson(lax.stop_gradient(z))), GAMMA), "stop_gradient"),
    "a derivative of its own": (
        z_then(seen(lambda z: dist.Poisson(jax.nn.relu(z))), GAMMA),
        "custom_jvp_call",
    ),
    "seen within one": (z_then(with_a_derivative(seen(dist.Poisson)), GAMMA), "rate of 'y'.*custom_jvp_call"),
    "half precision": (
        z_then(seen(lambda z: dist.Normal(z.astype(jnp.bfloat16), 1.0)), NORMAL),
        "convert_element_type",
    ),
    "rounded": (
        z_then(seen(lambda z: dist.Normal(z.astype(int) + 0.0, 1.0)), NORMAL),
        "convert_element_type",
    ),
    "squared": (z_then(seen(lambda z: dist.Normal(z * z, 1.0)), NORMAL), "must be affine in its value.*mul"),
    "part of a simplex": (z_then(seen(lambda z: dist.Categorical(z[:2])), DIRICHLET), "last axis.*slice"),
    "its elements elsewhere": (
        z_then(seen(lambda z: dist.Categorical(z[::-1])), DIRICHLET),
        "last axis.*rev",
    ),
    "a mixture": (z_then(seen(lambda z: dist.Categorical(0.5 * z + 0.2)), DIRICHLET), "last axis"),
    "the scale": (z_then(seen(lambda z: dist.Normal(0.0, z)), NORMAL), "more than its loc"),
    "mean and scale": (z_then(seen(lambda z: dist.Normal(z, z)), NORMAL), "more than its loc"),
    "masked": (z_then(seen(lambda z: dist.Normal(z, 1.0).mask(False)), NORMAL), "is a MaskedDistribution"),
    "the observed value": (z_then(lambda z: ppl.observe("y", NORMAL, z), NORMAL), "more than its loc"),
    "a factor": (z_then(lambda z: ppl.factor(z, "bonus")), "log weight of factor 'bonus'"),
    "a later draw": (z_then(lambda z: ppl.sample("x", dist.Bernoulli(z))), "law of a later draw, 'x'"),
    "a branch": (
        z_then(lambda z: lax.cond(z > 0.5, lambda: ppl.factor(1.0), lambda: None)),
        r"whether factor site 'factor'.*is reached depends on it, by cond",
    ),
    "an observation in a branch": (
        z_then(lambda z: lax.cond(jnp.array(True), lambda: seen(dist.Bernoulli)(z), lambda: 0)),
        "is in a branch",
    ),
    "in a branch of a plate": (
        z_then(
            lambda z: jax.vmap(lambda b: lax.cond(b, lambda: seen(dist.Bernoulli)(z), lambda: 0))(BITS > 0)
        ),
        "in a branch",
    ),
    "in a while_loop": (
        z_then(lambda z: lax.while_loop(lambda c: c < 1, lambda c: c + 1 + seen(dist.Bernoulli)(z), 0)),
        "in a while_loop",
    ),
    "no conjugate prior": (
        z_then(seen(lambda z: NORMAL), dist.Cauchy(0.0, 1.0)),
        "has a Cauchy.*Beta, Gamma",
    ),
    "known in part": (
        ppl.condition(z_then(seen(lambda z: NORMAL), NORMAL.expand([2])), {"z": ppl.partly([1.0, np.nan])}),
        "Normal, known in part",
    ),
    "seen in part": (
        ppl.condition(
            z_then(lambda z: ppl.sample("y", dist.Normal(z, 1.0).expand([2])), NORMAL),
            {"y": ppl.partly([1.0, np.nan])},
        ),
        "draw 'y'.*known in part: condition on all of it",
    ),
    "rows in the steps of a scan": (
        z_then(
            lambda z: lax.scan(lambda _, row: (None, seen(dist.Categorical)(row)), None, z),
            DIRICHLET.expand([2]),
        ),
        "not go through a scan over it",
    ),
    "a walk": (
        lambda: lax.scan(lambda x, _: (ppl.sample("z", dist.Normal(x, 1.0)), None), 0.0, None, length=2)[0],
        "law of a later draw, 'z'",
    ),
    "a site in a branch": (
        lambda: lax.cond(jnp.array(True), lambda: ppl.sample("z", NORMAL), lambda: 0.0),
        "'z'.*is in a branch",
    ),
}


@pytest.mark.parametrize(("program", "reason"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused(program, reason):
    with pytest.raises(UnsupportedError, match=reason) as error:
        ppl.trace_type(inference.conjugate(program, "z"))()
    assert "test_conjugate.py:" in str(error.value)


def test_a_wrong_address_is_found():
    with pytest.raises(BorelaxError, match=r"no sample site 'zz' \(did you mean 'z'\?\)"):
        ppl.trace_type(inference.conjugate(bernoulli, "zz"))()
    with pytest.raises(BorelaxError, match="'y'.*is observed, or conditioned on"):
        ppl.trace_type(inference.conjugate(normal_mean, "y"))()
    with pytest.raises(BorelaxError, match=r"a string, and not \('z',\)"):
        ppl.trace_type(inference.conjugate(bernoulli, ("z",)))()
