"""Programs made of programs: called under scopes, passed as arguments, copied by vmap, mixed by switch."""

from __future__ import annotations

from functools import partial

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


def coin(p=0.25):
    return ppl.sample("heads", dist.Bernoulli(p))


def normal(mean=0.0):
    return ppl.sample("x", dist.Normal(mean, 1.0))


def weights(measure) -> dict:
    return {repr(jax.tree.map(lambda x: np.asarray(x).tolist(), value)): weight for value, weight in measure}


# ------------------------------------------------------------------------- calls


def called(name, program, *args):
    with ppl.scope(name):
        return program(*args)


def test_programs_called_under_scopes():
    def outer(p):
        first = called("first", coin, p)
        return called("second", lambda: called("inner", coin, 0.25 + 0.5 * first)), first

    measure = weights(semantics.meaning(outer)(jnp.array(0.5)))
    assert measure == pytest.approx(
        {"(0, 0)": 0.375, "(1, 0)": 0.125, "(0, 1)": 0.125, "(1, 1)": 0.375}, rel=1e-12
    )
    trace = ppl.simulate(outer)(KEY, jnp.array(0.5))
    assert jax.tree.map(jnp.shape, trace.choices) == {
        "first": {"heads": ()},
        "second": {"inner": {"heads": ()}},
    }


def test_one_program_twice_without_scopes_is_refused():
    with pytest.raises(ppl.AddressError, match="two sites have the address 'heads'"):
        ppl.simulate(lambda: coin() + coin())(KEY)


def test_conditioning_a_part_and_then_the_whole():
    """condition inside a program, and condition of that program, multiply the same densities."""

    def outer():
        part = ppl.condition(lambda: called("part", normal), {"part": {"x": 1.0}})
        return ppl.sample("y", dist.Normal(part(), 1.0))

    both = ppl.condition(outer, {"y": 3.0})
    expected = dist.Normal(0.0, 1.0).log_prob(1.0) + dist.Normal(1.0, 1.0).log_prob(3.0)
    np.testing.assert_allclose(ppl.log_density(both)({}), expected, rtol=1e-6)


def test_an_algorithm_inside_a_program():
    """A program may run importance sampling and go on with what it finds."""

    def outer():
        inner = inference.importance(ppl.condition(normal_pair, {"y": 2.0}), 4)
        with ppl.scope("inner"):
            population = inner()
        return ppl.sample("z", dist.Normal(population.expectation(), 1.0))

    trace = ppl.simulate(outer)(KEY)
    assert jax.tree.map(jnp.shape, trace.choices) == {"inner": {"x": (4,)}, "z": ()}


def normal_pair():
    x = normal()
    ppl.sample("y", dist.Normal(x, 1.0))
    return x


# ------------------------------------------------------------------------- programs as arguments


def twice(program, *args):
    return called("one", program, *args), called("two", program, *args)


def biased(p):
    return ppl.sample("heads", dist.Bernoulli(p))


def test_a_program_is_an_argument():
    """A callable is static, a Partial carries arrays that are traced; both mean the same."""
    expected = {"(0, 0)": 0.5625, "(0, 1)": 0.1875, "(1, 0)": 0.1875, "(1, 1)": 0.0625}
    quarter = jnp.array(0.25)
    for given in (coin, partial(biased, 0.25), Partial(biased, quarter)):
        assert weights(semantics.meaning(twice)(given)) == pytest.approx(expected, rel=1e-12)
    assert weights(semantics.meaning(twice)(biased, quarter)) == pytest.approx(expected, rel=1e-12)


def test_the_arrays_of_a_partial_are_traced():
    traced = []

    def program(f):
        traced.append(f)
        return twice(f)

    run = jax.jit(ppl.simulate(program))
    traces = [run(KEY, Partial(normal, jnp.array(mean))) for mean in (0.0, 10.0)]
    assert len(traced) == 1
    for one, other in zip(*(trace.value for trace in traces)):
        np.testing.assert_allclose(other - one, 10.0, rtol=1e-5)
    density = lambda mean: ppl.log_density(twice)(traces[0].choices, Partial(normal, mean))  # noqa: E731
    np.testing.assert_allclose(jax.grad(density)(jnp.array(0.0)), sum(traces[0].value), rtol=1e-5)


def test_higher_order_all_the_way():
    """A program that takes a program and returns one that takes a program."""

    def under(name):
        return lambda program: lambda: called(name, program)

    def outer(wrap, program):
        return wrap("a")(wrap("b")(program))()

    assert ppl.simulate(outer)(KEY, under, coin).choices.keys() == {"a"}
    assert ppl.simulate(outer)(KEY, under, coin).choices["a"]["b"].keys() == {"heads"}


# ------------------------------------------------------------------------- copies


def copies(program, n, *args):
    """Independent copies are a vmap in which nothing is mapped."""
    return jax.vmap(program, in_axes=None, axis_size=n)(*args)


@pytest.mark.parametrize("program", [coin, lambda: jax.jit(coin)()], ids=["plain", "jit"])
def test_copies_are_independent(program):
    measure = weights(semantics.meaning(lambda: called("all", copies, program, 3))())
    expected = {
        repr([a, b, c]): 0.25 ** (a + b + c) * 0.75 ** (3 - a - b - c) for a, b, c in np.ndindex(2, 2, 2)
    }
    assert measure == pytest.approx(expected, rel=1e-12)


def test_copies_have_one_site_with_an_axis():
    def model(mean):
        with ppl.scope("all"):
            return copies(lambda m: copies(normal, 2, m), 3, mean)

    trace = ppl.simulate(model)(KEY, jnp.array(1.0))
    assert trace.choices["all"]["x"].shape == (3, 2) and len(np.unique(trace.value)) == 6
    expected = dist.Normal(1.0, 1.0).log_prob(trace.value).sum()
    np.testing.assert_allclose(trace.log_density, expected, rtol=1e-5)
    np.testing.assert_allclose(ppl.log_density(model)(trace.choices, jnp.array(1.0)), expected, rtol=1e-5)
    fixed = ppl.condition(model, {"all": {"x": trace.value}})
    np.testing.assert_array_equal(ppl.simulate(fixed)(KEY, jnp.array(1.0)).value, trace.value)


def test_copies_of_a_program_with_weights():
    def weighted():
        x = coin()
        ppl.factor(jnp.log(1.0 + x))
        return x

    single = semantics.meaning(weighted)().total
    assert semantics.meaning(lambda: copies(weighted, 3))().total == pytest.approx(single**3, rel=1e-12)


def test_copies_share_what_is_drawn_outside():
    def model():
        p = ppl.sample("p", dist.Bernoulli(0.5))
        return copies(lambda: ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * p)), 2)

    expected = {"[0, 0]": 0.3125, "[0, 1]": 0.1875, "[1, 0]": 0.1875, "[1, 1]": 0.3125}
    assert weights(semantics.meaning(model)()) == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------------- mixtures

WEIGHTS = jnp.array([0.5, 0.3, 0.2])
# A family, the parameters of its three components, and values to compare at.
COMPONENTS = {
    "normals": (dist.Normal, ([-1.0, 0.0, 2.0], [0.5, 1.0, 2.0]), [-2.0, 3.0]),
    "events": (
        lambda m: dist.Normal(m, 1.0).to_event(1),
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],),
        [[2.0, 2.5]],
    ),
    "counts": (dist.Poisson, ([1.0, 3.0, 6.0],), [0, 7]),
    "coins": (dist.Bernoulli, ([0.1, 0.5, 0.9],), [0, 1]),
    "positive": (dist.Exponential, ([1.0, 2.0, 4.0],), [0.1]),
}


def parts(family, parameters):
    return [family(*(jnp.array(x)[i] for x in parameters)) for i in range(3)]


def as_site(family, parameters):
    d = family(*map(jnp.array, parameters))
    return ppl.sample("y", dist.Mixture(dist.Categorical(WEIGHTS), d))


def as_list(*d):
    return ppl.sample("y", dist.Mixture(dist.Categorical(WEIGHTS), parts(*d)))


def as_switch(*d):
    which = ppl.sample("which", dist.Categorical(WEIGHTS))
    return lax.switch(which, [partial(ppl.sample, "y", part) for part in parts(*d)])


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_mixture_is_a_switch_whose_component_is_summed_out(name):
    """The density of the site is the evidence of the switch given y, by enumeration of the component."""
    *d, values = COMPONENTS[name]
    for y in jnp.array(values):
        exact = semantics.meaning(ppl.condition(partial(as_switch, *d), {"y": y}))().total
        for mixture in (as_site, as_list):
            density = ppl.log_density(partial(mixture, *d))({"y": y})
            assert float(jnp.exp(density)) == pytest.approx(exact, rel=1e-5)


def test_a_mixture_has_the_support_of_its_components():
    *d, _ = COMPONENTS["positive"]
    for mixture in (as_site, as_list):
        with pytest.raises(ppl.ChoiceError, match="outside the support of Mixture"):
            ppl.log_density(partial(mixture, *d))({"y": -1.0})
        assert jax.jit(ppl.log_density(partial(mixture, *d)))({"y": jnp.array(-1.0)}) == -jnp.inf


@pytest.mark.parametrize("mixture", [as_site, as_list, as_switch], ids=lambda f: f.__name__)
def test_a_mixture_is_drawn_from_all_its_components(mixture):
    *d, _ = COMPONENTS["coins"]
    draws = jax.vmap(ppl.seed(partial(mixture, *d)))(jax.random.split(KEY, 20_000))
    assert_mean(draws, 0.5 * 0.1 + 0.3 * 0.5 + 0.2 * 0.9)


def test_a_mixture_in_a_batch():
    """A batch of mixtures of events, under vmap: each element by its own components."""
    means = jnp.arange(24.0).reshape(4, 3, 2)

    def model(scale):
        d = dist.Normal(means, scale).to_event(1)
        return ppl.sample("y", dist.MixtureSameFamily(dist.Categorical(WEIGHTS), d))

    scales = jnp.array([1.0, 5.0])
    trace = jax.jit(ppl.simulate(jax.vmap(model)))(KEY, scales)
    assert trace.choices["y"].shape == (2, 4, 2)
    y = np.asarray(trace.value)[:, :, None]
    logs = dist.Normal(means, scales[:, None, None, None]).log_prob(y).sum(-1) + jnp.log(WEIGHTS)
    np.testing.assert_allclose(trace.log_density, jax.nn.logsumexp(logs, axis=-1).sum(), rtol=1e-5)
