"""The genealogy of a run is that of its values, whatever the order in which its suspensions come."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference.particles.genealogy import Genealogy, uncrossed

N, YS = 20, np.sin(np.arange(6)).astype(np.float32)


def meandering(ys):
    """Suspensions before a loop, within its steps, in some of them only, and at their ends; backwards."""
    start = ppl.sample("start", dist.Normal(0.0, 1.0))
    ppl.factor(start)

    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.25), y)
        jax.lax.cond(y > 0, detour, lambda: None)
        z = ppl.sample("z", dist.Normal(x, 1.0))
        ppl.observe("yz", dist.Normal(z, 0.5), y)
        return x, (x, z)

    return start, jax.lax.scan(step, start, ys, reverse=True)[1]


def detour():
    ppl.factor(ppl.sample("there", dist.Normal(0.0, 1.0)))
    ppl.factor(ppl.sample("back", dist.Normal(0.0, 1.0)))


@pytest.fixture(scope="module")
def run():
    trace = jax.jit(ppl.simulate(inference.smc(meandering, N)))(jax.random.key(0), YS)
    return trace, inference.genealogy(trace)


def times():
    """When each step suspends after x, and at its end, and how often there is a suspension at all."""
    after_x, at_end, time = np.zeros(6, int), np.zeros(6, int), 1
    for t in reversed(range(6)):
        after_x[t], at_end[t] = time, time + 2 + (YS[t] > 0)
        time = at_end[t] + 1
    return after_x, at_end, time


def test_values_are_those_of_the_lineages(run):
    trace, found = run
    after_x, at_end, total = times()
    slots = found.lineages()
    assert found.ancestors.shape == (total, N) and slots.shape == (total + 1, N)
    start, (x, z) = trace.value.value
    np.testing.assert_array_equal(trace.choices["start"][slots[0]], start)
    for t in range(6):
        np.testing.assert_array_equal(trace.choices["x"][t][slots[after_x[t]]], x[:, t])
        np.testing.assert_array_equal(trace.choices["z"][t][slots[at_end[t]]], z[:, t])


def test_origins_are_those_of_the_population(run):
    trace, found = run
    np.testing.assert_array_equal(found.lineages()[0], trace.value.origin)
    np.testing.assert_array_equal(found.lineages([3, 5]), found.lineages()[:, [3, 5]])
    assert found.resampled.sum() == trace.value.generations
    assert found.survivors[0] == len(np.unique(trace.value.origin)) and found.survivors[-1] == N


def test_effective_sample_sizes_are_those_that_were_met(run):
    trace, found = run
    assert np.all(found.ess[found.resampled] < N / 2)
    assert np.all(found.ess[:-1][~found.resampled[:-1]] >= N / 2)
    np.testing.assert_allclose(found.ess[-1], trace.value.ess, rtol=1e-4)  # the last changes nothing
    weight = np.exp(np.asarray(trace.choices["start"], np.float64))
    np.testing.assert_allclose(found.ess[0], weight.sum() ** 2 / (weight**2).sum(), rtol=1e-4)


def test_weights_are_those_before_resampling(run):
    trace, found = run
    np.testing.assert_allclose(found.log_weight[0], trace.choices["start"], rtol=1e-5)
    np.testing.assert_array_equal(found.log_weight[-1], trace.value.log_weight)
    weight = np.exp(found.log_weight - found.log_weight.max(1, keepdims=True))
    np.testing.assert_allclose(found.ess, weight.sum(1) ** 2 / (weight**2).sum(1), rtol=1e-3)


def test_a_past_that_is_taken_over():
    """Of conditional SMC with ancestor sampling, whose population turns before it is resampled."""

    def walk(ys):
        def step(x, y):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.observe("y", dist.Normal(x, 0.5), y)
            return x, x

        return jax.lax.scan(step, 0.0, ys)[1]

    conditional = inference.conditional_smc(walk, 30, ancestor_sampling=True)
    trace = jax.jit(ppl.simulate(conditional))(jax.random.key(0), {"x": jnp.zeros(6)}, YS)
    slots = inference.genealogy(trace).lineages()
    assert np.any(trace.choices["resample"]["0 ancestor"] != 0)
    x = np.where(trace.choices["x"].present, trace.choices["x"].value, 0.0)  # the retained one is not drawn
    for t in range(6):
        np.testing.assert_array_equal(x[t][slots[t]], trace.value.value[:, t])


def test_an_inner_run_is_found_by_its_scope():
    def outer():
        with ppl.scope("a"), ppl.scope("b"):
            inference.smc(inner, 4, ess_threshold=2.0)()
        return jnp.array(0)

    trace = ppl.simulate(outer)(jax.random.key(0))
    assert inference.genealogy(trace, "a/b").ancestors.shape == (1, 4)
    with pytest.raises(ppl.AddressError, match="no resampling was recorded in this trace.*scope"):
        inference.genealogy(trace)
    with pytest.raises(ppl.AddressError, match="under 'a/c'"):
        inference.genealogy(trace, "a/c")


def inner():
    x = ppl.sample("x", dist.Bernoulli(0.5))
    ppl.factor(0.5 * x)
    return x + ppl.sample("y", dist.Bernoulli(0.5))


def test_many_runs_are_refused():
    traces = jax.vmap(ppl.simulate(inference.smc(inner, 4)))(jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ppl.ChoiceError, match=r"numbered \[0, 0, 0\]; of many runs pick one"):
        inference.genealogy(traces)
    assert inference.genealogy(jax.tree.map(lambda x: x[0], traces)).size == 4


BY_HAND = Genealogy(
    np.array([[1, 1, 2, 2], [0, 1, 2, 3], [1, 1, 0, 1]]),
    np.array([1.5, 4.0, 2.0]),
    np.array([True, False, True]),
    np.zeros((3, 4)),
    np.arange(3),
)


def test_by_hand():
    assert BY_HAND.lineages(2)[:, 0].tolist() == [1, 0, 0, 2]
    assert BY_HAND.survivors.tolist() == [1, 2, 2, 4]
    assert BY_HAND.common_ancestor == 0
    assert replace(BY_HAND, ancestors=BY_HAND.ancestors[:2]).common_ancestor is None
    assert repr(BY_HAND) == (
        "Genealogy of 4 over 3 suspensions: resampled 2 times, least ESS 1.5 at 0\n"
        "  1 of the first 4 have descendants at the end; one ancestor of all at time 0"
    )
    with pytest.raises(IndexError, match="from 0 to 3"):
        BY_HAND.lineages(4)


def test_lineages_do_not_cross():
    ancestors = np.random.default_rng(0).integers(0, 30, (10, 30))
    rows = uncrossed(ancestors)
    for t, step in enumerate(ancestors):
        assert sorted(rows[t + 1]) == list(range(30))
        from_top = np.argsort(rows[t + 1])
        assert np.all(np.diff(rows[t][step][from_top]) >= 0)


def test_the_figure_shows_the_effective_sample_sizes_and_all_lineages():
    above, below = BY_HAND.plot().axes
    line, marks = above.lines
    assert line.get_ydata().tolist() == [1.5, 4.0, 2.0]
    assert marks.get_xdata().tolist() == [0, 2] and marks.get_ydata().tolist() == [1.5, 2.0]
    dead, alive = (collection.get_segments() for collection in below.collections)
    assert len(dead) + len(alive) == 12
    assert len(alive) == BY_HAND.survivors[1:].sum()
