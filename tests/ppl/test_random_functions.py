"""Random functions: programs that return functions, as values of every transformation; regression over them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.tree_util import Partial
from thresholds import assert_mean

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
XS = jnp.array([-1.0, 0.5, 2.0])
YS = jnp.array([0.5, 1.0, 3.0])
NOISE = 1.0


def affine(intercept, slope, x):
    return intercept + slope * x


def line():
    return Partial(affine, ppl.sample("a", dist.Normal(0.0, 2.0)), ppl.sample("b", dist.Normal(0.0, 1.0)))


def level(value, x):
    return value


def flat():
    return Partial(level, 2 * ppl.sample("level", dist.Bernoulli(0.25)))


def pieces(piece, changes):
    """Functions of up to three pieces: change points drawn from the pairs of ``changes``, each piece by ``piece``."""

    def prior():
        pair = ppl.sample("change", dist.Categorical(jnp.full(len(changes), 1 / len(changes))))
        with ppl.scope("piece"):
            drawn = jax.vmap(piece, axis_size=3)()
        return Partial(joined, jnp.asarray(changes)[pair], drawn)

    return prior


def joined(at, drawn, x):
    own = jnp.sum(at <= x)
    return jax.tree.map(lambda leaf: jnp.take(leaf, own, axis=0), drawn)(x)


def regression(prior):
    """The same for every prior: draw a function, observe it at the data, return it."""

    def program(xs, ys):
        with ppl.scope("f"):
            f = prior()
        ppl.observe("y", dist.Normal(jax.vmap(f)(xs), NOISE), ys)
        return f

    return program


# ------------------------------------------------------------------------- functions as values


def test_a_drawn_function_can_be_called_afterwards():
    for run in (ppl.seed(line), jax.jit(ppl.seed(line))):
        f = run(KEY)
        choices = ppl.simulate(line)(KEY).choices
        np.testing.assert_allclose(f(3.0), choices["a"] + 3.0 * choices["b"], rtol=1e-6)
    functions = jax.jit(jax.vmap(ppl.seed(line)))(jax.random.split(KEY, 3))
    each = [ppl.seed(line)(key)(3.0) for key in jax.random.split(KEY, 3)]
    np.testing.assert_allclose(jax.vmap(lambda f: f(3.0))(functions), each, rtol=1e-5)


def test_the_function_of_a_trace():
    trace = jax.jit(ppl.simulate(regression(line)))(KEY, XS, YS)
    a, b = trace.choices["f"]["a"], trace.choices["f"]["b"]
    np.testing.assert_allclose(trace.value(2.0), a + 2.0 * b, rtol=1e-6)
    expected = dist.Normal(a + b * XS, NOISE).log_prob(YS).sum()
    np.testing.assert_allclose(trace.log_weight, expected, rtol=1e-5)
    fixed = ppl.simulate(ppl.condition(regression(line), {"f": {"b": 2.0}}))(KEY, XS, YS)
    np.testing.assert_allclose(fixed.value(1.0) - fixed.value(0.0), 2.0, rtol=1e-5)
    recorded = ppl.simulate(lambda: ppl.deterministic("f", line()))(KEY)
    np.testing.assert_array_equal(recorded.deterministic["f"](1.0), recorded.value(1.0))


def test_functions_go_through_control_flow():
    """Carried by a scan, chosen by a cond, and an argument of the next program."""

    def program():
        def step(f, _):
            with ppl.scope("step"):
                g = flat()
            return lax.cond(ppl.sample("keep", dist.Bernoulli(0.5)) == 1, lambda: f, lambda: g), f(0.0)

        with ppl.scope("first"):
            first = flat()
        last, seen = lax.scan(step, first, None, length=2)
        return last(0.0), seen

    total: dict = {}
    for (last, seen), weight in semantics.meaning(program)():
        key = int(last), *map(int, seen)
        total[key] = total.get(key, 0.0) + weight
    expected: dict = {}
    for levels in itertools.product((0, 1), repeat=3):
        for keep in itertools.product((True, False), repeat=2):
            second = levels[0] if keep[0] else levels[1]
            last = second if keep[1] else levels[2]
            key = 2 * last, 2 * levels[0], 2 * second
            p = np.prod([0.25 if x else 0.75 for x in levels]) * 0.25
            expected[key] = expected.get(key, 0.0) + p
    assert total == pytest.approx(expected, rel=1e-12)


def test_a_function_as_an_argument():
    """A posterior function is data for the next program: its arrays are traced."""

    traced = []

    def program(f):
        traced.append(f)
        return ppl.sample("y", dist.Normal(f(1.0), 1.0))

    f = ppl.seed(line)(KEY)
    run = jax.jit(ppl.simulate(program))
    np.testing.assert_allclose(
        run(KEY, f).log_density, dist.Normal(f(1.0), 1.0).log_prob(run(KEY, f).value), rtol=1e-5
    )
    run(KEY, ppl.seed(line)(jax.random.key(1)))
    assert len(traced) == 1


def test_a_population_of_functions():
    population = ppl.seed(inference.smc(regression(line), 7))(KEY, XS, YS)
    a, b = population.value.args
    assert a.shape == b.shape == (7,)
    expected = np.sum(population.weight * (a + 3.0 * b))
    np.testing.assert_allclose(population.expectation(lambda f: f(3.0)), expected, rtol=1e-5)
    resampled = population.resample(KEY)
    assert set(zip(*map(np.ravel, map(np.asarray, resampled.value.args)))) <= set(
        zip(np.asarray(a), np.asarray(b))
    )


def test_the_meaning_of_a_program_is_a_measure_on_functions():
    measure = semantics.meaning(flat)()
    assert {float(f(0.0)): weight for f, weight in measure} == pytest.approx(
        {0.0: 0.75, 2.0: 0.25}, rel=1e-12
    )
    assert float(measure.expectation(lambda f: f(0.0))) == pytest.approx(0.5, rel=1e-12)


# ------------------------------------------------------------------------- regression


def conjugate():
    """The evidence of the linear model and the mean of its posterior coefficients, in closed form."""
    design = np.stack([np.ones(len(XS)), np.asarray(XS, np.float64)], 1)
    prior, y = np.diag([4.0, 1.0]), np.asarray(YS, np.float64)
    covariance = design @ prior @ design.T + NOISE**2 * np.eye(len(y))
    mean = prior @ design.T @ np.linalg.solve(covariance, y)
    quadratic = y @ np.linalg.solve(covariance, y)
    log_evidence = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return np.exp(log_evidence), mean


def test_linear_regression_has_the_conjugate_posterior():
    """E[w] is the evidence and E[w f(x)] the evidence times the posterior mean at x, for independent members."""
    evidence, (a, b) = conjugate()
    population = jax.jit(ppl.seed(inference.importance(regression(line), 200_000)))(KEY, XS, YS)
    at = jnp.array([-2.0, 0.0, 4.0])
    weight = np.exp(np.asarray(population.log_weight, np.float64)) / evidence
    assert_mean(weight, 1.0)
    values = np.asarray(jax.vmap(lambda f: jax.vmap(f)(at))(population.value), np.float64)
    assert_mean(weight[:, None] * values, a + b * np.asarray(at, np.float64))


CHANGES = [(0.0, 1.0), (0.0, np.inf), (1.0, np.inf), (np.inf, np.inf)]


def stepwise_by_hand():
    """Every step function with its prior probability times its likelihood: the measure, by sums in numpy."""
    xs, ys = np.asarray(XS, np.float64), np.asarray(YS, np.float64)
    at = np.linspace(-2, 3, 6)
    total, values = 0.0, np.zeros(len(at))
    for change in CHANGES:
        for levels in itertools.product((0.0, 2.0), repeat=3):
            f = lambda x: np.array(levels)[(np.asarray(change) <= x[:, None]).sum(1)]  # noqa: E731
            prior = np.prod([0.25 if v else 0.75 for v in levels]) / len(CHANGES)
            likelihood = np.exp(-0.5 * ((ys - f(xs)) / NOISE) ** 2).prod() / (NOISE * np.sqrt(2 * np.pi)) ** 3
            total += prior * likelihood
            values += prior * likelihood * f(at)
    return at, total, values


def test_step_functions_by_enumeration():
    at, total, values = stepwise_by_hand()
    measure = semantics.meaning(regression(pieces(flat, CHANGES)))(XS, YS)
    assert measure.total == pytest.approx(total, rel=1e-7)  # XS and YS are float32
    np.testing.assert_allclose(measure.expectation(lambda f: jax.vmap(f)(at)), values, rtol=1e-7)


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_step_functions_by_sampling(algorithm):
    at, total, values = stepwise_by_hand()
    run = ppl.seed(algorithm(regression(pieces(flat, CHANGES)), 5))
    populations = jax.jit(jax.vmap(run, in_axes=(0, None, None)))(jax.random.split(KEY, 10_000), XS, YS)
    weight = np.exp(np.asarray(populations.log_weight, np.float64))
    assert_mean(weight.mean(1) / total, 1.0)
    found = jax.vmap(jax.vmap(lambda f: jax.vmap(f)(jnp.asarray(at))))(populations.value)
    assert_mean((weight[..., None] * found).mean(1) / total, values / total)


def test_broken_lines_by_quadrature():
    """One change point at a time, each piece a line: two independent conjugate regressions, mixed over change points.

    The program is the higher-order one with another piece; given the change points, the data to their left and right
    have independent evidences, here integrated on a grid.
    """
    changes = [(0.0, np.inf), (1.0, np.inf)]
    xs, ys = np.asarray(XS, np.float64), np.asarray(YS, np.float64)
    a, b = np.meshgrid(np.linspace(-16, 16, 801), np.linspace(-8, 8, 801), indexing="ij")
    density = np.exp(-0.5 * (a / 2) ** 2 - 0.5 * b**2) / (2 * np.pi * 2)
    cell = (a[1, 0] - a[0, 0]) * (b[0, 1] - b[0, 0])

    def evidence(part):
        likelihood = [
            np.exp(-0.5 * (y - a - b * x) ** 2) / np.sqrt(2 * np.pi) for x, y in zip(xs[part], ys[part])
        ]
        return (density * np.prod(likelihood, axis=0)).sum() * cell

    exact = np.mean([evidence(xs < at) * evidence(xs >= at) for at, _ in changes])
    run = ppl.seed(inference.importance(regression(pieces(line, changes)), 200_000))
    population = jax.jit(run)(KEY, XS, YS)
    assert_mean(np.exp(np.asarray(population.log_weight, np.float64)) / exact, 1.0)


def test_the_example_runs():
    script = Path(__file__).parents[2] / "examples" / "random_functions.py"
    finished = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    rows = [line.split()[0] for line in finished.stdout.splitlines()[2:]]
    assert rows == ["line", "steps", "broken"]
