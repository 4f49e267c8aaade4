from __future__ import annotations

import inspect
import random

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from jax.scipy.special import logsumexp, ndtr, xlogy

from borelax import ppl, semantics
from borelax.semantics.static import smooth_flow, smooth_rules
from borelax.semantics.static.poles import Pole
from borelax.semantics.static.smooth_rules import Break

SMOOTH, KINKED, JUMPING = "differentiable", "continuous", "possibly discontinuous"
CONFIRMED = "discontinuous (confirmed)"


def draw(name="x", d=None):
    return ppl.sample(name, dist.Normal(0.0, 1.0) if d is None else d)


def value_of(function, d=None):
    """The program that draws x and returns a function of it."""
    return lambda: function(draw("x", d))


def verdict(program, *args, site="x", **kwargs) -> str:
    return semantics.smoothness(program, **kwargs)(*args).of(site).verdict


def static(function, d=None) -> str:
    return verdict(value_of(function, d), of="value", search=False)


@jax.custom_jvp
def bent(x):
    return jnp.where(x > 0, x, 2 * x)


bent.defjvp(lambda primals, tangents: (bent(*primals), tangents[0]))


def log_of_exponential(x):
    return ppl.log_density(lambda: draw("z", dist.Exponential(1.0)))({"z": x})


FUNCTIONS = {
    "polynomial": (lambda x: x**3 - 2 * x + 1, SMOOTH),
    "a power by a float": (lambda x: x**2.0, SMOOTH),
    "transcendental": (lambda x: jnp.exp(jnp.sin(x)) + jnp.tanh(x) * jnp.arctan(x), SMOOTH),
    "softplus": (jax.nn.softplus, SMOOTH),
    "logaddexp": (lambda x: jnp.logaddexp(x, 2 * x), SMOOTH),
    "logsumexp": (lambda x: logsumexp(jnp.stack([x, -x, 2.0 * x])), SMOOTH),
    "softmax": (lambda x: jax.nn.softmax(jnp.stack([x, x * x]))[0], SMOOTH),
    "log_softmax": (lambda x: jax.nn.log_softmax(jnp.stack([x, x * x]))[0], SMOOTH),
    "gelu": (jax.nn.gelu, SMOOTH),
    "normal cdf": (ndtr, SMOOTH),
    "log of a sum of squares and one": (lambda x: jnp.log(1.0 + x * x), SMOOTH),
    "division by a positive number": (lambda x: x / jnp.exp(x), SMOOTH),
    "division by a sigmoid": (lambda x: x / jax.nn.sigmoid(x), SMOOTH),
    "a matrix product": (lambda x: (jnp.arange(4.0).reshape(2, 2) @ jnp.stack([x, x])).sum(), SMOOTH),
    "a comparison that never changes": (lambda x: jnp.where(jnp.exp(x) > -1.0, x, 0.0), SMOOTH),
    "a test for NaN": (lambda x: jnp.where(jnp.isnan(x), 0.0, x), SMOOTH),
    "a static index": (lambda x: jnp.stack([x, 2 * x])[1], SMOOTH),
    "abs": (jnp.abs, KINKED),
    "abs of a positive number": (lambda x: jnp.abs(jnp.exp(x)), SMOOTH),
    "relu": (jax.nn.relu, KINKED),
    "leaky_relu": (jax.nn.leaky_relu, KINKED),
    "elu": (jax.nn.elu, KINKED),
    "hinge": (lambda x: jnp.maximum(0.0, 1.0 - x), KINKED),
    "clip": (lambda x: jnp.clip(x, 0.0, 1.0), KINKED),
    "max of an array": (lambda x: jnp.max(jnp.stack([x, -x])), KINKED),
    "sort": (lambda x: jnp.sort(jnp.stack([x, 0.0 * x]))[0], KINKED),
    "square root at zero": (lambda x: jnp.sqrt(x * x), KINKED),
    "norm": (lambda x: jnp.linalg.norm(jnp.stack([x, x])), KINKED),
    "log at zero": (lambda x: jnp.log(x * x), KINKED),
    "relu by where": (lambda x: jnp.where(x > 0, x, 0.0), JUMPING),
    "step": (lambda x: jnp.heaviside(x, 0.5), JUMPING),
    "floor": (jnp.floor, JUMPING),
    "round": (jnp.round, JUMPING),
    "sign": (jnp.sign, JUMPING),
    "remainder": (lambda x: x % 1.0, JUMPING),
    "as an integer": (lambda x: x.astype(int).astype(float), JUMPING),
    "a comparison as a number": (lambda x: (x > 0).astype(float), JUMPING),
    "argmax": (lambda x: jnp.argmax(jnp.stack([x, 0.0])).astype(float), JUMPING),
    "argsort": (lambda x: jnp.argsort(jnp.stack([x, 0.0])).astype(float)[0], JUMPING),
    "an index that moves": (lambda x: jnp.arange(9.0)[x.astype(int)], JUMPING),
    "a slice that moves": (lambda x: lax.dynamic_slice(jnp.arange(9.0), (x.astype(int),), (1,))[0], JUMPING),
    "cond": (lambda x: lax.cond(x > 0, lambda: 1.0, lambda: x), JUMPING),
    "switch": (lambda x: lax.switch(x.astype(int), [lambda: 1.0, lambda: 2.0]), JUMPING),
    "cond of something else": (lambda x: lax.cond(jnp.array(True), jnp.sin, jnp.cos, x), SMOOTH),
    "while": (lambda x: lax.while_loop(lambda y: y < 3, lambda y: y + 1, x), JUMPING),
    "a counted loop": (lambda x: lax.fori_loop(0, 5, lambda i, y: jnp.sin(y), x), SMOOTH),
    "a custom derivative around a branch": (bent, JUMPING),
    "a pole": (lambda x: 1.0 / x, JUMPING),
    "a pole that does not show": (lambda x: jnp.arctan(1.0 / x), JUMPING),
    "the sign by a root": (lambda x: x * lax.rsqrt(x * x), JUMPING),
    "the sign by a logarithm": (lambda x: x * jnp.exp(-0.5 * jnp.log(x * x)), JUMPING),
    "the sine of a pole": (lambda x: jnp.sin(jnp.log(x * x)), JUMPING),
    "a pole under a bounded function": (lambda x: jnp.tanh(jnp.log(x * x)), KINKED),
    "tangent": (jnp.tan, JUMPING),
    "a branch cut": (lambda x: jnp.arctan2(x, x - 1.0), JUMPING),
    "complex logarithm": (lambda x: jnp.log(-1.0 + 1j * x).imag, JUMPING),
    "a branch that counts for nothing": (lambda x: jnp.where(x > 0, 1.0, 0.0) * 0.0 + x, SMOOTH),
    "an unknown primitive": (lambda x: jnp.linalg.eigh(jnp.eye(2) * x)[0][0], JUMPING),
    "a log density that ends at an edge": (log_of_exponential, SMOOTH),
    "a density that ends at an edge": (lambda x: jnp.exp(log_of_exponential(x)), JUMPING),
    "a log density that ends, and is cut off": (lambda x: jnp.maximum(log_of_exponential(x), -9.0), JUMPING),
    "a Gaussian process": (
        lambda x: dist.MultivariateNormal(0.0, jnp.exp(x) * jnp.eye(3) + jnp.ones((3, 3))).log_prob(
            jnp.ones(3)
        ),
        KINKED,
    ),
    "a matrix that may be singular": (
        lambda x: lax.linalg.triangular_solve(x * jnp.eye(2), jnp.ones((2, 1)), left_side=True).sum(),
        JUMPING,
    ),
    "a test whether a logarithm is finite": (
        lambda x: jnp.where(jnp.isfinite(jnp.log(x)), 1.0, 0.0),
        JUMPING,
    ),
    "a test whether a root is NaN": (lambda x: jnp.where(jnp.isnan(jnp.sqrt(x)), 1.0, 0.0), JUMPING),
    "a test whether a density is zero": (
        lambda x: jnp.where(jnp.isinf(log_of_exponential(x)), 1.0, 0.0),
        JUMPING,
    ),
    "NaN replaced": (lambda x: jnp.nan_to_num(jnp.log(x)), JUMPING),
    "NaN sorted away": (lambda x: jnp.sort(jnp.stack([jnp.sqrt(x), 1.0]))[0], JUMPING),
    "arrays that a scan runs over": (
        lambda x: lax.scan(lambda c, a: (c + jnp.abs(a * x).sum() / a.sum(), None), x, jnp.ones((3, 2)))[0],
        KINKED,
    ),
    "a straight-through estimate": (lambda x: x + lax.stop_gradient(jnp.round(x) - x), JUMPING),
}


@pytest.mark.parametrize("name", family(FUNCTIONS))
def test_verdicts_on_functions(name):
    function, expected = FUNCTIONS[name]
    assert static(function) == expected


@pytest.mark.parametrize(
    ("d", "function", "expected"),
    [
        (dist.Exponential(1.0), jnp.log, SMOOTH),
        (dist.Exponential(1.0), jnp.sqrt, SMOOTH),
        (dist.Exponential(1.0), lambda x: 1.0 / x, SMOOTH),
        (dist.Exponential(1.0), lambda x: jnp.log(x - 1.0), KINKED),
        (dist.Beta(2.0, 2.0), lambda x: jnp.log(x) + jnp.log1p(-x), SMOOTH),
        (dist.Beta(2.0, 2.0), lambda x: xlogy(1.0 - x, 1.0 - x), SMOOTH),
        (dist.Uniform(2.0, 3.0), lambda x: 1.0 / (x - 2.0), SMOOTH),
        (dist.Uniform(2.0, 3.0), lambda x: 1.0 / (x - 2.5), JUMPING),
        (dist.Uniform(2.0, 3.0), lambda x: jnp.where(x > 1.0, x, 0.0), SMOOTH),
        (dist.Dirichlet(jnp.ones(3)), lambda x: jnp.log(x).sum(), SMOOTH),
    ],
)
def test_what_is_known_of_a_support_is_used(d, function, expected):
    assert static(function, d) == expected


def in_steps():
    return lax.scan(lambda y, _: (jnp.where(y > 1.0, 0.5 * y, y + 0.3), None), draw(), None, length=4)[0]


def unrolled():
    y = draw()
    for _ in range(4):
        y = jnp.where(y > 1.0, 0.5 * y, y + 0.3)
    return y


def smooth_in_steps():
    return lax.scan(lambda y, _: (jnp.log(1.0 + jnp.exp(y)), None), draw(), None, length=30)[0]


def smooth_unrolled():
    y = draw()
    for _ in range(30):
        y = jnp.log(1.0 + jnp.exp(y))
    return y


def kinked_last():
    """The kink is in the part of the carry that only the last of three steps leads to."""
    step = lambda c, _: ((c[0], jnp.abs(c[0]), c[1]), None)  # noqa: E731
    return lax.scan(step, (draw(), 0.0, 0.0), None, length=3)[0][2]


def not_there_yet():
    step = lambda c, _: ((c[0], jnp.abs(c[0]), c[1]), None)  # noqa: E731
    return lax.scan(step, (draw(), 0.0, 0.0), None, length=1)[0][2]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (in_steps, unrolled, JUMPING),
        (smooth_in_steps, smooth_unrolled, SMOOTH),
        (kinked_last, lambda: jnp.abs(draw()), KINKED),
        (not_there_yet, lambda: 0.0 * draw(), SMOOTH),
        (jax.jit(unrolled), unrolled, JUMPING),
        (jax.checkpoint(unrolled), unrolled, JUMPING),
        (lambda: jax.vmap(jnp.abs)(jnp.stack([draw()] * 2)), lambda: jnp.abs(draw()), KINKED),
        (lambda: jax.vmap(unrolled, axis_size=2, in_axes=())(), unrolled, JUMPING),
    ],
)
def test_control_flow_is_followed_inside(one, other, expected):
    reports = [semantics.smoothness(program, of="value", search=False)() for program in (one, other)]
    assert [report.of("x").verdict for report in reports] == [expected, expected]
    primitives = [{primitive for primitive, _ in report.of("x").through} for report in reports]
    assert primitives[0] == primitives[1]


# ------------------------------------------------------------------------- densities


def density(program, *args, site="x") -> str:
    return verdict(program, *args, site=site, search=False)


def weighed(weigh):
    """The program that draws x and weighs it."""

    def program():
        weigh(draw())

    return program


DENSITIES = {
    "only the prior": (lambda x: None, SMOOTH),
    "a normal likelihood": (lambda x: ppl.observe("y", dist.Normal(x, jnp.exp(x)), 1.0), SMOOTH),
    "a scale that may be negative": (lambda x: ppl.observe("y", dist.Normal(0.0, x), 1.0), JUMPING),
    "a Poisson likelihood": (lambda x: ppl.observe("y", dist.Poisson(jnp.exp(x)), 3), SMOOTH),
    "logits": (lambda x: ppl.observe("y", dist.Bernoulli(logits=x), 1), SMOOTH),
    "probabilities are clipped": (lambda x: ppl.observe("y", dist.Bernoulli(jax.nn.sigmoid(x)), 1), KINKED),
    "a categorical": (lambda x: ppl.observe("y", dist.Categorical(logits=jnp.stack([x, 0.0])), 1), SMOOTH),
    "a Gamma likelihood": (lambda x: ppl.observe("y", dist.Gamma(jnp.exp(x), 2.0), 1.0), SMOOTH),
    "a Student likelihood": (lambda x: ppl.observe("y", dist.StudentT(4.0, x, 1.0), 1.0), SMOOTH),
    "a Laplace likelihood": (lambda x: ppl.observe("y", dist.Laplace(x, 1.0), 1.0), KINKED),
    "a support that moves": (lambda x: ppl.observe("y", dist.Uniform(0.0, jnp.exp(x)), 1.0), JUMPING),
    "a site whose support moves": (lambda x: draw("z", dist.Uniform(0.0, jnp.exp(x))), JUMPING),
    "a value that moves over an edge": (lambda x: ppl.observe("y", dist.Exponential(1.0), x), JUMPING),
    "a discrete child": (lambda x: draw("z", dist.Categorical(logits=jnp.stack([x, 0.0]))), SMOOTH),
    "a mixture": (
        lambda x: ppl.observe(
            "y",
            dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.stack([x, -x]), 1.0)),
            1.0,
        ),
        SMOOTH,
    ),
    "a step in the likelihood": (
        lambda x: ppl.observe("y", dist.Normal(jnp.where(x > 0, 1.0, 0.0), 1.0), 1.0),
        JUMPING,
    ),
    "a changepoint": (
        lambda x: ppl.observe(
            "y", dist.Poisson(jnp.where(jnp.arange(5) < x, 2.0, 9.0)).to_event(1), jnp.arange(5)
        ),
        JUMPING,
    ),
    "a factor": (lambda x: ppl.factor(jnp.sin(x)), SMOOTH),
    "a hard constraint": (lambda x: ppl.factor(jnp.where(x > 0, 0.0, -jnp.inf)), JUMPING),
    "infinities of both signs": (lambda x: ppl.factor(jnp.log(x * x) - jnp.log(jnp.abs(x))), JUMPING),
    "an observation in a branch": (
        lambda x: lax.cond(x > 0, lambda: ppl.observe("y", dist.Normal(0.0, 1.0), 0.5), lambda: 0.5),
        JUMPING,
    ),
    "a site in a branch": (lambda x: lax.cond(x > 0, lambda: draw("z"), lambda: 0.0), JUMPING),
    "the unused value of a branch": (lambda x: jnp.where(x > 0, 1.0, 0.0), SMOOTH),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_verdicts_on_densities(name):
    weigh, expected = DENSITIES[name]
    assert density(weighed(weigh)) == expected


def test_infinities_of_both_signs_in_two_terms():
    def program():
        x = draw()
        ppl.factor(jnp.log(x * x))
        ppl.factor(-jnp.log((x + 0.5 * jnp.abs(x)) ** 2))

    assert density(program) == JUMPING


def test_every_site_is_judged_by_its_own_paths():
    def program():
        a, b, c = draw("a"), draw("b"), draw("c")
        ppl.observe("y", dist.Normal(a + jnp.abs(b) + jnp.floor(c), 1.0), 0.0)

    report = semantics.smoothness(program, search=False)()
    assert [site.verdict for site in report.sites] == [SMOOTH, KINKED, JUMPING]
    only = semantics.smoothness(program, sites=["b"], search=False)()
    assert [site.address for site in only.sites] == ["b"]
    with pytest.raises(ppl.AddressError, match="did you mean"):
        semantics.smoothness(program, sites=["bb"])()


def test_concrete_arguments_are_used_and_traced_ones_are_not():
    def program(scale):
        ppl.observe("y", dist.Normal(0.0, jnp.exp(draw()) * scale), 1.0)

    def traced(scale):
        found.append(density(program, scale))
        return scale

    found: list[str] = []
    assert density(program, jnp.array(2.0)) == SMOOTH
    jax.jit(traced)(jnp.array(2.0))
    assert found == [JUMPING]


# ------------------------------------------------------------------------- values: what moves along


def through_a_normal():
    z = draw("z", dist.Normal(draw(), 1.0))
    return jnp.where(z > 0, 1.0, 0.0)


def through_a_score_site():
    z = ppl.sample("z", dist.Normal(draw(), 1.0), grad="score")
    return jnp.where(z > 0, 1.0, 0.0)


def through_a_coin():
    z = draw("z", dist.Bernoulli(logits=draw()))
    return jnp.where(z > 0, 1.0, 0.0)


def through_a_loaded_coin():
    z = draw("z", dist.Bernoulli(logits=jnp.where(draw() > 0, 1.0, 0.0)))
    return jnp.where(z > 0, 1.0, 0.0)


def through_a_moving_support():
    return draw("z", dist.Uniform(0.0, jnp.exp(draw())))


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (through_a_normal, JUMPING),
        (through_a_score_site, SMOOTH),
        (through_a_coin, SMOOTH),
        (through_a_loaded_coin, JUMPING),
        (through_a_moving_support, SMOOTH),
    ],
)
def test_what_moves_along_with_a_draw(program, expected):
    assert verdict(program, of="value", search=False) == expected


def test_the_question_must_be_known():
    with pytest.raises(ppl.SiteError, match="'density' or 'value'"):
        semantics.smoothness(through_a_coin, of="gradient")


# ------------------------------------------------------------------------- blame


def marked(function) -> str:
    """``file.py:12`` of the line that is marked."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [i for i, line in enumerate(lines) if "# here" in line]
    return f"{inspect.getsourcefile(function).rsplit('/', 1)[-1]}:{first + offset}"


@jax.jit
def cut(x):
    return jnp.where(x > 0, x, 0.0)  # here


def clipped_elsewhere():
    return jnp.sign(jnp.array(1.0) * 3)


def signed():
    x = draw()
    return jnp.sign(x)  # here


def floored_in_a_scan():
    def step(c, _):
        return c + jnp.floor(c), None  # here

    return lax.scan(step, draw(), None, length=3)[0]


def support_of_an_observation():
    x = draw()
    ppl.observe("y", dist.Uniform(0.0, jnp.exp(x)), 1.0)  # here


def test_the_line_that_is_blamed():
    calling = lambda: cut(draw())  # noqa: E731
    assert semantics.smoothness(calling, of="value", search=False)().of("x").through == (
        ("gt", marked(cut.__wrapped__)),
    )
    jax.make_jaxpr(clipped_elsewhere)()  # traced first, so that jnp.sign is in JAX's cache
    for program, primitive in ((signed, "sign"), (floored_in_a_scan, "floor")):
        site = semantics.smoothness(program, of="value", search=False)().of("x")
        assert site.through == ((primitive, marked(program)),)
    site = semantics.smoothness(support_of_an_observation, search=False)().of("x")
    assert site.through == (("le", marked(support_of_an_observation)),)


def test_the_worst_comes_first():
    site = semantics.smoothness(value_of(lambda x: jnp.abs(x) + jnp.floor(x)), of="value", search=False)().of(
        "x"
    )
    assert [primitive for primitive, _ in site.through] == ["floor", "abs"]


# ------------------------------------------------------------------------- the search for jumps


def two_switches():
    x = draw()
    ppl.factor(jnp.where(x > 0.0, x, 0.0))
    ppl.factor(jnp.where(x > 100.0, 1.0, 0.0))


def two_switches_on_one_line():
    x = draw()
    return jnp.where(x > 0.0, x, 0.0) + jnp.where(x > 100.0, 1.0, 0.0)


def in_a_scan():
    def step(c, y):
        ppl.observe("y", dist.Normal(jnp.where(c > 0, c, 0.0), 1.0), y)
        return c - 0.5, None

    lax.scan(step, draw(), jnp.arange(3.0))


def in_scan_sites():
    def step(c, _):
        c = ppl.sample("x", dist.Normal(c, 1.0))
        ppl.factor(jnp.where(c > 0.5, 1.0, 0.0))
        return c, None

    lax.scan(step, 0.0, None, length=3)


SEARCHES = {
    "relu by where": (weighed(lambda x: ppl.factor(jnp.where(x > 0, x, 0.0))), KINKED),
    "a square root by where": (
        weighed(lambda x: ppl.factor(jnp.where(x > 0, jnp.sqrt(jnp.abs(x)), 0.0))),
        KINKED,
    ),
    "a triangle wave": (weighed(lambda x: ppl.factor(jnp.abs(x - jnp.floor(x) - 0.5))), KINKED),
    "a density that falls to zero": (
        weighed(lambda x: ppl.factor(jnp.where(x > 0, jnp.log(jnp.abs(x)), -jnp.inf))),
        KINKED,
    ),
    "a small step": (weighed(lambda x: ppl.factor(jnp.where(x > 0, 1e-6, 0.0))), CONFIRMED),
    "a hard constraint": (weighed(lambda x: ppl.factor(jnp.where(x > 0, 0.0, -jnp.inf))), CONFIRMED),
    "a step on a slope": (weighed(lambda x: ppl.factor(1e4 * x - jnp.where(x > 0, 1e-2, 0.0))), CONFIRMED),
    "a moving support": (weighed(lambda x: draw("z", dist.Uniform(0.0, jnp.exp(x)))), CONFIRMED),
    "a pole": (weighed(lambda x: ppl.factor(jnp.arctan(1.0 / x))), CONFIRMED),
    "a branch": (weighed(lambda x: lax.cond(x > 0, lambda: ppl.factor(1.0), lambda: None)), CONFIRMED),
    "a loop": (
        weighed(lambda x: ppl.factor(lax.while_loop(lambda y: y < 1.0, lambda y: y + 0.5, x))),
        CONFIRMED,
    ),
    "what no draw comes near": (weighed(lambda x: ppl.factor(jnp.where(x > 100.0, 1.0, 0.0))), JUMPING),
    "a switch that is met, and one that is not": (two_switches, JUMPING),
    "steps of a scan": (in_a_scan, KINKED),
    "sites in a scan": (in_scan_sites, CONFIRMED),
    "beside a discrete site": (
        weighed(lambda x: ppl.factor(jnp.where(x > 0, x, 0.0) * draw("z", dist.Poisson(2.0)))),
        KINKED,
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_jumps_are_confirmed_and_kinks_are_cleared(name):
    program, expected = SEARCHES[name]
    assert verdict(program) == expected


def test_an_observation_that_falls_out_of_its_support():
    def program(y):
        ppl.observe("y", dist.Uniform(0.0, jnp.exp(draw())), y)

    assert verdict(program, jnp.array(1.0)) == CONFIRMED


def test_two_switches_on_one_line_are_told_apart():
    assert verdict(two_switches_on_one_line, of="value") == JUMPING


def test_jumps_of_what_moves_along():
    assert verdict(through_a_normal, of="value") == CONFIRMED
    clipped = lambda: (lambda z: jnp.where(z > 0, z, 0.0))(draw("z", dist.Normal(draw(), 1.0)))  # noqa: E731
    assert verdict(clipped, of="value") == KINKED


def test_a_counterexample_is_where_the_jump_is():
    program = weighed(lambda x: ppl.factor(jnp.where(x > 0.25, 3.0, 1.0)))
    jump = semantics.smoothness(program)().of("x").probe.jump
    assert jump.value == pytest.approx(0.25, abs=1e-12) and jump.jump == pytest.approx(2.0, rel=1e-12)
    assert jump.cause.primitive == "gt"


def test_a_program_that_cannot_be_drawn_from_is_left_open():
    program = value_of(lambda x: lax.while_loop(lambda y: y < 3, lambda y: y + draw("z"), x))
    site = semantics.smoothness(program, of="value")().of("x")
    assert site.verdict == JUMPING and "while_loop" in site.probe.reason


def test_findings():
    def program():
        a, b, c = draw("a"), draw("b"), draw("c")
        ppl.factor(jnp.floor(a) + jnp.where(b > 100.0, 1.0, 0.0) + jnp.abs(c))

    report = semantics.smoothness(program)()
    assert [finding.severity for finding in report.findings] == ["warning", "note"]
    assert (
        "jumps by 1 at" in report.findings[0].what and "floor (test_smoothness.py:" in report.findings[0].what
    )
    assert "'b' (test_smoothness.py:" in report.findings[1].where
    assert "a     discontinuous (confirmed)" in repr(report) and "<td" in report._repr_html_()


# ------------------------------------------------------------------------- no false verdicts

UNARY = {
    "sin": jnp.sin,
    "exp": lambda x: jnp.exp(jnp.tanh(x)),
    "abs": jnp.abs,
    "square": jnp.square,
    "floor": jnp.floor,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "log": lambda x: jnp.log(jnp.square(x)),
    "inverse": lambda x: 1.0 / x,
    "rsqrt": lambda x: lax.rsqrt(jnp.square(x)),
    "atan": jnp.arctan,
    "scan": lambda x: lax.scan(lambda c, _: (jnp.where(c > 1.0, c - 1.5, c), None), x, None, length=2)[0],
}
BINARY = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "max": jnp.maximum,
    "where": lambda x, y: jnp.where(x > 0.1, x, y),
    "cond": lambda x, y: lax.cond(x > y, lambda: x, lambda: y),
    "div": lambda x, y: x / (1.0 + y * y),
    "sort": lambda x, y: jnp.sort(jnp.stack([x, y]))[0],
    "pick": lambda x, y: jnp.stack([x, y])[jnp.argmin(jnp.stack([jnp.sin(x), y]))],
}


def random_function(rng: random.Random, depth: int):
    if depth == 0:
        shift = rng.uniform(-0.5, 0.5)
        return lambda x: x - shift
    if rng.random() < 0.6:
        outer, inner = UNARY[rng.choice(sorted(UNARY))], random_function(rng, depth - 1)
        return lambda x: outer(inner(x))
    outer = BINARY[rng.choice(sorted(BINARY))]
    left, right = random_function(rng, depth - 1), random_function(rng, depth - 1)
    return lambda x: outer(left(x), right(x))


def largest_jump(function) -> float:
    """The change of a function across its steepest places, as the step shrinks to 2^-40, relative to its size."""
    f = jax.jit(jax.vmap(function))
    grid = np.linspace(-2.0, 2.0, 1025)
    low, high = grid[:-1], grid[1:]
    for _ in range(40):
        middle = (low + high) / 2
        at_low, at_middle, at_high = (np.asarray(f(x)) for x in (low, middle, high))
        with np.errstate(invalid="ignore"):  # between infinities
            left, right = np.abs(at_middle - at_low), np.abs(at_high - at_middle)
        lower = np.where(np.isnan(right), True, left > right)
        low, high = np.where(lower, low, middle), np.where(lower, middle, high)
    at_low, at_high = np.asarray(f(low)), np.asarray(f(high))
    moderate = (np.abs(at_low) < 20) & (np.abs(at_high) < 20)
    change = np.abs(at_high[moderate] - at_low[moderate]) / (1.0 + np.abs(at_low[moderate]))
    return float(np.max(change, initial=0.0))


def falsely_judged(function) -> bool:
    """Whether a function has a jump that its verdict denies, or a kink."""
    found = static(function)
    if found == JUMPING:
        return False
    with jax.enable_x64(True):
        return largest_jump(function) > 1e-3 or (found == SMOOTH and largest_jump(jax.grad(function)) > 1e-3)


def random_functions(count: int) -> list:
    return [random_function(random.Random(seed), depth=3) for seed in range(count)]


def test_no_verdict_is_false_on_random_functions():
    functions = random_functions(40)
    assert not any(map(falsely_judged, functions))
    assert {static(function) for function in functions} == {SMOOTH, KINKED, JUMPING}


def test_poles_that_are_overlooked_are_found(monkeypatch):
    monkeypatch.setattr(smooth_flow, "pole_of", lambda *args: (Pole.NONE, True))
    wrong = {name for name, (function, expected) in FUNCTIONS.items() if static(function) != expected}
    assert wrong == {"the sign by a root", "the sign by a logarithm", "the sine of a pole"}


@pytest.mark.parametrize("primitive", ["gt", "abs", "floor", "div"])
def test_a_rule_that_is_wrong_is_found(primitive, monkeypatch):
    monkeypatch.setitem(smooth_rules._RULES, primitive, lambda eqn, operands: (Break.NONE, ()))
    monkeypatch.setattr(smooth_rules, "_is_inexact", lambda atom: True)
    assert any(map(falsely_judged, random_functions(40)))
