"""Keys used twice are found, and those used once are left alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax, random

from borelax import ppl
from borelax.ppl.staging import stage
from borelax.semantics.static.key_reuse import key_reuse

KEY = random.key(0)
STEPS = jnp.arange(3)


@jax.jit
def noise(key):
    return random.normal(key)


def split_first(key):
    a, b = random.split(key)
    return random.normal(a) + random.poisson(b, 3.0)


def either_branch(key):
    return lax.cond(random.bernoulli(random.key(1)), lambda: random.normal(key), lambda: random.uniform(key))


def folded(key):
    return lax.map(lambda i: random.normal(random.fold_in(key, i)), STEPS)


def carried(key):
    def step(key, _):
        key, own = random.split(key)
        return key, random.normal(own)

    return lax.scan(step, key, STEPS)[1]


def one_each(key):
    return lax.map(random.normal, random.split(key, 3)), jax.vmap(random.normal)(
        random.split(random.key(1), 3)
    )


def drawn_until(key):
    def body(c):
        key, own = random.split(c[0])
        return key, c[1] + random.normal(own)

    return lax.while_loop(lambda c: c[1] < 2.0, body, (key, 0.0))[1]


def called_for_two(key):
    a, b = random.split(key)
    return noise(a) + noise(b)


def of_distributions(key):
    laws = [
        dist.StudentT(3.0),
        dist.Beta(2.0, 3.0),
        dist.Binomial(10, 0.3),
        dist.Dirichlet(jnp.ones(3)),
        dist.Poisson(2.0),
    ]
    return [d.sample(own) for d, own in zip(laws, random.split(key, len(laws)))]


def seeded(key):
    return ppl.seed(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)) + ppl.sample("y", dist.Gamma(2.0, 1.0)))(
        key
    )


def memoised(key):
    f = ppl.mem("f", lambda x: ppl.sample("y", dist.Normal(x, 1.0)))
    return f(1.0) + f(1.0) + random.normal(key)


def one_step(key):
    return lax.scan(lambda c, _: (c + random.normal(key), None), 0.0, STEPS[:1])[0]


def never(key):
    return lax.scan(lambda c, _: (c + random.normal(key), None), 0.0, STEPS[:0])[0] + random.normal(
        random.key(5)
    )


RIGHT = [
    split_first,
    either_branch,
    folded,
    carried,
    one_each,
    drawn_until,
    called_for_two,
    of_distributions,
    seeded,
    memoised,
    one_step,
    never,
]


def drawn_twice(key):
    return random.normal(key) + random.uniform(key)


def split_and_drawn(key):
    a, _ = random.split(key)
    return random.normal(key) + random.normal(a)


def one_part_twice(key):
    keys = random.split(key, 3)
    return random.normal(keys[0]) + random.normal(keys[1]) + random.gamma(keys[0], 2.0)


def branch_and_after(key):
    chosen = lax.cond(random.bernoulli(random.key(1)), lambda: random.normal(key), lambda: 0.0)
    return chosen + random.normal(key)


def in_every_step(key):
    return lax.scan(lambda c, _: (c + random.normal(key), None), 0.0, STEPS)[0]


def in_every_step_of_the_outer(key):
    def outer(c, own):
        return lax.scan(lambda c, _: (c + random.normal(own), None), c, STEPS)[0], None

    return lax.scan(outer, 0.0, random.split(key, 2))[0]


def mapped(key):
    return lax.map(lambda i: i * random.normal(key), STEPS)


def carried_unchanged(key):
    return lax.scan(lambda c, _: ((c[0], c[1] + 1), random.normal(c[0])), (key, 0), STEPS)[1]


def until(key):
    return lax.while_loop(lambda c: c < 2.0, lambda c: c + random.normal(key), 0.0)


def fixed_keys(_):
    return random.normal(random.key(3)) + random.normal(random.key(3))


def called_twice(key):
    return noise(key) + noise(key)


def inside_a_call(key):
    return jax.jit(lambda key: random.normal(key) + random.normal(key))(key)


def folded_alike(key):
    return random.normal(random.fold_in(key, 1)) + random.normal(random.fold_in(key, 1))


def two_loops_over_the_same(key):
    keys = random.split(key, 3)
    return lax.map(random.normal, keys) + lax.map(random.normal, keys)


WRONG = [
    drawn_twice,
    split_and_drawn,
    one_part_twice,
    branch_and_after,
    in_every_step,
    in_every_step_of_the_outer,
    mapped,
    carried_unchanged,
    until,
    fixed_keys,
    called_twice,
    inside_a_call,
    folded_alike,
    two_loops_over_the_same,
]


@pytest.mark.parametrize("program", RIGHT, ids=lambda program: program.__name__)
@pytest.mark.parametrize("key", [KEY, random.PRNGKey(0)], ids=["typed", "raw"])
def test_right_programs_pass(program, key):
    assert key_reuse(stage(program, key)) == ()


@pytest.mark.parametrize("program", WRONG, ids=lambda program: program.__name__)
@pytest.mark.parametrize("key", [KEY, random.PRNGKey(0)], ids=["typed", "raw"])
def test_wrong_programs_are_found(program, key):
    findings = key_reuse(stage(program, key))
    assert findings and {finding.severity for finding in findings} == {"warning"}
    assert all(finding.where.startswith("test_key_reuse.py:") for finding in findings)


def test_both_lines_are_named():
    def program(key):
        x = random.normal(key)
        return x + random.normal(key)

    first = program.__code__.co_firstlineno + 1
    (finding,) = key_reuse(stage(program, KEY))
    assert finding.where == f"test_key_reuse.py:{first + 1}"
    assert f"test_key_reuse.py:{first} already" in finding.what


def test_the_same_key_gives_dependent_numbers():
    """What the warning is about."""
    draws = jax.vmap(lambda key: jnp.stack([random.normal(key), random.uniform(key)]))(
        random.split(KEY, 1000)
    )
    assert abs(jnp.corrcoef(draws.T)[0, 1]) > 0.9
