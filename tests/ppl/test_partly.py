"""Conditioning on some elements of a site: by mask, by NaN, on a prefix; in scans, vmaps and branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
NAN = jnp.nan


def chain(length=3):
    """A Markov chain on {0, 1}."""

    def step(x, _):
        x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
        return x, x

    return lax.scan(step, 0, None, length=length)[1]


def weights(measure) -> dict:
    return {repr(np.asarray(value).tolist()): weight for value, weight in measure}


def restricted(program, keep) -> dict:
    """The part of a program's measure on the values for which ``keep`` holds."""
    return {
        repr(np.asarray(value).tolist()): weight
        for value, weight in semantics.meaning(program)()
        if keep(np.asarray(value))
    }


@pytest.mark.parametrize(
    ("choice", "keep"),
    [
        (ppl.partly([0, 1, 0], [False, True, False]), lambda x: x[1] == 1),
        (ppl.partly([1, 9, 0], [True, False, True]), lambda x: x[0] == 1 and x[2] == 0),
        (ppl.partly([0, 0, 0], [False, False, False]), lambda x: True),
        (ppl.partly([1, 0, 1], [True, True, True]), lambda x: x.tolist() == [1, 0, 1]),
        (ppl.prefix([1, 1]), lambda x: x[0] == 1 and x[1] == 1),
        (ppl.prefix(np.zeros(0, int)), lambda x: True),
    ],
    ids=["middle", "ends", "nothing", "everything", "prefix", "empty prefix"],
)
def test_conditioning_restricts_the_measure(choice, keep):
    conditioned = ppl.condition(chain, {"x": choice})
    expected = restricted(chain, keep)
    assert weights(semantics.meaning(conditioned)()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_inference_is_properly_weighted(algorithm):
    conditioned = ppl.condition(chain, {"x": ppl.partly([0, 1, 0], [False, True, True])})
    exact = sum(restricted(chain, lambda x: x[1] == 1 and x[2] == 0).values())
    runs = semantics.meaning(algorithm(conditioned, 2))()
    total = sum(weight * np.exp(population.log_weight).mean() for population, weight in runs)
    assert total == pytest.approx(exact, rel=1e-12)


MODELS = {
    "batch": lambda: ppl.sample("y", dist.Normal(jnp.arange(3.0), 0.5)),
    "event": lambda: ppl.sample("y", dist.Normal(jnp.arange(3.0), 0.5).to_event(1)),
    "vmap": lambda: jax.vmap(lambda m: ppl.sample("y", dist.Normal(m, 0.5)))(jnp.arange(3.0)),
    "map": lambda: lax.map(lambda m: ppl.sample("y", dist.Normal(m, 0.5)), jnp.arange(3.0)),
    "expand": lambda: ppl.sample("y", dist.Normal(0.0, 0.5).expand([3]).to_event(1)) + jnp.arange(3.0),
}


@pytest.mark.parametrize("name", ["batch", "event", "vmap", "map"])
def test_nan_marks_what_is_missing(name):
    model = MODELS[name]
    conditioned = ppl.condition(model, {"y": ppl.partly([0.5, NAN, 1.0])})
    trace = jax.jit(ppl.simulate(conditioned))(KEY)
    y = trace.choices["y"]
    assert y[0] == 0.5 and y[2] == 1.0 and np.isfinite(y[1])
    np.testing.assert_array_equal(trace.value, y)

    known = dist.Normal(jnp.array([0.0, 2.0]), 0.5).log_prob(jnp.array([0.5, 1.0])).sum()
    free = dist.Normal(1.0, 0.5).log_prob(y[1])
    np.testing.assert_allclose(trace.log_weight, known, rtol=1e-6)
    np.testing.assert_allclose(trace.log_density, known + free, rtol=1e-6)
    np.testing.assert_allclose(ppl.log_density(conditioned)({"y": y}), known + free, rtol=1e-6)
    np.testing.assert_allclose(ppl.log_density(model)({"y": y}), known + free, rtol=1e-6)


def test_the_missing_elements_have_their_law():
    conditioned = ppl.condition(MODELS["batch"], {"y": ppl.partly([0.5, NAN, NAN])})
    free = ppl.condition(MODELS["batch"], {"y": ppl.partly([NAN, NAN, NAN])})
    keys = jax.random.split(KEY, 20)
    same = jax.vmap(ppl.simulate(conditioned))(keys).choices["y"]
    np.testing.assert_array_equal(same[:, 1:], jax.vmap(ppl.simulate(free))(keys).choices["y"][:, 1:])
    np.testing.assert_array_equal(
        jax.vmap(ppl.simulate(free))(keys).value, jax.vmap(ppl.simulate(MODELS["batch"]))(keys).value
    )


def test_a_known_element_cannot_be_moved():
    conditioned = ppl.condition(MODELS["vmap"], {"y": ppl.partly([0.5, NAN, 1.0])})
    assert ppl.log_density(conditioned)({"y": jnp.array([0.5, 7.0, 1.25])}) == -jnp.inf


def test_events_are_known_as_a_whole():
    def model():
        return ppl.sample("y", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)).expand([3]))

    value = jnp.array([[0.5, 1.0], [NAN, NAN], [1.0, 2.0]])
    trace = ppl.simulate(ppl.condition(model, {"y": ppl.partly(value)}))(KEY)
    np.testing.assert_array_equal(trace.value[jnp.array([0, 2])], value[jnp.array([0, 2])])
    expected = dist.Normal(0.0, 1.0).log_prob(jnp.array([0.5, 1.0, 1.0, 2.0])).sum()
    np.testing.assert_allclose(trace.log_weight, expected, rtol=1e-6)

    with pytest.raises(ppl.ChoiceError, match=r"'y' \(test_partly.*missing only in part"):
        ppl.simulate(ppl.condition(model, {"y": ppl.partly(value.at[0, 0].set(NAN))}))(KEY)
    with pytest.raises(ppl.ChoiceError, match=r"'y' .* has shape \(3,\)"):
        ppl.simulate(ppl.condition(model, {"y": ppl.partly(value, np.zeros((3, 2), bool))}))(KEY)


def test_an_intervention_on_some_elements():
    done = ppl.do(chain, {"x": ppl.partly([0, 1, 0], [False, True, False])})
    expected = {
        repr([a, 1, b]): (0.75 if a == 0 else 0.25) * 0.25 * (3 if b else 1) for a in (0, 1) for b in (0, 1)
    }
    assert weights(semantics.meaning(done)()) == pytest.approx(expected, rel=1e-12)


def test_the_data_may_be_traced():
    def weight(y):
        return ppl.simulate(ppl.condition(MODELS["batch"], {"y": ppl.partly(y)}))(KEY).log_weight

    data = jnp.array([[0.5, NAN, 1.0], [NAN, NAN, NAN], [0.5, 1.0, 1.0]])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(weight))(data), [weight(row) for row in data], rtol=1e-6, atol=1e-7
    )
    gradient = jax.grad(weight)(data[0])
    np.testing.assert_allclose(gradient, [-0.5 / 0.25, 0.0, 1.0 / 0.25], rtol=1e-5)


def test_proposals_are_kept_for_the_rest():
    def model(y):
        d, q = dist.Normal(jnp.zeros(2), 1.0), dist.Normal(jnp.array([5.0, 5.0]), 0.5)
        return ppl.sample("y", d, proposal=q)

    y = jnp.array([0.5, NAN])
    value, log_weight = ppl.seed(ppl.weigh(ppl.condition(model, {"y": ppl.partly(y)})))(KEY, y)
    assert value[0] == 0.5 and 2.0 < value[1] < 8.0
    ratio = dist.Normal(0.0, 1.0).log_prob(value[1]) - dist.Normal(5.0, 0.5).log_prob(value[1])
    np.testing.assert_allclose(log_weight, dist.Normal(0.0, 1.0).log_prob(0.5) + ratio, rtol=1e-5)


def coin_flips():
    """Heads until the first tail, at most three flips."""
    flip = lambda c: (c[0] + 1, ppl.sample("heads", dist.Bernoulli(0.5)) == 1)  # noqa: E731
    return ppl.loop(lambda c: c[1], flip, (0, jnp.array(True)), max_steps=3)[0]


def test_a_site_that_only_some_branches_have():
    """Known elements must be reached; whether the others are is left open."""
    first = ppl.condition(coin_flips, {"heads": ppl.prefix([1])})
    assert weights(semantics.meaning(first)()) == pytest.approx({"2": 0.25, "3": 0.25}, rel=1e-12)
    second = ppl.condition(coin_flips, {"heads": ppl.partly([0, 1, 0], [False, True, False])})
    assert weights(semantics.meaning(second)()) == pytest.approx({"3": 0.25}, rel=1e-12)


def test_whole_subtrees():
    def model():
        with ppl.scope("a"):
            xs = MODELS["batch"]()
        return xs, ppl.sample("z", dist.Normal(xs.sum(), 1.0))

    trace = ppl.simulate(ppl.condition(model, {"a": {"y": ppl.partly([NAN, 2.0, NAN])}}))(KEY)
    assert trace.choices["a"]["y"][1] == 2.0 and set(trace.choices) == {"a", "z"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ppl.partly([1, 2], [True, True]), r"has shape \(3,\)"),
        (ppl.partly([0, 1, 0], [True, True]), r"has shape \(3,\)"),
        (ppl.partly([0, 1, 0], [1, 0, 1]), "has dtype bool"),
        (ppl.partly([0, 7, 0], [True, True, False]), r"outside the support of \w+ \(boolean\)"),
        (ppl.prefix([0, 0, 0, 0]), "a prefix of it"),
        (ppl.prefix(0), "a prefix of it"),
        (ppl.prefix([[0]]), "has shape"),
    ],
)
def test_what_does_not_fit(choice, message):
    with pytest.raises(ppl.ChoiceError, match=message):
        ppl.simulate(ppl.condition(lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([3])), {"x": choice}))(
            KEY
        )


def test_unknown_elements_may_be_anything():
    model = ppl.condition(chain, {"x": ppl.partly([9, 1, -5], [False, True, False])})
    assert set(np.asarray(ppl.simulate(model)(KEY).value).tolist()) <= {0, 1}


def test_integers_have_no_nan():
    with pytest.raises(TypeError, match="no NaN"):
        ppl.partly([1, 2, 3])


def test_a_density_needs_whole_values():
    with pytest.raises(ppl.ChoiceError, match="needs a whole value"):
        ppl.log_density(chain)({"x": ppl.prefix([1])})
