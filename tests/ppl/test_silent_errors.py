"""Programs for which other languages have gone wrong without a word, and their right answers."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats
from thresholds import assert_mean

from borelax import ppl, semantics

KEY = jax.random.key(0)


@pytest.mark.parametrize("times", [3, 5], ids=["as many runs as elements", "more"])
def test_arguments_batched_at_different_levels(times):
    """A plate inside a batch of runs: some of its parameters belong to the run, some to the element."""
    xs = jnp.array([-1.0, 0.0, 2.0])

    def model(xs):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        s = ppl.sample("s", dist.Gamma(2.0, 3.0))
        return jax.vmap(lambda x: ppl.sample("y", dist.Normal(a + x, s)))(xs)

    runs = jax.vmap(ppl.simulate(model), (0, None))(jax.random.split(KEY, times), xs)
    assert runs.choices["y"].shape == (times, 3)
    a, s, y = (np.asarray(runs.choices[name], np.float64) for name in ("a", "s", "y"))
    by_hand = stats.norm.logpdf(a) + stats.gamma.logpdf(s, 2.0, scale=1 / 3.0)
    by_hand += stats.norm.logpdf(y, a[:, None] + np.asarray(xs), s[:, None]).sum(-1)
    np.testing.assert_allclose(runs.log_density, by_hand, rtol=1e-5)

    many = jax.vmap(ppl.simulate(model), (0, None))(jax.random.split(KEY, 20_000), xs)
    noise = (many.choices["y"] - many.choices["a"][:, None] - xs) / many.choices["s"][:, None]
    assert_mean(noise, np.zeros(3))
    assert_mean(noise**2, np.ones(3))


def flagged():
    """A flag, and an observation whose density depends on its branch."""
    flag = ppl.sample("flag", dist.Bernoulli(0.5))
    lax.cond(flag == 1, lambda: ppl.factor(-3.0), lambda: ppl.factor(0.0))
    return flag


def test_a_trace_is_weighed_again_across_a_branch():
    trace = ppl.simulate(ppl.do(flagged, {"flag": 1}))(KEY)
    assert float(trace.log_weight) == -3.0
    old = next(t for t, _ in semantics.meaning(ppl.trace(flagged))() if int(t.value) == 1)
    edit = ppl.update(flagged, {"flag": 0})(old)
    assert float(edit.log_weight) == pytest.approx(3.0, rel=1e-6)


def test_metropolis_hastings_on_the_flag_of_a_branch():
    """The chain's transition matrix, exactly, has the posterior as its fixed point: P(flag) = 1 / (1 + e^3) = 0.047."""
    with jax.enable_x64(True):
        traces = {int(t.value): t for t, _ in semantics.meaning(ppl.trace(flagged))()}
        matrix = np.zeros((2, 2))
        for start, trace in traces.items():
            for edit, p in semantics.meaning(ppl.regenerate(flagged, ppl.select("flag")))(trace):
                accept = min(1.0, float(np.exp(edit.log_weight)))
                matrix[start, int(edit.trace.value)] += p * accept
                matrix[start, start] += p * (1 - accept)
    posterior = np.array([1.0, np.exp(-3.0)]) / (1 + np.exp(-3.0))
    np.testing.assert_allclose(posterior @ matrix, posterior, rtol=1e-10)
    assert posterior[1] == pytest.approx(0.0474, abs=1e-4)


def test_values_outside_the_support():
    model = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    with pytest.raises(ppl.ChoiceError, match=r"'x' .*outside the support of Exponential"):
        ppl.log_density(model)({"x": -1.0})
    assert jax.jit(ppl.log_density(model))({"x": jnp.array(-1.0)}) == -jnp.inf


def test_a_positive_parameter_over_the_reals():
    """With its Jacobian, the density over the reals has mass one and the mean of the parameter."""
    free = ppl.unconstrain(lambda: ppl.sample("x", dist.Exponential(2.0)))
    with jax.enable_x64(True):
        z = jnp.linspace(-40.0, 6.0, 20_001)
        density = jnp.exp(jax.vmap(free.log_density)({"x": z}))
        x = jax.vmap(free.constrain)({"x": z})["x"]
        assert float(jnp.trapezoid(density, z)) == pytest.approx(1.0, abs=1e-8)
        assert float(jnp.trapezoid(density * x, z)) == pytest.approx(0.5, abs=1e-8)


def test_every_coordinate_has_its_own_noise():
    model = lambda: ppl.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))  # noqa: E731
    draws = jax.vmap(ppl.seed(model))(jax.random.split(KEY, 20_000))
    products = draws[:, :, None] * draws[:, None, :]
    assert_mean(products, np.eye(3))


def test_the_identity_change_has_no_weight():
    def model(scale):
        x = ppl.sample("x", dist.Normal(0.0, scale))
        ppl.factor(-(x**2))
        return ppl.observe("y", dist.Normal(x, scale), 1.0)

    scale = jnp.array(0.7)
    old = ppl.simulate(model)(KEY, scale)
    assert float(ppl.update(model)(old, scale).log_weight) == 0.0


@pytest.mark.parametrize(
    "use",
    [
        lambda p, choices: ppl.log_density(p)(choices),
        lambda p, choices: ppl.seed(ppl.do(p, choices))(KEY),
        lambda p, choices: ppl.simulate(ppl.condition(p, choices))(KEY),
        lambda p, choices: ppl.update(p, choices)(ppl.simulate(p)(KEY)),
        lambda p, choices: ppl.regenerate(p, ppl.select(*choices))(ppl.simulate(p)(KEY)),
        lambda p, choices: ppl.select(*choices).of(ppl.simulate(p)(KEY).choices),
    ],
    ids=["log_density", "do", "condition", "update", "regenerate", "select"],
)
def test_a_mistyped_address(use):
    model = lambda: ppl.sample("slope", dist.Normal(0.0, 1.0))  # noqa: E731
    with pytest.raises(ppl.AddressError, match=r"'slop'.*\(did you mean 'slope'\?\)"):
        use(model, {"slop": 0.0})


@pytest.mark.parametrize("use", [ppl.condition, ppl.do, ppl.update], ids=lambda f: f.__name__)
def test_a_vector_at_a_scalar_site(use):
    model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    program = use(model, {"x": jnp.zeros(5)})
    args = (ppl.simulate(model)(KEY),) if use is ppl.update else ()
    with pytest.raises(ppl.ChoiceError, match=r"'x' .* has shape \(\).* value of shape \(5,\)"):
        ppl.simulate(program)(KEY, *args)


def test_every_trace_of_a_batch_has_its_own_density():
    model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    xs = jnp.array([0.0, 1.0, 2.0])
    expected = stats.norm.logpdf(np.asarray(xs))
    np.testing.assert_allclose(jax.vmap(ppl.log_density(model))({"x": xs}), expected, rtol=1e-6)
    batch = jax.vmap(ppl.simulate(model))(jax.random.split(KEY, 3))
    np.testing.assert_allclose(batch.log_density, stats.norm.logpdf(np.asarray(batch.value)), rtol=1e-5)


def test_the_complement_of_a_nested_selection_keeps_siblings():
    choices = {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    assert (~ppl.select("a/x")).of(choices) == {"a": {"y": 2}, "b": {"x": 3}}


# ------------------------------------------------------------------------- what went wrong loudly


def test_an_error_in_a_model_leaves_nothing_behind():
    def broken():
        with ppl.scope("inner"):
            ppl.sample("x", dist.Normal(0.0, 1.0))
            raise RuntimeError("broken")

    for use in (ppl.simulate(broken), jax.jit(ppl.simulate(broken)), ppl.simulate(ppl.condition(broken, {}))):
        with pytest.raises(RuntimeError, match="broken"):
            use(KEY)
    assert set(ppl.simulate(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))(KEY).choices) == {"x"}


def test_threads_do_not_meet():
    """Two threads trace different programs at once, again and again."""
    together = threading.Barrier(2)
    found: dict[str, set] = {}

    def work(name):
        def model():
            with ppl.scope(name):
                together.wait()
                x = ppl.sample("x", dist.Normal(0.0, 1.0))
                together.wait()
                return ppl.sample("y", dist.Normal(x, 1.0))

        found[name] = {name for _ in range(5) for name in ppl.simulate(model)(KEY).choices}

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": {"one"}, "other": {"other"}}


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (lambda: ppl.sample(dist.Normal(0.0, 1.0), "x"), ValueError, "an address is a non-empty string"),
        (lambda: ppl.sample("x", dist.Normal), TypeError, "'x' at .*numpyro.distributions object"),
        (lambda: ppl.sample("x", lambda: 0.0), TypeError, "'x' at .*numpyro.distributions object"),
        (lambda: ppl.sample("x", 0.0), TypeError, "'x' at .*numpyro.distributions object"),
    ],
    ids=["no address", "a class", "a program", "a number"],
)
def test_a_call_the_wrong_way_round(program, error, message):
    with pytest.raises((error, ppl.BorelaxError), match=message):
        ppl.seed(program)(KEY)
