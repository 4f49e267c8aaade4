"""The density over R^n: against numerical Jacobians and integrals in float64, and against conjugate posteriors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from numpyro.distributions import constraints, transforms
from thresholds import assert_mean

from borelax import inference, ppl

KEY = jax.random.key(0)
CORRELATION = np.array([[2.0, 0.5], [0.5, 1.0]])


def at_x(make):
    """The program of one site; its distribution is made when the program runs, in the precision of then."""
    return lambda: ppl.sample("x", make())


def normals(*transform):
    return dist.TransformedDistribution(dist.Normal(0.5, 2.0).expand([3]).to_event(1), list(transform))


class Flat(dist.Distribution):
    """A distribution of one's own, of density 1 on any support."""

    pytree_data_fields = ("constraint",)

    def __init__(self, constraint, event_shape):
        self.constraint = constraint
        super().__init__((), event_shape)

    @property
    def support(self):
        return self.constraint

    def sample(self, key, sample_shape=()):
        return self.constraint.feasible_like(jnp.zeros(self.event_shape))

    def log_prob(self, value):
        return jnp.zeros(())


def lower(diagonal):
    return lambda m: m[np.tril_indices(m.shape[-1], diagonal)]


def in_the_plane(v):
    """Orthonormal coordinates of vectors of three that sum to zero."""
    return jnp.array([v[0] - v[1], (v[0] + v[1] - 2.0 * v[2]) / jnp.sqrt(3.0)]) / jnp.sqrt(2.0)


# What is sampled, the number of its coordinates, and the free coordinates of a value with respect to which numpyro's
# density is one.
SUPPORTS = {
    "real": (lambda: dist.Normal(1.0, 2.0), 1, jnp.ravel),
    "positive": (lambda: dist.Gamma(3.0, 2.0), 1, jnp.ravel),
    "unit interval": (lambda: dist.Beta(2.0, 3.0), 1, jnp.ravel),
    "interval": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0), 1, jnp.ravel),
    "greater": (lambda: dist.TruncatedNormal(0.0, 1.0, low=1.0), 1, jnp.ravel),
    "less": (lambda: dist.TruncatedNormal(0.0, 1.0, high=1.0), 1, jnp.ravel),
    "circular": (lambda: dist.VonMises(0.5, 2.0), 1, jnp.ravel),
    "batched bounds": (
        lambda: dist.Uniform(jnp.array([0.0, 1.0]), 3.0).expand([3, 2]).to_event(1),
        6,
        jnp.ravel,
    ),
    "simplex": (lambda: dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), 2, lambda v: v[:-1]),
    "simplices": (lambda: dist.Dirichlet(jnp.full((2, 3), 1.5)), 4, lambda v: v[:, :-1].ravel()),
    "zero sum": (lambda: dist.ZeroSumNormal(1.5, (3,)), 2, in_the_plane),
    "corr cholesky": (lambda: dist.LKJCholesky(3, 2.0), 3, lower(-1)),
    "corr matrix": (lambda: dist.LKJ(3, 2.0), 3, lower(-1)),
    "lower cholesky": (lambda: dist.WishartCholesky(4.0, jnp.array(CORRELATION)), 3, lower(0)),
    "positive definite": (lambda: dist.Wishart(4.0, jnp.array(CORRELATION)), 3, lower(0)),
    "ordered": (lambda: Flat(constraints.ordered_vector, (3,)), 3, jnp.ravel),
    "positive ordered": (lambda: Flat(constraints.positive_ordered_vector, (3,)), 3, jnp.ravel),
    "softplus": (lambda: Flat(constraints.softplus_positive, ()), 1, jnp.ravel),
    "nonnegative": (lambda: Flat(constraints.independent(constraints.nonnegative, 1), (2,)), 2, jnp.ravel),
    "ordered transform": (
        lambda: normals(transforms.OrderedTransform(), transforms.ExpTransform()),
        3,
        jnp.ravel,
    ),
    "cut points": (
        lambda: dist.TransformedDistribution(
            dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), transforms.SimplexToOrderedTransform()
        ),
        2,
        jnp.ravel,
    ),
    "transformed simplex": (lambda: normals(transforms.StickBreakingTransform()), 3, lambda v: v[:-1]),
    "l1 ball": (lambda: Flat(constraints.l1_ball, (3,)), 3, jnp.ravel),
    "scaled unit cholesky": (lambda: Flat(constraints.scaled_unit_lower_cholesky, (2, 2)), 3, lower(0)),
    "softplus cholesky": (lambda: Flat(constraints.softplus_lower_cholesky, (2, 2)), 3, lower(0)),
    "any correlation": (lambda: Flat(constraints.corr_matrix, (3, 3)), 3, lower(-1)),
    "any covariance": (lambda: Flat(constraints.positive_definite, (2, 2)), 3, lower(0)),
    "pareto": (lambda: dist.Pareto(2.0, 3.0), 1, jnp.ravel),
    "shifted": (
        lambda: dist.TransformedDistribution(
            dist.Beta(2.0, 3.0), transforms.AffineTransform(-1.0, 2.0, domain=constraints.unit_interval)
        ),
        1,
        jnp.ravel,
    ),
    # numpyro says of these two that they are positive, and real.
    "negative": (
        lambda: dist.TransformedDistribution(
            dist.Exponential(1.0), transforms.AffineTransform(0.0, -2.0, domain=constraints.positive)
        ),
        1,
        jnp.ravel,
    ),
    "undeclared": (
        lambda: dist.TransformedDistribution(dist.Exponential(1.0), transforms.AffineTransform(1.0, 2.0)),
        1,
        jnp.ravel,
    ),
}


@pytest.mark.parametrize(("make", "size", "free"), family(SUPPORTS.values()), ids=SUPPORTS)
def test_the_density_its_jacobian_and_the_way_back(make, size, free):
    """``log p(T(x)) + log |det dT/dx|``, p being numpyro's and the determinant that of a numerical derivative."""
    over_rn = ppl.unconstrain(at_x(make))

    @jax.jit
    def compared(x):
        value = over_rn.constrain({"x": x})["x"]
        derivative = jax.jacfwd(lambda x: free(over_rn.constrain({"x": x})["x"]))(x)
        determinant = jnp.linalg.slogdet(derivative.reshape(size, size))[1]
        density = over_rn.log_density({"x": x}), jnp.sum(make().log_prob(value)) + determinant
        return density, over_rn.unconstrain({"x": value})["x"], value

    with jax.enable_x64(True):
        shape = over_rn.shapes()["x"]
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape.shape), shape.dtype)
        (density, expected), back, value = compared(x)
        assert shape.size == size
        np.testing.assert_allclose(density, expected, rtol=1e-9)
        np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
        assert np.all(make().support(value))
        drawn = jax.eval_shape(ppl.simulate(at_x(make)), KEY).choices["x"]
        assert (value.shape, value.dtype) == (drawn.shape, drawn.dtype)


def test_complex_values_have_real_coordinates():
    over_rn = ppl.unconstrain(at_x(lambda: normals(transforms.RealFastFourierTransform((3,)))))
    assert over_rn.shapes()["x"] == jax.ShapeDtypeStruct((3,), jnp.float32)
    x = jnp.array([1.0, -2.0, 0.5])
    choices = over_rn.constrain({"x": x})
    assert choices["x"].dtype == jnp.complex64
    np.testing.assert_allclose(over_rn.unconstrain(choices)["x"], x, rtol=1e-5)


ONE_DIMENSION = {
    "exponential": lambda: dist.Exponential(2.0),
    "gamma": lambda: dist.Gamma(0.5, 2.0),
    "beta": lambda: dist.Beta(0.5, 0.5),
    "uniform": lambda: dist.Uniform(-1.0, 3.0),
    "log uniform": lambda: dist.LogUniform(1.0, 3.0),
    "truncated": lambda: dist.TruncatedNormal(0.0, 1.0, low=-1.0),
    "pareto": lambda: dist.Pareto(2.0, 3.0),
    "von mises": lambda: dist.VonMises(0.5, 2.0),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.3, 0.7])), dist.Gamma(jnp.array([1.0, 4.0]), 1.0)
    ),
    "dirichlet": lambda: dist.Dirichlet(jnp.array([0.5, 2.0])),
    "lkj": lambda: dist.LKJCholesky(2, 0.5),
}


def mass(over_rn, width, step):
    """The integral over R^n by the trapezoidal rule, which for these integrands converges exponentially in the step."""
    leaves, tree = jax.tree.flatten(over_rn.shapes())
    axis = jnp.arange(-width, width + step, step)
    grids = [grid.ravel() for grid in jnp.meshgrid(*[axis] * len(leaves))]
    positions = jax.tree.unflatten(
        tree, [g.reshape(-1, *x.shape) for g, x in zip(grids, leaves, strict=True)]
    )
    densities = jax.jit(jax.vmap(over_rn.log_density))(positions)
    return float(jnp.exp(densities).sum() * step ** len(leaves))


@pytest.mark.parametrize("make", family(ONE_DIMENSION.values()), ids=ONE_DIMENSION)
def test_the_total_mass_is_one(make):
    with jax.enable_x64(True):
        assert mass(ppl.unconstrain(at_x(make)), 60.0, 0.05) == pytest.approx(1.0, abs=1e-6)


def nested_intervals():
    a = ppl.sample("a", dist.Exponential(1.0))
    return a, ppl.sample("b", dist.Uniform(-a, a))


def test_bounds_that_depend_on_a_draw():
    over_rn = ppl.unconstrain(nested_intervals)
    a, b = over_rn.constrain({"a": jnp.log(3.0), "b": 1.0}).values()
    assert float(a) == pytest.approx(3.0) and float(b) == pytest.approx(6.0 / (1.0 + np.exp(-1.0)) - 3.0)
    with jax.enable_x64(True):
        assert mass(over_rn, 40.0, 0.1) == pytest.approx(1.0, abs=1e-6)


def test_the_mass_of_a_posterior_is_its_evidence():
    """x ~ Exponential(1), y ~ Exponential(x): p(y) = 1 / (1 + y)^2."""
    program = lambda: ppl.sample("y", dist.Exponential(ppl.sample("x", dist.Exponential(1.0))))  # noqa: E731
    with jax.enable_x64(True):
        posterior = ppl.unconstrain(ppl.condition(program, {"y": 2.0}))
        assert mass(posterior, 60.0, 0.05) == pytest.approx(1.0 / 9.0, abs=1e-6)


# ------------------------------------------------------------------------- control flow


def group(low, xs):
    """Sites whose distributions are batched at different levels, under a scope and a scan."""
    with ppl.scope("group"):
        scale = ppl.sample("scale", dist.HalfNormal(1.0))
        rows = jax.vmap(lambda x: ppl.sample("row", dist.Uniform(low, low + x + scale)))(xs)

    def step(mean, row):
        mean = ppl.sample("mean", dist.TruncatedNormal(mean, scale, low=row))
        ppl.observe("seen", dist.Normal(mean, scale), 1.0)
        return mean, ppl.sample("weights", dist.Dirichlet(jnp.ones(3) * (1.0 + scale)))

    mean, weights = lax.scan(step, low, rows)
    ppl.deterministic("mean of weights", weights.mean(0))
    ppl.factor(-(mean**2))
    return mean


LOWS, XS = jnp.array([0.0, -2.0, 1.0]), jnp.array([1.0, 0.5, 2.0, 3.0])


def test_shapes_are_those_of_a_run_but_for_the_event():
    over_rn = ppl.unconstrain(jax.vmap(group, in_axes=(0, None)))
    assert jax.tree.map(lambda x: x.shape, over_rn.shapes(LOWS, XS)) == {
        "group": {"scale": (3,), "row": (3, 4)},
        "mean": (4, 3),
        "weights": (4, 3, 2),
    }
    position = ppl.seed(over_rn.start)(KEY, LOWS, XS)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    run = ppl.simulate(jax.vmap(lambda low, xs: _without_weights(low, xs), in_axes=(0, None)))
    assert shapes(over_rn.constrain(position, LOWS, XS)) == shapes(run(KEY, LOWS, XS).choices)


def _without_weights(low, xs):
    return ppl.weigh(group)(low, xs)[0]


def test_vmaps_at_different_levels():
    """The density of the batch is the sum of those of its members, sites of one member having different axes."""
    together, alone = ppl.unconstrain(jax.vmap(group, in_axes=(0, None))), ppl.unconstrain(group)
    position = ppl.seed(together.start)(KEY, LOWS, XS)
    axes = {"group": {"scale": 0, "row": 0}, "mean": 1, "weights": 1}
    density, gradient = jax.jit(jax.value_and_grad(together.log_density))(position, LOWS, XS)
    of_each = jax.jit(jax.vmap(jax.value_and_grad(alone.log_density), in_axes=(axes, 0, None)))
    densities, gradients = of_each(position, LOWS, XS)
    np.testing.assert_allclose(density, densities.sum(), rtol=1e-5)
    gradients = jax.tree.map(lambda x, axis: jnp.moveaxis(x, 0, axis), gradients, axes)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), gradient, gradients)


def test_a_batched_program_against_formulas():
    """One member of ``group`` in plain numpy, its coordinates written out."""
    over_rn = ppl.unconstrain(group)
    low, xs = 0.5, XS[:2]
    position = ppl.seed(over_rn.start)(KEY, low, xs)
    with jax.enable_x64(True):
        position = jax.tree.map(lambda x: jnp.asarray(x, float), position)
        got = over_rn.log_density(position, low, jnp.asarray(xs, float))
        x = jax.tree.map(np.asarray, position)
        sigmoid = lambda x: 1.0 / (1.0 + np.exp(-x))  # noqa: E731
        scale = np.exp(x["group"]["scale"])
        total = np.asarray(dist.HalfNormal(1.0).log_prob(scale)) + x["group"]["scale"]
        widths = np.asarray(xs, float) + scale
        logistic = sigmoid(x["group"]["row"])
        total += np.log(logistic * (1.0 - logistic)).sum()  # uniform: the width cancels
        rows, mean = low + widths * logistic, low
        for t in range(2):
            new = rows[t] + np.exp(x["mean"][t])
            total += dist.TruncatedNormal(mean, scale, low=rows[t]).log_prob(new) + x["mean"][t]
            total += dist.Normal(new, scale).log_prob(1.0)
            # Stick breaking, as in the Stan reference manual.
            z = sigmoid(x["weights"][t] - np.log([2.0, 1.0]))
            sticks = np.array([1.0, 1.0 - z[0]])
            weights = np.append(z * sticks, np.prod(1.0 - z))
            total += dist.Dirichlet(np.ones(3) * (1.0 + scale)).log_prob(weights)
            total += np.log(sticks * z * (1.0 - z)).sum()
            mean = new
        np.testing.assert_allclose(got, total - mean**2, rtol=1e-9)


def test_jit_changes_nothing():
    over_rn = ppl.unconstrain(lambda low, xs: group(low, xs))
    position = ppl.seed(over_rn.start)(KEY, 0.5, XS)
    eager = over_rn.log_density(position, 0.5, XS), over_rn.constrain(position, 0.5, XS)
    jitted = jax.jit(lambda x: (over_rn.log_density(x, 0.5, XS), over_rn.constrain(x, 0.5, XS)))(position)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), eager, jitted)


def test_one_block_of_sites_given_the_others():
    """What a kernel for some sites sees: the others are conditioned on values that are traced."""

    @jax.jit
    def density(x, a):
        return ppl.unconstrain(ppl.condition(nested_intervals, {"a": a})).log_density({"b": x})

    whole = ppl.unconstrain(nested_intervals).log_density({"a": jnp.log(3.0), "b": 1.0})
    np.testing.assert_allclose(density(1.0, 3.0) + jnp.log(3.0), whole, rtol=1e-6)


def either(b):
    """A site of both branches, with a different support in each."""
    return lax.cond(
        b,
        lambda: ppl.sample("x", dist.Exponential(1.0)),
        lambda: ppl.sample("x", dist.Uniform(2.0, 4.0)),
    )


def test_a_site_of_every_branch():
    over_rn, batch = ppl.unconstrain(either), ppl.unconstrain(jax.vmap(either))
    flags, xs = jnp.array([True, False]), jnp.array([0.5, -0.5])
    densities = [over_rn.log_density({"x": x}, b) for x, b in zip(xs, flags, strict=True)]
    p = 1.0 / (1.0 + np.exp(0.5))
    np.testing.assert_allclose(densities, [0.5 - np.exp(0.5), np.log(p * (1.0 - p))], rtol=1e-6)
    np.testing.assert_allclose(batch.log_density({"x": xs}, flags), sum(densities), rtol=1e-6)
    choices = batch.constrain({"x": xs}, flags)
    np.testing.assert_allclose(choices["x"], [np.exp(0.5), 2.0 + 2.0 * p], rtol=1e-6)
    np.testing.assert_allclose(batch.unconstrain(choices, flags)["x"], xs, rtol=1e-5)
    gradient = jax.grad(batch.log_density)({"x": jnp.array([0.5, 500.0])}, flags)["x"]
    assert np.isfinite(gradient).all()


def test_an_exact_marginal_can_be_moved():
    """A mixture whose label is summed out has a density, and a gradient."""

    def labelled():
        label = ppl.sample("label", dist.Bernoulli(0.25))
        ppl.sample("y", dist.Normal(3.0 * label, 1.0))

    law = ppl.marginal(labelled, "y", inference.enumerate)
    density = jax.value_and_grad(ppl.unconstrain(lambda: ppl.sample("x", law())).log_density)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.75, 0.25])), dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    )
    expected = jax.value_and_grad(mixture.log_prob)(2.0)
    got, gradient = density({"x": 2.0})
    np.testing.assert_allclose((got, gradient["x"]), expected, rtol=1e-5)


# ------------------------------------------------------------------------- floating point


FAR_OUT = (
    "positive,unit interval,interval,greater,less,circular,simplex,zero sum,corr cholesky,corr matrix,"
    "positive definite,ordered,positive ordered,l1 ball,scaled unit cholesky,softplus,cut points,negative"
)


@pytest.mark.parametrize("name", FAR_OUT.split(","))
def test_far_out_the_density_is_no_nan(name):
    """In float32: finite with its gradient within 8, never NaN or plus infinity anywhere."""
    make, size, _ = SUPPORTS[name]
    over_rn = ppl.unconstrain(at_x(make))
    shape = over_rn.shapes()["x"].shape
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (8, *shape)).astype(np.float32)
    signs[0], signs[1] = 1.0, -1.0
    near, far = [0.0, 1.0, 3.0, 8.0], [12.0, 20.0, 50.0, 100.0, 1e4, 1e20, np.inf]
    positions = np.multiply.outer(np.array([*near, *far], np.float32), signs)
    positions[0] = 0.0
    density = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(over_rn.log_density))))
    values, gradients = density({"x": jnp.asarray(positions)})
    assert not np.any(np.isnan(values)) and not np.any(np.isposinf(values))
    assert np.isfinite(values[: len(near)]).all() and np.isfinite(gradients["x"][: len(near)]).all()


@pytest.mark.parametrize("x", [-1e4, -110.0, 95.0, 1e4])
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_scale_that_underflows_or_overflows(x, jit):
    """The normal is 0 / 0 or inf - inf there: a step to it must be rejected."""

    def program():
        scale = ppl.sample("x", dist.HalfNormal(1.0))
        ppl.observe("y", dist.Normal(0.0, scale), 0.0)

    density = ppl.unconstrain(program).log_density
    assert float((jax.jit(density) if jit else density)({"x": x})) == -np.inf


def test_a_density_without_bound_stays_below_infinity():
    """Gamma(1/2) is infinite at 0, which is where exp(-200) is rounded to."""
    density = ppl.unconstrain(at_x(lambda: dist.Gamma(0.5, 1.0))).log_density
    assert float(density({"x": -200.0})) == -np.inf
    assert float(jax.jit(density)({"x": -200.0})) < 0.0


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_an_overflow_is_seen_through_the_compiler(jit):
    """The formula is inf - inf there. XLA takes log(exp(x)) for x, so that the way back from infinity looks open."""
    density = ppl.unconstrain(at_x(lambda: dist.Gompertz(1.0, 2.0))).log_density
    assert float((jax.jit(density) if jit else density)({"x": 100.0})) == -np.inf


def test_a_model_that_is_nan_stays_nan():
    def program():
        x = ppl.sample("x", dist.Exponential(1.0))
        ppl.factor(jnp.log(-x))

    assert np.isnan(ppl.unconstrain(program).log_density({"x": 0.5}))


# ------------------------------------------------------------------------- refusals


def sometimes(b):
    lax.cond(b, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), lambda: 0.0)


def in_one_branch(b):
    lax.cond(b, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), lambda: ppl.sample("x", dist.Delta(0.0)))


def sizes(b):
    simplex = lambda: ppl.sample("x", dist.Dirichlet(jnp.ones(3)))  # noqa: E731
    lax.cond(b, simplex, lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([3])))


def forever(b):
    lax.while_loop(lambda x: x < 1.0, lambda x: x + ppl.sample("x", dist.Exponential(1.0)), 0.0)


def spike_and_slab():
    parts = [dist.Delta(0.0), dist.Normal(0.0, 1.0)]
    return dist.MixtureGeneral(dist.Categorical(jnp.ones(2) / 2), parts, support=constraints.real)


def noisy():
    ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0))


REFUSED = {
    "discrete": (lambda b: ppl.sample("x", dist.Poisson(2.0)), "is discrete: sum it out .* another kernel"),
    "discrete within": (
        lambda b: ppl.sample(
            "x", dist.TransformedDistribution(dist.Poisson(2.0), transforms.AffineTransform(0.0, 2.0))
        ),
        "is discrete",
    ),
    "delta": (
        lambda b: ppl.sample("x", dist.Delta(1.0)),
        r"single value with positive probability \(Delta\)",
    ),
    "spike": (lambda b: ppl.sample("x", spike_and_slab()), r"single value .* \(Delta\)"),
    "hurdle": (lambda b: ppl.sample("x", dist.HurdleGamma(0.3, 2.0, 1.0)), "single value .*HurdleGamma"),
    "masked": (lambda b: ppl.sample("x", dist.Normal(0.0, 1.0).mask(b)), "switched off in part"),
    "sphere": (lambda b: ppl.sample("x", dist.ProjectedNormal(jnp.ones(3))), "no one-to-one map .*Projected"),
    "in part": (
        ppl.condition(
            lambda b: ppl.sample("x", dist.Normal(jnp.zeros(2), 1.0)), {"x": ppl.partly([1.0, np.nan])}
        ),
        "known in part",
    ),
    "estimated": (
        lambda b: ppl.sample("x", ppl.marginal(noisy, "y", lambda p: inference.importance(p, 2))()),
        "only an estimate",
    ),
    "some branch": (sometimes, "missing from some branch"),
    "some batched branch": (lambda b: jax.vmap(sometimes)(b[None]), "missing from some branch"),
    "while": (forever, "inside a while_loop"),
}


@pytest.mark.parametrize(("program", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_density_over_rn_is_refused(program, message):
    over_rn, b = ppl.unconstrain(program), jnp.array(True)
    for use in (over_rn.shapes, lambda b: over_rn.log_density({"x": 0.0}, b)):
        with pytest.raises(ppl.UnsupportedError, match=rf"(?s)'x' \(test_unconstrain.py:\d+\).*{message}"):
            use(b)


@pytest.mark.parametrize(
    ("program", "value", "message"),
    [
        (sizes, np.ones(3) / 3, r"shape \(\d,\) in this branch, and \(\d,\) in another"),
        (in_one_branch, 0.0, r"single value .* \(Delta\)"),
    ],
    ids=["sizes", "delta"],
)
@pytest.mark.parametrize("batched", [False, True], ids=["scalar", "batched"])
def test_every_branch_is_looked_at(program, value, message, batched):
    over_rn = ppl.unconstrain(jax.vmap(program) if batched else program)
    flags, values = (jnp.array([True]), np.array([value])) if batched else (jnp.array(True), value)
    with pytest.raises(ppl.UnsupportedError, match=message):
        over_rn.log_density({"x": np.zeros(over_rn.shapes(flags)["x"].shape)}, flags)
    with pytest.raises(ppl.UnsupportedError, match=message):
        over_rn.unconstrain({"x": values}, flags)


def test_a_memoised_function_without_bound_is_refused():
    """Its values hang on a PRNG key, which is drawn."""

    def program():
        coin = ppl.mem("coin", lambda i: ppl.sample("x", dist.Normal(0.0, 1.0)))
        return coin(0) + ppl.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ppl.UnsupportedError, match="PRNG key"):
        ppl.unconstrain(program).log_density({"z": 0.0})


def simplex_and_slope():
    with ppl.scope("block"):
        ppl.sample("p", dist.Dirichlet(jnp.ones(3)))
    ppl.sample("slope", dist.Normal(0.0, 1.0))
    ppl.observe("y", dist.Normal(0.0, 1.0), 0.0)


GOOD = {"block": {"p": np.zeros(2)}, "slope": 0.0}


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [
        ({"slope": 0.0}, ppl.AddressError, r"no value given for the position of 'block/p' \(test_unc"),
        (GOOD | {"slop": 0.0}, ppl.AddressError, r"no site 'slop' \(did you mean 'slope'\?\)"),
        (GOOD | {"y": 0.0}, ppl.AddressError, "'y' .*already observed"),
        (GOOD | {"block": 0.0}, ppl.AddressError, "'block' is a scope"),
        (
            GOOD | {"block": {"p": np.zeros(3)}},
            ppl.ChoiceError,
            r"the position of 'block/p' .* has shape \(2,\).* shape \(3,\) was given",
        ),
        (GOOD | {"slope": np.zeros(2)}, ppl.ChoiceError, r"the position of 'slope' .* has shape \(\)"),
        (GOOD | {"slope": 1j}, ppl.ChoiceError, "the position of 'slope' .* has dtype float32"),
        (GOOD | {"slope": ppl.Masked(0.0, True)}, ppl.ChoiceError, "'slope' .*not a Masked"),
    ],
    ids="missing mistyped observed scope constrained shape complex masked".split(),
)
def test_a_position_that_does_not_fit(position, error, message):
    over_rn = ppl.unconstrain(simplex_and_slope)
    over_rn.log_density(GOOD)
    for use in (over_rn.log_density, over_rn.constrain):
        with pytest.raises(error, match=message):
            use(position)


@pytest.mark.parametrize(
    "p", [[0.5, 0.5, 0.5], [1.0, -0.5, 0.5], [0.0, 0.5, 0.5]], ids=["sum", "negative", "edge"]
)
@pytest.mark.parametrize("loop", [jax.vmap, lambda f: lambda xs: lax.map(f, xs)], ids=["vmap", "scan"])
def test_a_value_without_a_position(p, loop):
    program = lambda: loop(lambda a: ppl.sample("p", dist.Dirichlet(a)))(jnp.ones((2, 3)))  # noqa: E731
    over_rn = ppl.unconstrain(program)
    values = jnp.array([[0.25, 0.25, 0.5], p])
    with pytest.raises(ppl.ChoiceError, match=r"'p' \(test_unconstrain.*outside its support or on its edge"):
        over_rn.unconstrain({"p": values})
    traced = jax.jit(over_rn.unconstrain)({"p": values})["p"]
    np.testing.assert_array_equal(np.isfinite(traced).all(-1), [True, False])


# ------------------------------------------------------------------------- use


def test_a_start_is_uniform_on_the_cube():
    over_rn = ppl.unconstrain(simplex_and_slope)
    starts = jax.vmap(ppl.seed(over_rn.start))(jax.random.split(KEY, 20_000))
    flat = jnp.concatenate([starts["block"]["p"], starts["slope"][:, None]], 1)
    assert flat.min() >= -2.0 and flat.max() <= 2.0
    assert_mean(jnp.concatenate([flat, flat**2], 1), [0.0] * 3 + [4.0 / 3.0] * 3)
    assert_mean(flat[:, 0] * flat[:, 1], 0.0)


def hmc(log_density, key, position, step=0.3, num_leaps=5):
    """One transition of Hamiltonian Monte Carlo, with unit masses."""
    flat, tree = jax.tree.flatten(position)
    keys = jax.random.split(key, len(flat) + 1)
    momentum = jax.tree.unflatten(
        tree, [jax.random.normal(k, x.shape) for k, x in zip(keys[1:], flat, strict=True)]
    )
    energy = lambda x, p: sum(jnp.sum(m**2) for m in jax.tree.leaves(p)) / 2 - log_density(x)  # noqa: E731
    add = lambda x, y, scale: jax.tree.map(lambda x, y: x + scale * y, x, y)  # noqa: E731

    def leap(_, state):
        x, p = state
        p = add(p, jax.grad(log_density)(x), step / 2)
        x = add(x, p, step)
        return x, add(p, jax.grad(log_density)(x), step / 2)

    proposal = lax.fori_loop(0, num_leaps, leap, (position, momentum))
    accept = jnp.log(jax.random.uniform(keys[0])) < energy(position, momentum) - energy(*proposal)
    return jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposal[0], position), accept


def test_hmc_on_constrained_parameters():
    """Chains that start with draws from a conjugate posterior still are draws from it after some transitions: the
    posterior of a rate is a gamma, and that of a simplex a Dirichlet."""

    def program(y, counts):
        rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
        ppl.observe("y", dist.Exponential(rate), y)
        p = ppl.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 0.75])))
        ppl.observe("counts", dist.Multinomial(total_count=4, probs=p), counts)

    args = jnp.array(2.0), jnp.array([1, 0, 3])
    rate, p = dist.Gamma(3.0, 3.0), dist.Dirichlet(jnp.array([2.0, 2.0, 3.75]))
    over_rn, keys = ppl.unconstrain(program), jax.random.split(KEY, 20_000)

    def chain(key):
        exact = {"rate": rate.sample(key), "p": p.sample(jax.random.fold_in(key, 1))}
        position = over_rn.unconstrain(exact, *args)
        step = lambda x, key: hmc(lambda x: over_rn.log_density(x, *args), key, x)  # noqa: E731
        position, accepted = lax.scan(step, position, jax.random.split(jax.random.fold_in(key, 2), 10))
        return over_rn.constrain(position, *args), accepted.mean()

    draws, accepted = jax.jit(jax.vmap(chain))(keys)
    assert accepted.mean() > 0.5
    moments = jnp.concatenate(
        [draws["rate"][:, None], draws["rate"][:, None] ** 2, draws["p"], draws["p"] ** 2], 1
    )
    squares = p.mean**2 + p.variance
    assert_mean(moments, jnp.concatenate([jnp.array([1.0, 1.0 + 1.0 / 3.0]), p.mean, squares]))
