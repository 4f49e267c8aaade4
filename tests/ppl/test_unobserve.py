"""unobserve: what was observed is drawn, exactly as the program would have drawn it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl, semantics
from borelax.ppl.power import Power


def chain(see):
    """A Markov chain of bits, seen or not: in a scan, in a branch, and in vmap."""

    def program(ys, last):
        x = ppl.sample("x", dist.Bernoulli(0.25))

        def step(y, seen):
            y = jnp.asarray(see("y", dist.Bernoulli(0.125 + 0.5 * y + 0.25 * x), seen), int)
            return y, y

        y, _ = lax.scan(step, x, ys)
        z = lax.cond(x == 1, lambda: jnp.asarray(see("z", dist.Bernoulli(0.75), last), int), lambda: y)
        with ppl.scope("copies"):
            seen = jax.vmap(lambda p, y: see("c", dist.Bernoulli(p + 0.25 * z), y))(
                jnp.array([0.25, 0.5]), ys
            )
        ppl.factor(0.5 * x)
        return x, y, z, seen

    return program


observing = chain(ppl.observe)
drawing = chain(lambda name, d, value: ppl.sample(name, d))
DATA = (jnp.array([1, 0]), jnp.array(1))


def test_the_meaning_is_that_of_the_program_with_sample_in_place_of_observe():
    found, right = (semantics.meaning(p)(*DATA) for p in (ppl.unobserve(observing), drawing))
    assert len(right) == 4 * 2 * 2 + 2 * 4  # values (x, y, z, seen): z is y where x is 0
    assert found.distance(right) < 1e-12


def test_it_undoes_condition():
    data = {"y": DATA[0], "copies": {"c": DATA[0]}}
    conditioned = ppl.condition(drawing, data)
    assert (
        semantics.meaning(ppl.unobserve(conditioned))(*DATA).distance(semantics.meaning(drawing)(*DATA))
        < 1e-12
    )
    assert ppl.trace_type(ppl.unobserve(conditioned))(*DATA)["y"].kind == "sample"
    again = ppl.condition(ppl.unobserve(observing), data | {"z": ppl.Masked(DATA[1], jnp.array(True))})
    assert set(ppl.trace_type(again)(*DATA)) == {"x", "y", "copies"}


def test_what_is_computed_from_data_that_is_not_observed_stays():
    def program(y):
        ppl.observe("y", dist.Bernoulli(0.5), y)
        return y

    assert [int(y) for y in semantics.meaning(ppl.unobserve(program))(jnp.array(7)).values] == [7]


def test_integers_that_are_observed_as_floats_stay_floats():
    def program(y):
        return ppl.observe("y", dist.Bernoulli(0.5), y) / 2

    trace = ppl.simulate(ppl.unobserve(program))(jax.random.key(0), jnp.array(1.0))
    assert jnp.issubdtype(trace.choices["y"].dtype, jnp.integer) and trace.value == trace.choices["y"] / 2


UNDRAWABLE = {
    "power": (
        Power(dist.Normal(0.0, 1.0), jnp.array(2.0)),
        0.5,
        "Power has a density to observe, but no draws",
    ),
    "improper": (dist.ImproperUniform(dist.constraints.real, (), ()), 0.5, "ImproperUniform has a density"),
    "censored": (dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), 1), 0.5, "likelihood of a bound"),
    "integers": (dist.Normal(0.0, 1.0), 1, "observes int32, but its distribution draws float32"),
}


@pytest.mark.parametrize(("d", "value", "match"), UNDRAWABLE.values(), ids=UNDRAWABLE)
def test_what_cannot_be_drawn_is_refused(d, value, match):
    def program():
        ppl.observe("y", d, value)

    with pytest.raises(ppl.UnsupportedError, match=rf"'y' \(test_unobserve.py:\d+\).*{match}"):
        ppl.simulate(ppl.unobserve(program))(jax.random.key(0))


def test_an_estimated_density_can_be_drawn_from():
    def inner():
        ppl.sample("b", dist.Bernoulli(0.25 + 0.5 * ppl.sample("a", dist.Bernoulli(0.5))))

    def program():
        ppl.observe("y", ppl.marginal(inner, "b", partial(inference.importance, n=2))(), 1)

    draws = jax.vmap(ppl.simulate(ppl.unobserve(program)))(jax.random.split(jax.random.key(0), 50)).choices[
        "y"
    ]
    assert set(draws.tolist()) == {0, 1}
