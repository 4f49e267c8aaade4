"""The estimator is a program: its expectation is added up exactly, and compared with the gradient."""

from __future__ import annotations

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl.choices import align


def bit(name, p, grad=None):
    return ppl.sample(name, dist.Bernoulli(p), grad=grad)


# ------------------------------------------------------------------------- finite objectives, of params p = [a, b]


def straight(p):
    x = bit("x", p[0])
    y = bit("y", 0.25 + 0.5 * p[1] * x)
    return p[0] * x + 3.0 * y * p[1] ** 2 - x * y


def params_only(p):
    bit("x", 0.5)
    return jnp.sin(p[0]) * p[1]


def no_params(p):
    return 2.0 * bit("x", 0.25)


def integer_valued(p):
    return bit("x", p[0]) + bit("y", p[1])


def vector_site(p):
    x = ppl.sample("x", dist.Bernoulli(p).to_event(1))
    k = ppl.sample("k", dist.Categorical(logits=jnp.array([0.0, p[0], p[1] * x[0]])))
    return p[1] * x.sum() + k**2


def chain(p):
    def step(x, rate):
        x = bit("x", jnp.where(x == 1, p[0], p[1] * rate))
        return x, x * rate

    last, seen = lax.scan(step, 0, jnp.array([1.0, 0.5, 0.25]))
    return seen.sum() * p[0] + last


def reversed_scan(p):
    return (
        lax.scan(lambda c, r: (c + r * bit("x", p[0] * r), None), 0.0, jnp.array([1.0, 0.5]), reverse=True)[0]
        ** 2
    )


def nested_scans(p):
    def row(c, _):
        inner = lambda c, _: (0.5 * c + bit("x", p[0] / (1.0 + c)), None)  # noqa: E731
        return lax.scan(inner, p[1] * c, None, length=2)[0], None

    return lax.scan(row, 0.0, None, length=2)[0]


def branches(p):
    x = bit("x", p[0])
    y = lax.cond(x == 1, lambda: 2.0 * p[1] * bit("y", p[1]), lambda: p[0])
    return y + lax.cond(x == 0, lambda: bit("z", p[0] * p[1]), lambda: bit("z", p[1]))


def switch(p):
    k = ppl.sample("k", dist.Categorical(jnp.array([p[0], p[1], 1.0 - p[0] - p[1]])))
    return lax.switch(k, [lambda: p[0], lambda: 2.0 * bit("a", p[1]), lambda: p[1] * bit("b", p[0])])


def copies(p):
    xs = jax.vmap(lambda q: bit("x", q) * q)(p)
    return xs[0] + xs[0] * xs[1] * p[0]


def copies_that_part(p):
    """Under vmap the branches become selects."""
    one = lambda q: lax.cond(bit("x", q) == 1, lambda: q * bit("y", q * q), lambda: 1.0 - q)  # noqa: E731
    return jnp.prod(jax.vmap(one)(p))


def calls(p):
    @jax.jit
    def inner(q):
        return q * bit("x", q)

    with ppl.scope("second"):
        again = jax.checkpoint(lambda q: bit("x", q) + q)(p[1])
    return inner(p[0]) + again**2


def until_heads(p):
    toss = lambda c: (c[0] + 1.0, bit("head", p[0] / (1.0 + c[0] * p[1])) == 1)  # noqa: E731
    return ppl.loop(lambda c: ~c[1], toss, (0.0, jnp.array(False)), 3)[0]


def known_in_part(p):
    xs = ppl.do(lambda: lax.map(lambda q: bit("x", q), p), {"x": ppl.partly([1, 0], known=[True, False])})()
    return p[1] * xs[0] + 2.0 * xs[1]


def recorded(p):
    twice = ppl.deterministic("twice", 2.0 * bit("x", p[0]))
    return twice * ppl.deterministic("slope", p[1])


def all_summed(p):
    x = bit("x", p[0], "enumerate")
    return lax.scan(
        lambda c, _: (c + bit("y", p[1] / (1.0 + c), "enumerate"), None), 1.0 * x, None, length=2
    )[0]


def summed_then_drawn(p):
    x = bit("x", p[0], "enumerate")
    y = bit("y", jnp.where(x == 1, p[1], p[0]))
    return lax.scan(lambda c, _: (c + p[0] * bit("z", p[1] / (1.0 + c)), None), 1.0 * y * x, None, length=2)[
        0
    ]


def mixed_in_a_scan(p):
    def step(c, _):
        x = bit("x", p[0] / (1.0 + c), "enumerate")
        return c + x * bit("y", p[1], "score"), x

    c, xs = lax.scan(step, 0.0, None, length=2)
    return c + p[0] * xs.sum()


def summed_in_a_branch(p):
    x = bit("x", p[0])
    one = lambda: 2.0 * bit("y", p[1], "enumerate") + bit("z", p[0])  # noqa: E731
    return lax.cond(x == 1, one, lambda: p[1] + bit("z", p[1] ** 2))


OBJECTIVES = [
    straight,
    params_only,
    no_params,
    integer_valued,
    vector_site,
    chain,
    reversed_scan,
    nested_scans,
    branches,
    switch,
    copies,
    copies_that_part,
    calls,
    until_heads,
    known_in_part,
    recorded,
    all_summed,
    summed_then_drawn,
    mixed_in_a_scan,
    summed_in_a_branch,
]
P = jnp.array([0.25, 0.625])


def expectation(program):
    """The expectation of what a finite program returns, as a function of params that can be differentiated."""

    def mean(p):
        population = inference.enumerate(program)(p)
        weight = jnp.exp(population.log_weight) / population.size

        def sum_up(x):
            return jnp.tensordot(weight, jnp.where(align(weight > 0, x), x, 0.0), 1)

        return jax.tree.map(sum_up, population.value)

    return mean


def assert_unbiased(objective, mean=None, p=P) -> None:
    """The value and the gradient, in expectation over every run of the estimator."""
    with jax.enable_x64(True):
        p = jnp.asarray(p, float)
        found = jax.jit(expectation(inference.expectation_value_and_grad(objective)))(p)
        right = jax.jit(jax.value_and_grad(mean or expectation(objective)))(p)
    for x, y in zip(found, right):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", family(OBJECTIVES, every=2), ids=lambda o: o.__name__)
def test_it_is_unbiased(objective):
    assert_unbiased(objective)


def test_the_meaning_of_the_estimator():
    """As others ask for it: every run with its weight, in float64."""
    grads = semantics.meaning(inference.expectation_grad(integer_valued))(P)
    assert len(grads) == 4 and grads.total == pytest.approx(1.0, abs=1e-10)
    with jax.enable_x64(True):
        np.testing.assert_allclose(grads.expectation(), jnp.ones(2), rtol=0, atol=1e-10)


def hidden_markov(p):
    def step(x, y):
        x = bit("x", jnp.where(x == 1, p[0], p[1]))
        ppl.observe("y", dist.Bernoulli(jnp.where(x == 1, 0.25 + 0.5 * p[0], 0.25 * p[1])), y)
        return x, None

    return lax.scan(step, 0, jnp.array([1, 0]))[0]


def evidence(p, resampler=inference.multinomial):
    population = inference.smc(hidden_markov, 2, resampler, ess_threshold=2.0)(p)
    return jnp.mean(jnp.exp(population.log_weight))


def test_an_algorithm_as_an_objective():
    """The gradient of the evidence, through the resampling of a particle filter."""
    assert_unbiased(evidence, lambda p: jnp.exp(inference.enumerate(hidden_markov)(p).log_evidence))


def test_resampling_whose_density_has_no_derivative_is_refused():
    objective = partial(evidence, resampler=inference.systematic)
    with pytest.raises(ppl.UnsupportedError, match="'resample/0' .*use inference.multinomial"):
        ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), P)


def slope(p):
    """An objective that is itself an estimate of a gradient."""
    return inference.expectation_grad(straight)(p) @ jnp.array([1.0, 2.0]) * p[0]


def test_gradients_of_gradients():
    mean = lambda p: jax.grad(expectation(straight))(p) @ jnp.array([1.0, 2.0]) * p[0]  # noqa: E731
    assert_unbiased(slope, mean)


def test_nothing_is_drawn_where_all_is_summed():
    assert ppl.trace_type(inference.expectation_grad(all_summed))(P) == {}


def test_a_scan_with_no_sum_inside_is_not_unrolled():
    sites = ppl.trace_type(inference.expectation_grad(summed_then_drawn))(P)
    assert sites["z"]["0"].shape == (2, 2)  # steps, and values of x


def test_an_impossible_outcome_has_no_say():
    """Even where the objective is infinite."""

    def objective(p):
        logits = jnp.array([p[0], p[1], -jnp.inf])
        k = ppl.sample("k", dist.Categorical(logits=logits), grad="enumerate")
        return p[0] * jnp.where(k < 2, 1.0 + k, jnp.inf)

    closed_form = lambda p: p[0] * (1.0 + jax.nn.sigmoid(p[1] - p[0]))  # noqa: E731
    value, grads = jax.jit(ppl.seed(inference.expectation_value_and_grad(objective)))(jax.random.key(0), P)
    np.testing.assert_allclose(value, closed_form(P), rtol=1e-5)
    np.testing.assert_allclose(grads, jax.grad(closed_form)(P), rtol=1e-5)


# ------------------------------------------------------------------------- mutants


estimator = importlib.import_module("borelax.inference.gradients.expectation_grad")


def without_the_score(monkeypatch):
    monkeypatch.setattr(estimator, "score_function", lambda d, x: lax.stop_gradient(d.log_prob(x).sum()))


def with_the_score_twice(monkeypatch):
    monkeypatch.setattr(estimator, "score_function", lambda d, x: 2.0 * d.log_prob(x).sum())


def without_the_derivative_of_the_weights(monkeypatch):
    possible = estimator._possible

    def stopped(extension, size):
        return possible(extension._replace(log_weight=lax.stop_gradient(extension.log_weight)), size)

    monkeypatch.setattr(estimator, "_possible", stopped)


def with_nothing_from_inside_loops(monkeypatch):
    """What a scan's sites contribute is lost, as it is where the sites of its body are not seen."""

    class Mutant(estimator._Rerun):
        def divide(self, state, draws, eqn):
            is_scan = eqn.primitive.name == "scan"
            return (state, [jnp.zeros(eqn.params["length"])]) if is_scan else None

    monkeypatch.setattr(estimator, "_Rerun", Mutant)


@pytest.mark.parametrize(
    ("mutate", "objective"),
    [
        (without_the_score, straight),
        (with_the_score_twice, straight),
        (without_the_derivative_of_the_weights, mixed_in_a_scan),
        (with_nothing_from_inside_loops, chain),
    ],
    ids=lambda x: x.__name__,
)
def test_a_mutant_is_caught(monkeypatch, mutate, objective):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        assert_unbiased(objective)


# ------------------------------------------------------------------------- continuous draws


def mean_of_many(objective, params, *args, n=5_000):
    run = jax.jit(
        jax.vmap(
            ppl.seed(inference.expectation_value_and_grad(objective)), (0, *(None for _ in (params, *args)))
        )
    )
    return run(jax.random.split(jax.random.key(0), n), params, *args)


def test_both_strategies_on_a_normal():
    """E[x^2] = loc^2 + scale^2."""
    params = {"loc": jnp.array(0.5), "scale": jnp.array(1.5)}
    for grad in (None, "pathwise", "score"):

        def objective(params, grad=grad):
            return ppl.sample("x", dist.Normal(params["loc"], params["scale"]), grad=grad) ** 2

        value, grads = mean_of_many(objective, params)
        assert_mean(value, 2.5)
        assert_mean(grads["loc"], 1.0)
        assert_mean(grads["scale"], 3.0)


def test_a_draw_that_moves_and_is_scored_is_caught(monkeypatch):
    class Mutant(estimator._Rerun):
        def site(self, kind, site, operands, given, score):
            outs, score, record = super().site(kind, site, operands, given, score)
            return outs, score + site.sum(estimator._score, operands, given), record

    monkeypatch.setattr(estimator, "_Rerun", Mutant)
    with pytest.raises(AssertionError, match="largest z"):
        test_both_strategies_on_a_normal()


@pytest.mark.parametrize("grad", ["pathwise", "score"])
def test_a_walk_in_a_scan_in_jit(grad):
    """x' = a x + s e from x = 1: E[x_T^2] = a^(2T) + s^2 (1 + a^2 + ... + a^(2T - 2))."""

    @jax.jit
    def objective(params, steps):
        step = lambda x, t: (ppl.sample("x", dist.Normal(params[0] * x, params[1]), grad=grad), t)  # noqa: E731
        return lax.scan(step, 1.0, steps)[0] ** 2

    def closed_form(params):
        a, s = params
        return a**6 + s**2 * (1 + a**2 + a**4)

    params = jnp.array([0.75, 0.5])
    value, grads = mean_of_many(objective, params, jnp.arange(3.0))
    assert_mean(value, closed_form(params))
    assert_mean(grads, jax.grad(closed_form)(params))


def test_strategies_mixed_over_branches():
    """A Bernoulli by score or by sum, a Normal along its path in one branch, an Exponential in the other."""

    def objective(p, grad):
        heads = bit("heads", p[0], grad)
        tail = lambda: ppl.sample("tail", dist.Exponential(p[1])) ** 2  # noqa: E731
        return lax.cond(heads == 1, lambda: ppl.sample("head", dist.Normal(p[1], p[0])) ** 2, tail)

    def closed_form(p):
        return p[0] * (p[1] ** 2 + p[0] ** 2) + (1 - p[0]) * 2 / p[1] ** 2

    p = jnp.array([0.25, 1.5])
    for grad in ("score", "enumerate"):
        value, grads = mean_of_many(lambda p, grad=grad: objective(p, grad), p)
        assert_mean(value, closed_form(p))
        assert_mean(grads, jax.grad(closed_form)(p))


@pytest.mark.parametrize(("d", "third"), [(dist.HalfNormal, 6.0), (lambda s: dist.Weibull(s, 2.0), 6.0)])
def test_gradients_of_gradients_along_paths(d, third):
    """E[s x^2] is a multiple of s^3, E[x^2] that of s^2: of its gradient, the gradient is a multiple of s."""
    inner = lambda s: s * ppl.sample("x", d(s)) ** 2  # noqa: E731
    _, grads = mean_of_many(inference.expectation_grad(inner), jnp.array(1.5))
    assert_mean(grads, third * 1.5)


def test_a_draw_that_others_depend_on():
    """The score of a count moves along the path of its rate: E[n^2] = a^2 + 2a for n ~ Poisson(x), x ~ Gamma(a, 1)."""

    def objective(a):
        return 1.0 * ppl.sample("n", dist.Poisson(ppl.sample("x", dist.Gamma(a)))) ** 2

    _, grads = mean_of_many(objective, jnp.array(1.5))
    assert_mean(grads, 5.0)


def test_a_proposal_is_for_importance_methods_alone():
    def objective(p):
        x = ppl.sample("x", dist.Bernoulli(p[0]), proposal=dist.Bernoulli(0.5))
        return x * p[1] + 2.0 * ppl.sample(
            "y", dist.Bernoulli(p[1]), proposal=dist.Bernoulli(0.5), grad="enumerate"
        )

    value, grads = mean_of_many(objective, P)
    assert_mean(value, P[0] * P[1] + 2 * P[1])
    assert_mean(grads, [P[1], P[0] + 2.0])


# ------------------------------------------------------------------------- what comes back, and what is refused


def test_gradients_look_like_params():
    params = {"a": jnp.ones(3), "b": (jnp.array(2.0, jnp.float16), 0.5)}
    objective = lambda params, n: ppl.sample("x", dist.Normal(params["a"].sum() * params["b"][1], n))  # noqa: E731
    grads = ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), params, 2)
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), grads)
    assert shapes == {"a": ((3,), "float32"), "b": (((), "float16"), ((), "float32"))}
    np.testing.assert_allclose(grads["a"], 0.5)
    assert grads["b"][0] == 0.0 and grads["b"][1] == 3.0


def normal(p, grad=None):
    return ppl.sample("x", dist.Normal(p, 1.0), grad=grad)


REFUSED = {
    "did you mean 'pathwise'": lambda p: ppl.sample("x", dist.Normal(p, 1.0), grad="path wise"),
    "there are 'pathwise', 'score', 'enumerate'": lambda p: ppl.sample("x", dist.Normal(p, 1.0), grad=3),
    "Bernoulli is discrete": lambda p: ppl.sample("x", dist.Bernoulli(p), grad="pathwise"),
    "VonMises has no reparam": lambda p: ppl.sample("x", dist.VonMises(p, 1.0), grad="pathwise"),
    "Poisson has infinitely many": lambda p: ppl.sample("x", dist.Poisson(p), grad="enumerate"),
    "Normal has infinitely many": lambda p: ppl.sample("x", dist.Normal(p, 1.0), grad="enumerate"),
    "Uniform moves": lambda p: ppl.sample("x", dist.Uniform(0.0, p), grad="score"),
    "Normal moves": lambda p: ppl.sample("x", dist.TruncatedNormal(0.0, 1.0, low=p)),
    "Pareto moves": lambda p: ppl.sample("x", dist.Pareto(p, 1.0), grad="score"),
    "Delta moves": lambda p: ppl.sample("x", dist.Delta(p), grad="score"),
    "switched off": lambda p: ppl.sample("x", dist.Bernoulli(p).mask(False)),
    "degrees of freedom": lambda p: ppl.sample("x", dist.StudentT(p, 0.0, 1.0)),
    "inside a while_loop": lambda p: lax.while_loop(
        lambda x: x < 1, lambda x: ppl.sample("x", dist.Normal(p, 1.0)), 0.0
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_be_biased_is_refused(message):
    objective = REFUSED[message]
    for run in (ppl.seed, ppl.trace_type):
        with pytest.raises(ppl.UnsupportedError, match=message) as error:
            key = [jax.random.key(0)] if run is ppl.seed else []
            run(inference.expectation_grad(objective))(*key, jnp.array(0.5))
        assert "'x' (test_expectation_grad.py:" in str(error.value)


def test_bounds_may_be_data_and_move_on_a_path():
    """The refusal is of bounds that depend on params, not of bounds."""

    def objective(p, low):
        fixed = ppl.sample("fixed", dist.TruncatedNormal(p, 1.0, low=low), grad="score")
        on_path = ppl.sample("moves", dist.Uniform(0.0, p))
        return on_path + 0.0 * fixed

    for low in (0.0, jnp.array(0.0)):
        grads = jax.jit(ppl.seed(inference.expectation_grad(objective)))(
            jax.random.key(0), jnp.array(0.5), low
        )
        assert 0.0 < float(grads) < 2.0


def test_bounds_that_move_are_found_in_a_scan():
    def objective(p):
        step = lambda high, _: (2.0 * ppl.sample("x", dist.Uniform(0.0, high), grad="score"), None)  # noqa: E731
        return lax.scan(step, p, None, length=2)[0]

    with pytest.raises(ppl.UnsupportedError, match="Uniform moves"):
        ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), jnp.array(0.5))


def test_an_objective_is_a_real_scalar_without_weights():
    weighted = ppl.condition(normal, {"x": 1.0})
    for objective, message in [
        (weighted, r"carries weights \('x' \(test_expect.*inference.elbo"),
        (lambda p: normal(p) * jnp.ones(3), r"one real number, but this one returns float32\[3\]"),
        (lambda p: (normal(p), p), r"returns \('float32\[\]', 'float32\[\]'\)"),
        (lambda p: normal(p) * 1j, r"returns complex64\[\]"),
    ]:
        with pytest.raises(ppl.UnsupportedError, match=message):
            ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), jnp.array(0.5))


def test_params_are_floating_point():
    with pytest.raises(ppl.UnsupportedError, match=r"params\['k'\]\[0\] has dtype int32"):
        ppl.seed(inference.expectation_grad(lambda p: normal(p["x"])))(
            jax.random.key(0), {"x": 1.0, "k": [1]}
        )


def test_a_jump_in_the_way_of_a_path_is_refused():
    """The derivative of P(x > 0), which is not zero, is zero along every path."""

    def objective(loc, grad=None):
        x = ppl.sample("x", dist.Normal(loc, 1.0), grad=grad)
        return jnp.where(x > 0, 1.0, 0.0)

    with pytest.raises(
        ppl.UnsupportedError, match=r"'x' \(test_exp.*discontinuous in the draw, through gt \(test_exp"
    ):
        ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), 0.3)
    _, grads = mean_of_many(lambda loc: objective(loc, "score"), jnp.array(0.3))
    assert_mean(grads, jnp.exp(dist.Normal().log_prob(0.3)))


def test_a_jump_behind_another_draw_is_refused():
    def objective(loc):
        x = ppl.sample("x", dist.Normal(loc, 1.0))
        return jnp.floor(ppl.sample("y", dist.Normal(x, 1.0)))

    with pytest.raises(ppl.UnsupportedError, match="'x' .* through floor"):
        ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), 0.3)


def test_a_kink_and_the_edge_of_a_support_are_in_no_path_s_way():
    def objective(loc):
        x = jax.nn.relu(ppl.sample("x", dist.LogNormal(loc, 1.0)) - 1.0) + 1.0
        return ppl.log_density(lambda: ppl.sample("x", dist.Exponential(1.0)))({"x": x})

    ppl.seed(inference.expectation_grad(objective))(jax.random.key(0), 0.3)
