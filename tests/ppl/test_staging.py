from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.ppl.staging import count_draws, exclusive, jaxpr_has_effects, stage

KEY = jax.random.key(0)


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


def test_arrays_are_traced_and_everything_else_is_static():
    seen = {}

    def program(*args, **kwargs):
        seen["kinds"] = [isinstance(x, jax.core.Tracer) for x in (*args, *kwargs.values())]
        return args[0]

    stage(program, jnp.zeros(2), np.zeros(2), np.float32(1.0), 1.0, 2, True, "text", None, k=jnp.ones(1), s=3)
    assert seen["kinds"] == [True, True, True, False, False, False, False, False, True, False]


def test_the_structure_of_arguments_and_value_is_kept():
    def program(tree, *, scale):
        assert tree["static"] == "name"
        return {"out": (tree["x"] * scale, [tree["y"][0]])}

    tree = {"x": jnp.array(2.0), "y": (jnp.array(3), 4), "static": "name"}
    staged = stage(program, tree, scale=jnp.array(5.0))
    assert len(staged.leaves) == 3
    out = ppl.seed(program)(KEY, tree, scale=jnp.array(5.0))
    assert jax.tree.map(float, out) == {"out": (10.0, [3.0])}


def test_a_program_returns_arrays():
    with pytest.raises(TypeError):
        stage(lambda: "text")


def test_sites_are_in_program_order_with_their_shapes():
    def program():
        normal("a")
        ppl.factor(1.0, "f")
        with ppl.scope("loop"):
            lax.scan(lambda c, _: (c, jax.vmap(lambda m: normal("b", m))(jnp.zeros(2))), 0.0, None, length=3)
        ppl.observe("y", dist.Normal(jnp.zeros(4), 1.0), jnp.zeros(4))
        ppl.deterministic("d", jnp.zeros(5, int))

    staged = stage(program)
    assert [(i.kind, i.address, i.shape, i.dtype, i.present_shape) for i in staged.sites] == [
        ("sample", ("a",), (), jnp.float32, ()),
        ("factor", ("f",), None, None, ()),
        ("sample", ("loop", "b"), (3, 2), jnp.float32, (3, 2)),
        ("observe", ("y",), (4,), jnp.float32, ()),
        ("deterministic", ("d",), (5,), jnp.int32, ()),
    ]
    assert [info.address for info in staged.of_kind("factor", "observe")] == [("f",), ("y",)]
    assert not any(info.optional or info.unbounded for info in staged.sites)


def test_what_some_branches_lack_is_optional():
    some = lambda i: lambda: normal("all") + normal(f"x{i}")  # noqa: E731
    program = lambda i: lax.switch(i, [some(0), some(1), lambda: normal("all")])  # noqa: E731
    assert stage(program, jnp.array(0)).optional == {("x0",), ("x1",)}
    assert stage(jax.vmap(program), jnp.arange(3)).optional == {("x0",), ("x1",)}
    nested = lambda i: lax.cond(i > 0, lambda: program(i), lambda: normal("all"))  # noqa: E731
    assert stage(nested, jnp.array(0)).optional == {("x0",), ("x1",)}


def test_sites_in_a_while_loop_are_unbounded():
    body = lambda c: c + normal("x")  # noqa: E731
    staged = stage(lambda: lax.while_loop(lambda c: c < normal("limit"), body, 0.0) + normal("y"))
    assert {info.address: info.unbounded for info in staged.sites} == {
        ("limit",): True,
        ("x",): True,
        ("y",): False,
    }


def nested_draws():
    normal("a")
    ppl.factor(1.0)
    jax.jit(lambda: normal("b") + jax.checkpoint(lambda: normal("c"))())()
    lax.scan(lambda c, _: (normal("d") + normal("e"), None), 0.0, None, length=9)
    lax.scan(lambda c, _: (c + 1, None), 0.0, None, length=9)
    return lax.cond(jnp.array(True), lambda: normal("f"), lambda: 0.0)


def test_count_draws():
    """a, b, c, and one each for the scan and the cond that draw."""
    assert count_draws(stage(nested_draws).jaxpr.jaxpr) == 5
    only_factor = stage(lambda: lax.fori_loop(0, 2, lambda i, c: (ppl.factor(c), c)[1], 0.0)).jaxpr.jaxpr
    assert count_draws(only_factor) == 0 and jaxpr_has_effects(only_factor)
    assert not jaxpr_has_effects(stage(lambda x: jnp.sin(x), jnp.zeros(2)).jaxpr.jaxpr)


def twice(first, second):
    def program():
        first()
        second()

    return program


@pytest.mark.parametrize(
    "program",
    [
        twice(lambda: normal("x"), lambda: normal("x")),
        twice(lambda: normal("x"), lambda: ppl.observe("x", dist.Normal(0.0, 1.0), 0.0)),
        twice(lambda: ppl.deterministic("x", 1.0), lambda: normal("x")),
        twice(lambda: normal("x"), lambda: lax.map(lambda m: normal("x", m), jnp.zeros(2))),
        twice(lambda: normal("x"), lambda: lax.cond(jnp.array(True), lambda: normal("x"), lambda: 0.0)),
        lambda: lax.cond(jnp.array(True), lambda: normal("x") + normal("x"), lambda: 0.0),
        lambda: jax.vmap(lambda b: lax.cond(b, lambda: normal("x") + normal("x"), lambda: 0.0))(
            jnp.ones(2, bool)
        ),
    ],
    ids=["samples", "observe", "deterministic", "scan", "cond", "within a branch", "within a batched branch"],
)
def test_an_address_is_used_once(program):
    with pytest.raises(ppl.AddressError, match=r"'x'.*test_staging\.py:\d+"):
        stage(program)


def test_factors_may_share_a_name():
    staged = stage(twice(lambda: ppl.factor(1.0, "f"), lambda: ppl.factor(2.0, "f")))
    assert len(staged.sites) == 2


def test_a_scope_is_not_a_site():
    def inner():
        with ppl.scope("x"):
            normal("y")

    with pytest.raises(ppl.AddressError, match=r"'x' is a site \(.*and also the scope of 'x/y'"):
        stage(twice(inner, lambda: normal("x")))


@pytest.mark.parametrize(
    "other",
    [
        lambda: ppl.sample("x", dist.Normal(jnp.zeros(2), 1.0)).sum(),
        lambda: 1.0 * ppl.sample("x", dist.Bernoulli(0.5)),
        lambda: ppl.observe("x", dist.Normal(0.0, 1.0), 0.0),
    ],
    ids=["shape", "dtype", "kind"],
)
def test_branches_agree_on_a_site(other):
    with pytest.raises(
        ppl.AddressError, match=r"branches of one cond disagree on 'x': .* and sample float32\[\] at"
    ):
        stage(lambda: lax.cond(jnp.array(True), lambda: normal("x"), other))


def test_sites_of_different_branches_exclude_each_other():
    def program(b):
        lax.cond(b, lambda: normal("x"), lambda: normal("y"))
        return lax.cond(b, lambda: normal("z"), lambda: 0.0)

    sites = {info.address[0]: info.site for info in stage(jax.vmap(program), jnp.ones(2, bool)).sites}
    assert exclusive(sites["x"], sites["y"])
    assert not exclusive(sites["x"], sites["x"]) and not exclusive(sites["y"], sites["z"])


def test_branches_under_vmap_agree_on_a_site():
    def program():
        sampled = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
        observed = lambda: ppl.observe("x", dist.Normal(0.0, 1.0), 1.0)  # noqa: E731
        return jax.vmap(lambda b: jax.lax.cond(b, sampled, observed))(jnp.array([True, False]))

    with pytest.raises(
        ppl.AddressError, match=r"branches of one cond disagree on 'x': observe .* and sample"
    ):
        stage(program)
