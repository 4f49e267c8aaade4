"""Draws on which nothing depends are noted, and no others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from borelax import ppl
from borelax.ppl.staging import stage
from borelax.semantics.static.unused import unused


def normal(name, mean=0.0, **options):
    return ppl.sample(name, dist.Normal(mean, 1.0), **options)


def found(program, *args):
    return [finding.where.split("'")[1] for finding in unused(stage(program, *args))]


def returned():
    return normal("x")


def in_a_factor():
    ppl.factor(normal("x"))


def observed():
    ppl.observe("y", dist.Normal(normal("x"), 1.0), 0.0)


def recorded():
    ppl.deterministic("twice", 2 * normal("x"))


def in_a_predicate():
    jax.lax.cond(normal("x") > 0, lambda: ppl.factor(1.0), lambda: None)


def in_a_proposal():
    x = normal("x")
    return normal("y", proposal=dist.Normal(x, 2.0))


def through_a_loop():
    return jax.lax.scan(lambda x, _: (normal("x", x), None), 0.0, None, length=3)[0]


def decides_how_long():
    return jax.lax.while_loop(lambda c: c[0] < 1.0, lambda c: (c[0] + normal("x"), c[1] + 1), (0.0, 0))[1]


@pytest.mark.parametrize(
    "program",
    [
        returned,
        in_a_factor,
        observed,
        recorded,
        in_a_predicate,
        in_a_proposal,
        through_a_loop,
        decides_how_long,
    ],
    ids=lambda program: program.__name__,
)
def test_what_is_used_is_left_alone(program):
    assert found(program) == []


def test_a_draw_that_leads_nowhere():
    def program():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        return ppl.sample("y", dist.Normal(0.0, 1.0))

    assert found(program) == ["x"]
    (finding,) = unused(stage(program))
    assert finding.severity == "note"
    assert finding.where == f"'x' (test_unused.py:{program.__code__.co_firstlineno + 1})"


def test_the_end_of_a_chain():
    assert found(lambda: normal("y", normal("x"))) == []
    assert found(lambda: (normal("y", normal("x")), None)[1]) == ["y"]


def test_a_chain_that_only_goes_round():
    def program():
        jax.lax.scan(lambda x, _: (normal("x", x), None), 0.0, None, length=3)

    assert found(program) == ["x"]


def test_a_branch_and_a_vmap():
    def program(i):
        jax.lax.switch(i, [lambda: normal("a"), lambda: normal("b"), lambda: 0.0])
        jax.vmap(lambda i: normal("c"))(jnp.arange(3))
        return jax.lax.switch(i, [lambda: normal("d"), lambda: normal("e"), lambda: 0.0])

    assert found(program, jnp.array(0)) == ["a", "b", "c"]


def test_what_is_used_changes_the_outcome_and_what_is_not_does_not():
    """The note is true: fixing the draw at different values changes neither the value nor the weight."""

    def program():
        x, y = normal("x"), normal("y")
        normal("z")
        ppl.factor(-y * y)
        return x

    unused_ones = found(program)
    assert unused_ones == ["z"]
    for name in "xyz":
        fixed = {k: 0.5 for k in "xyz"}
        both = [ppl.weigh(ppl.do(program, {**fixed, name: value})) for value in (0.0, 1.0)]
        one, other = (list(map(float, ppl.seed(run)(jax.random.key(0)))) for run in both)
        assert (one == other) == (name in unused_ones)
