"""Absolute continuity against the supports of finite programs, and site by site where programs are not finite."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import ppl, semantics
from borelax.ppl.staging import stage
from borelax.semantics.static.absolute_continuity import proposal_coverage

CHOICES = np.array(list(itertools.product(range(3), repeat=3)))


def chain(b_from_a: bool, c_from_b: bool, weighted: bool):
    """Three categorical sites, of which each may depend on the one before, with zeros among their probabilities."""

    def program(tables, weights):
        a = ppl.sample("a", dist.Categorical(tables[0, 0], validate_args=False))
        b = ppl.sample("b", dist.Categorical(tables[1, a if b_from_a else 0], validate_args=False))
        c = ppl.sample("c", dist.Categorical(tables[2, b if c_from_b else 0], validate_args=False))
        if weighted:
            ppl.factor(weights[c])

    return program


@cache
def densities(shape):
    density = ppl.log_density(chain(*shape))
    return jax.jit(jax.vmap(density, (0, None, None)))


def support(shape, arrays) -> set:
    every = {name: jnp.asarray(CHOICES[:, i], jnp.int32) for i, name in enumerate("abc")}
    return set(np.flatnonzero(np.exp(densities(shape)(every, *arrays)) > 0))


def arrays(rng):
    tables = rng.uniform(0.1, 1.0, (3, 3, 3)) * (rng.uniform(size=(3, 3, 3)) < 0.75)
    tables[:, :, rng.integers(3)] += 0.1  # every row has some mass
    weights = np.where(rng.uniform(size=3) < 0.15, -np.inf, 0.5)
    return jnp.asarray(tables / tables.sum(-1, keepdims=True), jnp.float32), jnp.asarray(weights, jnp.float32)


def test_a_verdict_is_true_of_the_supports():
    rng = np.random.default_rng(0)
    shapes = [(False, False, False), (True, False, False), (False, True, True), (False, False, True)]
    counts = Counter()
    for trial in range(120):
        ours, theirs = shapes[trial % 4], shapes[rng.integers(4)]
        mine, other = arrays(rng), arrays(rng)
        if trial % 3 == 0:
            other = mine
        supports = support(ours, mine), support(theirs, other)
        guide = lambda mine=mine, shape=ours: chain(*shape)(*mine)  # noqa: E731
        model = lambda other=other, shape=theirs: chain(*shape)(*other)  # noqa: E731
        found = semantics.absolute_continuity(guide, model)()
        for direction, inner, outer in (
            (found.guide_by_model, *supports),
            (found.model_by_guide, *supports[::-1]),
        ):
            if inner:
                covered = inner <= outer
                assert (direction.verdict, covered) not in [("yes", False), ("no", True)], (trial, direction)
                counts[direction.verdict] += 1
    assert counts["yes"] > 15 and counts["no"] > 40


# ------------------------------------------------------------------------- addresses, shapes and branches


def normal(name, **options):
    return ppl.sample(name, dist.Normal(0.0, 1.0), **options)


def verdicts(guide, model, *args):
    found = semantics.absolute_continuity(guide, model)(*args)
    return found.model_by_guide.verdict, found.guide_by_model.verdict


def test_a_missing_site():
    found = semantics.absolute_continuity(lambda: normal("x"), lambda: (normal("x"), normal("y")))()
    assert found.model_by_guide.verdict == found.guide_by_model.verdict == "no"
    assert "'y' (test_absolute_continuity.py:" in found.model_by_guide.findings[0].where
    assert "the guide has no such site" in found.model_by_guide.findings[0].what


def test_shapes_and_dtypes():
    vector = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([3]))  # noqa: E731
    mapped = lambda: jax.vmap(lambda _: normal("x"))(jnp.arange(3))  # noqa: E731
    looped = lambda: jax.lax.map(lambda _: normal("x"), jnp.arange(3))  # noqa: E731
    assert verdicts(vector, lambda: normal("x")) == ("no", "no")
    assert verdicts(lambda: ppl.sample("x", dist.Poisson(1.0)), lambda: normal("x")) == ("no", "no")
    for one in (mapped, looped):
        assert verdicts(one, one) == ("yes", "yes")
        assert verdicts(one, lambda: normal("x")) == ("no", "no")


def test_supports_that_depend_on_other_sites():
    def model(low):
        scale = ppl.sample("scale", dist.HalfNormal(1.0))
        ppl.sample("x", dist.Uniform(low, low + scale))

    def same(low):
        scale = ppl.sample("scale", dist.Exponential(1.0))
        ppl.sample("x", dist.Uniform(low, low + scale))

    def other(low):
        ppl.sample("scale", dist.Exponential(1.0))
        ppl.sample("x", dist.Uniform(low, low + 1.0))

    def everywhere(low):
        ppl.sample("scale", dist.Exponential(1.0))
        normal("x")

    assert verdicts(same, model, jnp.array(0.0)) == ("yes", "yes")
    assert verdicts(other, model, jnp.array(0.0)) == ("unknown", "unknown")
    assert verdicts(everywhere, model, jnp.array(0.0)) == ("yes", "no")


def test_values_carried_through_loops_are_not_the_same_in_two_programs():
    def walk(sign):
        def program():
            def step(x, _):
                return ppl.sample("x", dist.Uniform(sign * x, sign * x + 1.0)), None

            jax.lax.scan(step, 1.0, None, length=4)

        return program

    # At the first step the supports are [1, 2] and [-1, 0], later they depend on the draws.
    assert "yes" not in verdicts(walk(1.0), walk(-1.0))
    assert "yes" not in verdicts(walk(1.0), walk(1.0))


def branching(test, there, elsewhere):
    def program():
        k = ppl.sample("k", dist.Bernoulli(0.5))
        return jax.lax.cond(test(k), there, elsewhere)

    return program


def test_branches():
    here, nothing = (lambda: normal("x")), (lambda: 0.0)
    positive = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    one = branching(lambda k: k == 1, here, nothing)
    assert verdicts(one, one) == ("yes", "yes")
    assert verdicts(one, branching(lambda k: k == 0, here, nothing)) == ("unknown", "unknown")
    assert verdicts(one, branching(lambda k: k == 1, nothing, here)) == ("unknown", "unknown")
    assert verdicts(branching(lambda k: k == 1, positive, here), branching(lambda k: k == 1, here, here)) == (
        "unknown",  # no, if the branch is ever taken
        "yes",
    )
    assert verdicts(branching(lambda k: k > 5, positive, here), branching(lambda k: k > 5, here, here)) == (
        "yes",  # it never is
        "yes",
    )


def test_what_weighs_the_model():
    guide = lambda: normal("x")  # noqa: E731

    def weighed(weight):
        def model():
            ppl.factor(weight(normal("x")))

        return model

    assert verdicts(guide, weighed(lambda x: -x * x)) == ("yes", "yes")
    assert verdicts(guide, weighed(lambda x: jnp.where(x > 0, 0.0, -jnp.inf))) == ("yes", "unknown")
    assert verdicts(guide, weighed(lambda x: jnp.log(-jnp.exp(x) * 0.0))) == ("yes", "no")
    rejecting = weighed(lambda x: jnp.where(x > 0, 0.0, -jnp.inf))
    assert verdicts(rejecting, rejecting) == ("yes", "yes")


def test_what_is_observed():
    def model(d):
        def program():
            normal("x")
            ppl.observe("y", d, 2.0)

        return program

    guide = lambda: normal("x")  # noqa: E731
    assert verdicts(guide, model(dist.Normal(0.0, 1.0)))[1] == "yes"
    assert verdicts(guide, model(dist.Exponential(1.0)))[1] == "yes"
    assert verdicts(guide, model(dist.Beta(1.0, 1.0)))[1] == "no"


def test_while_loops_are_unknown():
    def program():
        jax.lax.while_loop(lambda x: x < 1.0, lambda x: x + ppl.sample("x", dist.Exponential(1.0)), 0.0)

    assert verdicts(program, program) == ("unknown", "unknown")


def test_reprs():
    found = semantics.absolute_continuity(
        lambda: ppl.sample("x", dist.Exponential(1.0)), lambda: normal("x")
    )()
    assert repr(found).startswith("model << guide: no\n  error: 'x' (test_absolute_continuity.py:")
    assert "guide &lt;&lt; model: yes" in found._repr_html_()


# ------------------------------------------------------------------------- a site's own proposal


PROPOSALS = {
    "wider": (dist.Exponential(1.0), dist.Gamma(2.0, 1.0), "yes"),
    "itself": (dist.Normal(0.0, 1.0).mask(False), dist.Normal(0.0, 1.0).mask(False), "yes"),
    "positive only": (dist.Normal(0.0, 1.0), dist.Exponential(1.0), "no"),
    "too short": (dist.Uniform(0.0, 2.0), dist.Uniform(0.0, 1.0), "no"),
    "an outcome is missing": (
        dist.Categorical(jnp.array([0.2, 0.3, 0.5])),
        dist.Categorical(jnp.array([0.5, 0.0, 0.5])),
        "no",
    ),
    "all outcomes": (dist.Categorical(jnp.array([0.5, 0.0, 0.5])), dist.Categorical(jnp.ones(3) / 3), "yes"),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_proposals(name):
    d, proposal, expected = PROPOSALS[name]
    findings = proposal_coverage(stage(lambda: ppl.sample("x", d, proposal=proposal)))
    assert [finding.severity for finding in findings] == ([] if expected == "yes" else ["error"])
    if expected == "no":  # importance sampling is then wrong: the evidence of the normalised program is not 1
        trial = ppl.weigh(lambda: ppl.sample("x", d, proposal=proposal))
        keys = jax.random.split(jax.random.key(0), 4000)
        weights = np.exp(jax.jit(jax.vmap(lambda key: ppl.seed(trial)(key)[1]))(keys))
        # The expectation is the mass that the proposal reaches, at most 0.7; one is out of reach for these draws.
        assert np.mean(weights) + 8 * np.std(weights) / np.sqrt(len(weights)) < 0.9


def test_a_proposal_in_a_branch_is_warned_of():
    def program():
        branch = lambda: ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Exponential(1.0))  # noqa: E731
        return jax.lax.cond(ppl.sample("k", dist.Bernoulli(0.5)) == 1, branch, lambda: 0.0)

    (finding,) = proposal_coverage(stage(program))
    assert finding.severity == "warning"


def test_a_computed_proposal_is_covered_where_it_is_positive_for_sure():
    def program(scale):
        x = normal("x")
        ppl.sample("y", dist.Bernoulli(0.5), proposal=dist.Bernoulli(jax.nn.sigmoid(x)))
        ppl.sample("z", dist.Exponential(1.0), proposal=dist.LogNormal(x, scale))

    assert proposal_coverage(stage(program, jnp.array(1.0))) == ()

    def doubtful(p):
        ppl.sample("y", dist.Bernoulli(0.5), proposal=dist.Bernoulli(p))

    (finding,) = proposal_coverage(stage(lambda: doubtful(jnp.clip(normal("x"), 0.0, 1.0))))
    assert finding.severity == "warning" and "may be" in finding.what
