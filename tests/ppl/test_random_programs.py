"""Programs made at random over discrete sites: what a program means, how it runs and its density all agree."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from borelax import ppl, semantics

MOST_OUTCOMES = 64
NUMBER = st.sampled_from([0.125, 0.25, 0.5, 0.75])


@dataclass(frozen=True)
class Part:
    """A statement. ``run`` turns one integer into another; ``body`` and ``other`` are blocks of statements."""

    kind: str
    name: str
    numbers: tuple[float, float]
    body: tuple[Part, ...] = ()
    other: tuple[Part, ...] = ()

    def run(self, s):
        number = jnp.array(self.numbers)[s % 2]
        body, other = (lambda s, block=block: run(block, s) for block in (self.body, self.other))
        match self.kind:
            case "bernoulli":
                return 2 * s + ppl.sample(self.name, dist.Bernoulli(number))
            case "categorical":
                probs = jnp.stack([number / 2, 1 - number, number / 2])
                return s + ppl.sample(self.name, dist.Categorical(probs))
            case "factor":
                ppl.factor(number * (s % 3) - 0.5)
                return s
            case "observe":
                return s + ppl.observe(self.name, dist.Bernoulli(number), s % 2)
            case "scan":
                return lax.scan(lambda s, i: (body(s + i), s), s, jnp.arange(2))[0]
            case "cond":
                return lax.cond(s % 2 == 1, body, other, s)
            case "vmap":
                return jax.vmap(lambda i: body(s + i))(jnp.arange(2)).sum()
            case "remat":
                return jax.checkpoint(jax.jit(body))(s)
            case "scope":
                with ppl.scope(self.name):
                    return body(s)

    @property
    def outcomes(self) -> int:
        """No fewer than the traces that it has."""
        body, other = outcomes(self.body), outcomes(self.other)
        match self.kind:
            case "bernoulli":
                return 2
            case "categorical":
                return 3
            case "scan" | "vmap":
                return body**2
            case "cond":
                return (body + 1) * (other + 1)
        return body


def run(block, s):
    for part in block:
        s = part.run(s)
    return s


def outcomes(block) -> int:
    return int(np.prod([part.outcomes for part in block], dtype=int))


def parts(depth: int):
    simple = st.sampled_from(["bernoulli", "bernoulli", "categorical", "factor", "observe"])
    leaf = st.builds(Part, simple, st.none(), st.tuples(NUMBER, NUMBER))
    if depth == 0:
        return leaf
    block = st.lists(parts(depth - 1), min_size=1, max_size=2).map(tuple)
    kinds = st.sampled_from(["scan", "cond", "vmap", "remat", "scope"])
    return leaf | st.builds(Part, kinds, st.none(), st.tuples(NUMBER, NUMBER), block, block)


def named(block, counter) -> tuple[Part, ...]:
    """Every statement with a name of its own."""
    return tuple(
        Part(p.kind, f"v{next(counter)}", p.numbers, named(p.body, counter), named(p.other, counter))
        for p in block
    )


BLOCKS = (
    st.lists(parts(2), min_size=2, max_size=3)
    .map(lambda block: named(block, itertools.count()))
    .filter(lambda block: 1 < outcomes(block) <= MOST_OUTCOMES)
)


def program_of(block):
    return lambda s: run(block, s)


def all_choices(program, s):
    """Every trace that the sites could have, stacked; one value for what is absent."""
    types = ppl.trace_type(program)(s)
    leaves, tree = jax.tree.flatten(types, is_leaf=lambda t: isinstance(t, ppl.SiteType))
    columns = []
    for site in leaves:
        if site.kind == "sample":
            elements = list(range(2 if type(site.support).__name__ == "_Boolean" else 3))
            elements += [None] * site.optional
            columns.append(list(itertools.product(elements, repeat=int(np.prod(site.shape, dtype=int)))))
        else:
            columns.append([None])
    stacked = []
    for site, column in zip(leaves, zip(*itertools.product(*columns))):
        if site.kind != "sample":
            stacked.append(None)
            continue
        value = np.array([[x or 0 for x in row] for row in column]).reshape(-1, *site.shape)
        present = np.array([[x is not None for x in row] for row in column]).reshape(-1, *site.shape)
        stacked.append(ppl.Masked(value, present) if site.optional else value)
    return without_nothing(jax.tree.unflatten(tree, stacked))


def without_nothing(choices):
    if not isinstance(choices, dict):
        return choices
    return {name: without_nothing(x) for name, x in choices.items() if x is not None}


@settings(max_examples=5, deadline=None)
@given(BLOCKS)
def test_the_total_mass_is_the_sum_of_the_density(block):
    program, s = program_of(block), jnp.array(1)
    total = semantics.meaning(program)(s).total
    with jax.enable_x64(True):
        density = ppl.log_density(program)
        log_densities = jax.jit(jax.vmap(lambda choices: density(choices, jnp.array(1))))(
            all_choices(program, s)
        )
        assert float(jnp.exp(log_densities).sum()) == pytest.approx(total, rel=1e-10)


@settings(max_examples=5, deadline=None)
@given(BLOCKS)
def test_a_run_is_what_its_choices_say(block):
    program, s = program_of(block), jnp.array(1)
    simulate, density = ppl.simulate(program), ppl.log_density(program)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(simulate, (0, None)))(keys, s)
    trace = jax.tree.map(lambda x: x[1], batch)
    for other in (simulate(keys[1], s), jax.jit(simulate)(keys[1], s)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), other, trace)

    assert float(density(trace.choices, s)) == pytest.approx(float(trace.log_density), rel=1e-5, abs=1e-5)
    by_row = jax.jit(jax.vmap(density, (0, None)))(batch.choices, s)
    np.testing.assert_allclose(by_row, batch.log_density, rtol=1e-5, atol=1e-5)

    again = ppl.simulate(ppl.condition(program, trace.choices))(jax.random.key(1), s)
    assert again.choices == {} and int(again.value) == int(trace.value)
    expected = pytest.approx(float(trace.log_density), rel=1e-5, abs=1e-5)
    assert float(again.log_density) == expected and float(again.log_weight) == expected


@settings(max_examples=5, deadline=None)
@given(BLOCKS, st.integers(0, 2**30))
def test_an_update_weighs_the_difference(block, number):
    """From any trace to any other, and back by what was discarded."""
    program, s = program_of(block), jnp.array(1)
    batch = jax.jit(jax.vmap(ppl.simulate(program), (0, None)))(
        jax.random.split(jax.random.key(number), 2), s
    )
    old, new = (jax.tree.map(lambda x: x[i], batch) for i in range(2))

    @jax.jit
    def there_and_back(old, choices):
        there = ppl.seed(ppl.update(program, choices))(jax.random.key(0), old, s)
        back = ppl.seed(ppl.update(program, there.discarded))(jax.random.key(0), there.trace, s)
        return there, back

    there, back = there_and_back(old, new.choices)
    difference = float(new.log_density - old.log_density)
    assert float(there.log_weight) == pytest.approx(difference, abs=1e-4)
    assert float(back.log_weight) == pytest.approx(-difference, abs=1e-4)
    assert int(there.trace.value) == int(new.value) and int(back.trace.value) == int(old.value)


@settings(max_examples=5, deadline=None)
@given(BLOCKS, st.sets(st.integers(0, 7)), st.integers(0, 2**30))
def test_regenerating_leaves_the_program_invariant(block, chosen, number):
    """The flow from x to y that is accepted is the flow back, for y drawn from x."""
    program, s = program_of(block), jnp.array(1)
    selection = ppl.select(lambda address: int(address.split("/")[-1][1:]) in chosen)
    trace = jax.jit(ppl.simulate(program))(jax.random.key(number), s)

    @jax.jit
    def there_and_back(trace):
        """A move and its probability, and the same of the move that undoes it."""
        move = ppl.trace(ppl.regenerate(program, selection))
        there = ppl.seed(move)(jax.random.key(1), trace, s)
        return there.value.log_weight, there.log_density, there.value.trace, there.value.discarded

    weight, log_q, new, discarded = there_and_back(trace)
    undo = ppl.regenerate(program, selection)

    @jax.jit
    def back(new, discarded):
        drawn = without_absent(ppl.trace_type(undo)(new, s), discarded)
        value, log_q = ppl.seed(ppl.weigh(ppl.condition(undo, drawn)))(jax.random.key(2), new, s)
        return value.log_weight, log_q

    weight_back, log_q_back = back(new, discarded)
    assert float(weight_back) == pytest.approx(-float(weight), abs=1e-4)
    identity = float(new.log_density + log_q_back - trace.log_density - log_q)
    assert float(weight) == pytest.approx(identity, abs=1e-4)


def without_absent(types, discarded):
    """The discarded values of the sites that a move may draw."""
    return {
        name: without_absent(kind, discarded[name]) if isinstance(kind, dict) else discarded[name]
        for name, kind in types.items()
        if isinstance(kind, dict) or kind.kind == "sample"
    }


@settings(max_examples=5, deadline=None)
@given(BLOCKS)
def test_the_order_of_unrelated_statements_does_not_matter(block):
    def program(order):
        def run_each(s):
            values = {i: block[i].run(s) for i in order}
            return [values[i] for i in range(len(block))]

        return run_each

    forth, back = program(range(len(block))), program(range(len(block))[::-1])
    s = jnp.array(1)
    trace = jax.jit(ppl.simulate(forth))(jax.random.key(0), s)
    assert float(ppl.log_density(back)(trace.choices, s)) == pytest.approx(float(trace.log_density), abs=1e-5)
    with jax.enable_x64(True):
        measures = [dict(as_pairs(semantics.meaning(p)(jnp.array(1)))) for p in (forth, back)]
    assert measures[0] == pytest.approx(measures[1], rel=1e-12)


def as_pairs(measure):
    return ((repr([int(x) for x in value]), weight) for value, weight in measure)
