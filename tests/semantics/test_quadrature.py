"""Quadrature against closed forms: the stated error is not below the true one."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import special, stats

from borelax import ppl, semantics


def drawn(d, points: int = 65):
    """The measure of one site, to take expectations of: a likelihood is one more function of the value."""
    return semantics.meaning(lambda: ppl.sample("x", d), quadrature={"x": points})()


def assert_honest(measure, f, exact: float, at_most: float) -> None:
    """The stated error is at most ``at_most``, and covers the true one."""
    stated = float(measure.error(f))
    assert stated <= at_most
    assert abs(float(measure.expectation(f)) - exact) <= stated


# ------------------------------------------------------------------------- families, in closed form


def test_normal():
    x = drawn(dist.Normal(0.0, 1.0))
    assert_honest(x, lambda x: stats.norm.pdf(1.3, x, 0.5), stats.norm.pdf(1.3, 0, math.sqrt(1.25)), 1e-8)
    assert_honest(x, lambda x: x**4, 3.0, 1e-8)
    assert_honest(
        x, lambda x: np.exp(0.4 * x**2), 1 / math.sqrt(0.2), 1e-3
    )  # cut off where the density is tiny


def test_beta_binomial():
    p = drawn(dist.Beta(2.0, 3.0))
    assert_honest(p, lambda p: stats.binom.pmf(7, 10, p), stats.betabinom.pmf(7, 10, 2, 3), 1e-8)


def test_gamma_poisson():
    rate = drawn(dist.Gamma(3.0, 2.0))
    assert_honest(rate, lambda x: stats.poisson.pmf(4, x), stats.nbinom.pmf(4, 3, 2 / 3), 1e-6)


def test_exponential():
    x = drawn(dist.Exponential(2.0))
    assert_honest(x, lambda x: np.exp(-3 * x), 2 / 5, 1e-7)
    assert_honest(x, lambda x: x, 1 / 2, 1e-5)


def test_truncated_normal():
    x = drawn(dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0))
    mass = stats.norm.cdf(2) - stats.norm.cdf(-1)
    assert_honest(x, lambda x: x, (stats.norm.pdf(-1) - stats.norm.pdf(2)) / mass, 1e-9)
    tail = drawn(dist.TruncatedNormal(0.0, 1.0, low=1.0))
    assert_honest(tail, lambda x: x, stats.norm.pdf(1) / stats.norm.sf(1), 1e-3)


def test_uniform():
    x = drawn(dist.Uniform(-1.0, 3.0))
    assert_honest(x, lambda x: np.exp(-x), (math.e - math.exp(-3)) / 4, 1e-9)
    assert_honest(x, lambda x: x, 1.0, 1e-9)


def test_heavy_tails():
    x = drawn(dist.Cauchy(1.0, 2.0), points=257)
    assert_honest(x, lambda x: 1.0, 1.0, 1e-3)
    assert_honest(x, lambda x: math.exp(-(((x - 1) / 2) ** 2)), math.e * special.erfc(1), 1e-2)


def test_a_transformed_distribution():
    x = drawn(dist.LogNormal(0.5, 0.7))
    assert_honest(x, lambda x: x, math.exp(0.5 + 0.245), 1e-7)


def test_two_dimensions_that_depend_on_each_other():
    covariance = jnp.array([[1.0, 0.8], [0.8, 2.0]])
    x = drawn(dist.MultivariateNormal(jnp.array([1.0, -1.0]), covariance), points=33)
    exact = stats.norm.pdf(0.7, 0, math.sqrt(0.25 + 3 + 1.6))
    assert_honest(x, lambda x: stats.norm.pdf(0.7, x[0] + x[1], 0.5), exact, 1e-2)


def test_a_simplex_has_two_dimensions():
    x = drawn(dist.Dirichlet(jnp.array([1.0, 2.0, 2.0])), points=33)
    assert_honest(x, lambda x: x[0] ** 2 * x[1], (1 * 2 * 2) / (5 * 6 * 7), 1e-3)


def test_far_from_zero_and_narrow():
    x = drawn(dist.Normal(1e3, 1e-3))
    assert_honest(x, lambda x: x - 1e3, 0.0, 1e-7)


# ------------------------------------------------------------------------- the stated error


@pytest.mark.parametrize("points", [33, 65])
def test_jumps_and_kinks_anywhere(points):
    """Where a jump or a kink lies between nodes is chance, and so is the error: of 500 places the stated error is less
    than a tenth of the true one in at most two, and less than all of it in at most a fifth. What is smooth is never
    worse than stated."""
    x = drawn(dist.Normal(0.0, 1.0), points)
    places = np.linspace(-3, 3, 501) + 1e-4
    jump, jump_error = _all(x, lambda x: np.where(x > places, 1.0, 0.0))
    kink, kink_error = _all(x, lambda x: np.maximum(x - places, 0.0))
    smooth, smooth_error = _all(x, lambda x: stats.norm.pdf(x, places, 0.4))
    exact = stats.norm.pdf(places) - places * stats.norm.sf(places)
    for true, stated in (
        (np.abs(jump - stats.norm.sf(places)), jump_error),
        (np.abs(kink - exact), kink_error),
    ):
        assert np.sum(true > 10 * stated) <= 2
        assert np.mean(true > stated) <= 0.2
    true = np.abs(smooth - stats.norm.pdf(places, 0, math.sqrt(1.16)))
    assert np.all(true <= smooth_error)


def _all(measure, f):
    return measure.expectation(f), measure.error(f)


def test_more_nodes_state_less():
    d = dist.Normal(0.0, 1.0)
    errors = [float(drawn(d, n).error(lambda x: stats.norm.pdf(x, 0.3, 0.2))) for n in (17, 33, 65)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 0


def test_a_rule_that_is_wrong_states_it():
    """A peak between the nodes of the finest rule."""
    x = drawn(dist.Normal(0.0, 1.0), points=17)
    f = lambda x: stats.norm.pdf(x, 0.3, 0.05)  # noqa: E731
    true = abs(float(x.expectation(f)) - stats.norm.pdf(0.3, 0, math.sqrt(1.0025)))
    assert true > 0.1 and float(x.error(f)) > 0.1


# ------------------------------------------------------------------------- programs


def normal(name, mean, sd):
    return ppl.sample(name, dist.Normal(mean, sd))


def test_two_sites_and_a_posterior():
    def program(y):
        x = normal("x", 0.0, 2.0)
        z = normal("z", x, 1.0)
        ppl.observe("y", dist.Normal(z, 0.5), y)
        return x, z

    measure = semantics.meaning(program, quadrature={"x": 65, "z": 33})(jnp.array(1.0))
    assert_honest(measure, lambda _: 1.0, stats.norm.pdf(1, 0, math.sqrt(5.25)), 1e-5)
    assert_honest(measure.normalise(), lambda v: v[0], 4 / 5.25, 1e-4)
    assert_honest(measure.normalise(), lambda v: v[1], 5 / 5.25, 1e-4)


def test_a_scan_under_a_scope():
    def program(ys):
        def step(x, y):
            x = normal("x", x, 1.0)
            ppl.observe("y", dist.Normal(x, 1.0), y)
            return x, None

        with ppl.scope("walk"):
            return lax.scan(step, 0.0, ys)[0]

    measure = semantics.meaning(program, quadrature={"walk/x": 33})(jnp.array([0.5, -1.0]))
    exact = stats.multivariate_normal([0, 0], [[2, 1], [1, 3]]).pdf([0.5, -1.0])
    assert_honest(measure, lambda _: 1.0, exact, 1e-4)


@pytest.mark.parametrize("kind", ["vmap", "batch"])
def test_two_copies_at_a_site(kind):
    def program():
        means = jnp.array([0.0, 1.0])
        if kind == "vmap":
            x = jax.vmap(lambda m: normal("x", m, 1.0))(means)
        else:
            x = ppl.sample("x", dist.Normal(means, 1.0).to_event(1))
        ppl.observe("y", dist.Normal(x.sum(), 0.5), 1.5)
        return x

    measure = semantics.meaning(program, quadrature={"x": 33})()
    assert_honest(measure, lambda _: 1.0, stats.norm.pdf(1.5, 1, 1.5), 1e-3)


def test_discrete_sites_are_added_up():
    def program():
        z = ppl.sample("z", dist.Bernoulli(0.25))
        x = lax.cond(z == 1, lambda: normal("x", 1.0, 1.0), lambda: 0.0)
        ppl.observe("y", dist.Normal(x, 1.0), 0.5)
        return z

    measure = semantics.meaning(program, quadrature={"x": 65})()
    assert len(measure) == 2
    assert_honest(measure, lambda z: z, 0.25 * stats.norm.pdf(0.5, 1, math.sqrt(2)), 1e-8)
    assert_honest(measure, lambda z: 1 - z, 0.75 * stats.norm.pdf(0.5), 1e-8)


def test_parameters_in_single_precision():
    def program():
        x = normal("x", np.float32(0.0), np.float32(1.0))
        ppl.observe("y", dist.Normal(x, np.float32(0.5)), np.float32(1.25))

    measure = semantics.meaning(program, quadrature={"x": 65})()
    assert measure.total == pytest.approx(stats.norm.pdf(1.25, 0, math.sqrt(1.25)), rel=1e-6)


# ------------------------------------------------------------------------- as a measure


def test_what_is_made_of_it_has_an_error_too():
    x = drawn(dist.Normal(0.0, 1.0), points=33)
    square = x.map(lambda x: x**2)
    assert square.error(lambda y: y) == pytest.approx(x.error(lambda x: x**2), rel=1e-6)
    twice = 2.0 * x
    assert twice.error(lambda x: x**2) == pytest.approx(2 * x.error(lambda x: x**2), rel=1e-9)
    both = x + semantics.Measure([0.0], [1.0])
    assert both.total == pytest.approx(2.0) and both.error() == pytest.approx(x.error(), abs=1e-12)
    noisy = x.bind(lambda x: semantics.Measure([x - 1, x + 1], [0.5, 0.5]))
    assert_honest(noisy, lambda y: y**2, 2.0, 1e-2)
    assert_honest(x * x, lambda pair: (pair[0] * pair[1]) ** 2, 1.0, 1e-2)
    assert isinstance(x.normalise(), semantics.Quadrature) and x.normalise().total == pytest.approx(1.0)


def test_it_says_its_error():
    x = drawn(dist.Normal(0.0, 1.0))
    title, first, *_ = repr(x.map(lambda x: int(x > 0))).splitlines()
    assert title.startswith("Quadrature on 2 values, total mass 1 ± ") and first.split()[1] == "0"
    assert "±" in x._repr_html_()


# ------------------------------------------------------------------------- refusals


def refused(error, match, d, points=9, name="x"):
    with pytest.raises(error, match=match):
        semantics.meaning(lambda: ppl.sample("x", d), quadrature={name: points})()


def test_what_has_no_quadrature():
    refused(ppl.UnsupportedError, r"'x' \(test_quadrature.*3 dimensions", dist.Normal(jnp.zeros(3), 1.0))
    refused(ppl.UnsupportedError, "Poisson is discrete", dist.Poisson(3.0))
    refused(ppl.UnsupportedError, "positive probability", dist.Delta(3.0))
    refused(ppl.UnsupportedError, "no map from R", dist.ProjectedNormal(jnp.ones(2)))
    refused(semantics.QuadratureError, "finitely many values", dist.Bernoulli(0.5))


def test_what_makes_no_rule():
    refused(ppl.AddressError, r"'xx'.*did you mean 'x'", dist.Normal(0.0, 1.0), name="xx")
    for points in (5, 33.0):
        refused(semantics.QuadratureError, "an integer of at least 9", dist.Normal(0.0, 1.0), points)


def test_sites_that_are_not_declared():
    def program():
        return normal("x", 0.0, 1.0) + normal("z", 0.0, 1.0)

    with pytest.raises(ppl.UnsupportedError, match="'z'.*support is not finite.*quadrature="):
        semantics.meaning(program, quadrature={"x": 9})()
    with pytest.raises(ppl.UnsupportedError, match="'x'.*support is not finite.*quadrature="):
        semantics.meaning(program)()
