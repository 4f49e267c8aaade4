from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl
from borelax.ppl.describe import family, spell_support
from borelax.ppl.summary import values_of
from borelax.ppl.table import Table

KEY = jax.random.key(0)


def everything(ys):
    with ppl.scope("s"):
        rate = ppl.sample("rate", dist.Gamma(1.0, 1.0), proposal=dist.LogNormal(0.0, 1.0))

    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, rate).expand([2]).to_event(1)).sum()
        ppl.observe("y", dist.Poisson(rate), y)
        jax.vmap(lambda x: ppl.factor(x, name="<near>"))(jnp.zeros(4))
        return x, x

    lax.scan(step, 0.0, ys)
    lax.cond(rate > 1, lambda: ppl.sample("b", dist.Bernoulli(0.5)), lambda: 0)
    return ppl.deterministic("d", rate)


def rows(html: str) -> list[list[str]]:
    """The texts of a table, by row. Raises if it is not well-formed."""
    root = ElementTree.fromstring(f"<div>{html}</div>")
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def test_the_table_of_a_program():
    line = everything.__code__.co_firstlineno
    source = [f"test_show.py:{line + n}" for n in (2, 5, 6, 7, 11, 12)]
    expected = [
        ["address", "kind", "distribution", "value", "support", "proposal", "only in", "source"],
        ["s/rate", "sample", "Gamma", "float32[]", "positive", "LogNormal", "", source[0]],
        ["x", "sample", "Normal", "float32[scan 3, 2]", "real", "", "", source[1]],
        ["y", "observe", "Poisson", "int32[scan 3]", "integer nonnegative", "", "", source[2]],
        ["<near>", "factor", "", "[scan 3, vmap 4]", "", "", "", source[3]],
        ["b", "sample", "Bernoulli", "int32[]", "boolean", "", "some branches", source[4]],
        ["d", "deterministic", "", "float32[]", "", "", "", source[5]],
    ]
    table = ppl.show(everything)(jnp.zeros(3, int))
    assert rows(table._repr_html_()) == expected
    title, *lines = repr(table).splitlines()
    assert title == "everything: 6 sites"
    assert [line.split() for line in lines] == [" ".join(row).split() for row in expected]
    starts = {line.index(word) for line, word in zip(lines, (row[1] for row in expected))}
    assert len(starts) == 1  # columns are aligned


def test_nothing_is_run():
    def program():
        jax.debug.callback(lambda: pytest.fail("it was run"))
        return ppl.sample("x", dist.Normal(0.0, 1.0))

    assert [row[0] for row in ppl.show(program)().rows] == ["x"]


def test_columns_that_are_empty_are_left_out():
    assert repr(ppl.show(lambda: 1.0)()) == "<lambda>: 0 sites"
    assert rows(ppl.show(lambda: ppl.factor(1.0))()._repr_html_())[0] == ["address", "kind", "source"]


def test_what_a_table_shows_is_escaped():
    table = Table(("<a>",), (("<b>",), ("&",)), "<title>")
    assert rows(table._repr_html_()) == [["<a>"], ["<b>"], ["&"]]
    assert "<title>" not in table._repr_html_() and "<title>" in repr(table)


@pytest.mark.parametrize(
    ("d", "name", "support"),
    [
        (dist.Normal(jnp.zeros(3), 1.0).to_event(1), "Normal", "real"),
        (dist.Categorical(logits=jnp.zeros(3)), "Categorical", "integer interval"),
        (dist.LogNormal(0.0, 1.0).expand([2]), "LogNormal", "positive"),
        (dist.Normal(0.0, 1.0).mask(False), "Masked Normal", "real"),
        (dist.TruncatedNormal(low=0.0), "LeftTruncated Normal", "greater than eq"),
        (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), "MultivariateNormal", "real vector"),
        (dist.Dirichlet(jnp.ones(3)), "Dirichlet", "simplex"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_words_for_distributions(d, name, support):
    assert (family(d), spell_support(d.support)) == (name, support)


def test_a_site_known_in_part_says_so():
    model = lambda: ppl.sample("y", dist.Normal(0.0, 1.0).expand([2]))  # noqa: E731
    nodes = ppl.graph(ppl.condition(model, {"y": ppl.partly([1.0, jnp.nan])}))().nodes
    assert {node.kind: node.distribution for node in nodes} == {
        "sample": "Normal, known in part",
        "factor": "",
    }


def test_the_repr_of_a_site_type():
    def program():
        ppl.sample("x", dist.HalfNormal(1.0).expand([2]))

    line = program.__code__.co_firstlineno + 1
    assert (
        repr(ppl.trace_type(program)()["x"])
        == f"SiteType(sample float32[2] in positive, test_show.py:{line})"
    )


# ------------------------------------------------------------------------- values


def run_of_everything():
    return ppl.simulate(everything)(KEY, jnp.zeros(3, int))


def test_the_repr_of_a_trace():
    trace = run_of_everything()
    title, _, *lines = repr(trace).splitlines()
    assert (
        title
        == f"Trace: log density {float(trace.log_density):.4g}, log weight {float(trace.log_weight):.4g}"
    )
    rate, b = trace.choices["s"]["rate"], trace.choices["b"]
    shown = {line.split()[0]: line.split() for line in lines}
    assert shown["s/rate"] == ["s/rate", "sample", "float32[]", f"{float(rate):.4g}"]
    assert shown["b"] == ["b", "sample", "int32[]", str(int(b.value)) if b.present else "–"]
    first = [f"{x:.4g}," for x in np.ravel(trace.choices["x"])[:6]]
    assert shown["x"] == ["x", "sample", "float32[3,2]", *first[:-1], first[-1][:-1]]
    assert [line[2:] for line in shown.values() if line[1] == "deterministic"] == [shown["s/rate"][2:]]
    assert [row[0] for row in rows(trace._repr_html_())] == ["address", "b", "s/rate", "x", "d", ""]


def test_a_trace_that_is_not_known_yet_says_its_shapes():
    shown = []

    def look(key):
        trace = ppl.simulate(everything)(key, jnp.zeros(3, int))
        shown.append((repr(trace), trace._repr_html_()))
        return trace

    keys = jax.random.split(KEY, 4)
    batch = jax.vmap(look)(keys)
    jax.jit(look)(KEY)
    for text, html in shown:
        assert "log density float32[]" in text and "float32[3,2]" in text
        assert ["x", "sample", "float32[3,2]"] in rows(html)
    assert "log density float32[4]" in repr(batch) and "float32[4,3,2]" in repr(batch)


@pytest.mark.parametrize("change", [jnp.shape, lambda x: None, lambda x: "x", jax.typeof, lambda x: object()])
def test_a_trace_of_anything_has_a_repr(change):
    trace = jax.tree.map(change, run_of_everything())
    assert repr(trace).startswith("Trace")
    assert len(rows(trace._repr_html_())) == len(repr(trace).splitlines()) - 1


def test_a_deleted_array_has_no_values():
    trace = run_of_everything()
    jax.tree.map(lambda x: x.delete(), trace)
    assert "float32[3,2]" in repr(trace)


@pytest.mark.parametrize(
    ("value", "present", "expected"),
    [
        (jnp.array([1.0, 2.0]), jnp.array([True, False]), "Masked(float32[2]: 1, –)"),
        (np.arange(6).reshape(3, 2), np.array([True, False, True]), "Masked(int64[3,2]: 0, 1, –, –, 4, 5)"),
        (jnp.array(1, jnp.int32), jnp.array(True), "Masked(int32[]: 1)"),
        ((3,), (3,), "Masked(value=(3,), present=(3,))"),
        (1.0, True, "Masked(value=1.0, present=True)"),
    ],
)
def test_the_repr_of_a_masked_value(value, present, expected):
    assert repr(ppl.Masked(value, present)) == expected


def test_a_masked_value_that_is_malformed_has_a_repr():
    assert repr(ppl.Masked(jnp.zeros(()), jnp.zeros(3, bool))).startswith("Masked(value=")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.arange(10), "0, 1, 2, 3, 4, 5, …"),
        (np.array([True, False]), "True, False"),
        (jnp.array([0.5, jnp.nan, -jnp.inf], jnp.bfloat16), "0.5, nan, -inf"),
        (np.array(1 + 2j), "1+2j"),
        (np.zeros((0, 3)), ""),
        (np.zeros(2**17), ""),
        (jax.random.key(0), ""),
        ("text", ""),
        (3, "3"),
    ],
    ids=str,
)
def test_values(x, expected):
    assert values_of(x) == expected


# ------------------------------------------------------------------------- populations


def weighted():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.factor(x)
    return x


def test_a_population_in_a_notebook():
    population = ppl.seed(inference.importance(weighted, 20))(KEY)
    html = population._repr_html_()
    heaviest = np.argsort(-np.asarray(population.log_weight), kind="stable")[:5]
    expected = [f"{float(population.weight[i]):.1%}" for i in heaviest]
    assert [row[1] for row in rows(html)[1:]] == [*expected, ""] and rows(html)[-1][-1] == "… and 15 more"
    lengths = [float(part.split("%")[0]) for part in html.split("width:")[1:] if "%" in part[:6]]
    relative = np.asarray(population.weight)[heaviest] / float(population.weight.max())
    np.testing.assert_allclose(lengths, 100 * relative, atol=0.06)  # they are written to one decimal


@pytest.mark.parametrize("log_weight", [jnp.array([0.0, jnp.nan]), jnp.full(2, -jnp.inf), jnp.zeros((3, 2))])
def test_any_population_can_be_shown(log_weight):
    odd = replace(ppl.seed(inference.importance(weighted, 2))(KEY), log_weight=log_weight)
    assert odd._repr_html_().startswith("<div>Population") and repr(odd).startswith("Population")


def test_a_population_in_jit_can_be_shown():
    def look(key):
        population = ppl.seed(inference.importance(weighted, 2))(key)
        assert population._repr_html_().startswith("<div>Population(value=")
        return population

    jax.jit(look)(KEY)


def test_a_factor_named_like_the_site_of_another_branch():
    def program(b):
        return lax.cond(b, lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), weighed)

    def weighed():
        ppl.factor(1.0, "x")
        return 0.0

    rows = ppl.show(program)(jnp.array(True)).rows
    assert [(row[1], row[-2]) for row in rows] == [("factor", "some branches"), ("sample", "some branches")]
