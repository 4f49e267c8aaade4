"""repeated: the runs are those of the algorithm, kept and compiled once; what is said of weights that are uneven."""

from __future__ import annotations

import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference import CheckpointError, Runs
from borelax.ppl.population import DegenerateWarning

KEY = jax.random.key(0)
YS = jnp.array([0.5, 1.0, -0.5])


def walk(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.observe("y", dist.Normal(x, 1.0), y)
        return x, x

    return jax.lax.scan(step, 0.0, ys)[1]


SMC = inference.smc(walk, 8, ess_threshold=2.0)
WEIGHED = inference.importance(walk, 8)
RUN = inference.repeated(WEIGHED, 5)
KEYS = jax.vmap(lambda number: jax.random.fold_in(KEY, number))(jnp.arange(5))


@jax.jit
def particles(keys):
    return jax.vmap(ppl.seed(SMC), (0, None))(keys, YS)


# ------------------------------------------------------------------------------ how they are run


@pytest.mark.parametrize("at_once", [1, 2])
def test_they_are_runs_of_the_algorithm(at_once):
    """Whatever their number side by side, of which five is no multiple."""
    runs = inference.repeated(SMC, 5, at_once)(KEY, YS)
    right = particles(KEYS)
    np.testing.assert_allclose(runs.population.value, right.value.reshape(40, 3), rtol=1e-5)
    np.testing.assert_allclose(runs.population.log_weight, right.log_weight.reshape(40), rtol=1e-5)
    np.testing.assert_array_equal(runs.population.origin, np.repeat(np.arange(5), 8))
    np.testing.assert_allclose(runs.log_evidence, right.log_evidence, rtol=1e-5)
    np.testing.assert_allclose(runs.ess, right.ess, rtol=1e-5)
    assert runs.population.initial_size == 5 and np.all(runs.died == -1) and runs.population.size == 40


def test_of_one_run_it_is_that_run():
    one = jax.tree.map(lambda x: x[:1], particles(KEYS))
    pooled = inference.pool(one)
    np.testing.assert_array_equal(pooled.origin, one.origin[0])
    assert pooled.generations == 3 - 1 == one.generations[0] and pooled.size == 8
    assert inference.repeated(WEIGHED, 1, at_once=4)(KEY, YS).population.initial_size == 8


def test_it_is_compiled_once_for_data_of_one_shape():
    traced = []

    def program(ys, kind):
        traced.append(kind)
        return walk(ys)

    run = inference.repeated(inference.importance(program, 4), 3)
    first = run(KEY, YS, 1)
    once = len(traced)
    second = run(jax.random.key(1), YS + 1, 1)
    assert len(traced) == once and not np.any(first.population.value == second.population.value)
    run(KEY, YS, 1.0)
    assert len(traced) == 2 * once


def test_it_can_be_jitted_and_mapped():
    keys = jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(RUN, (0, None)))(keys, YS)
    np.testing.assert_allclose(mapped.log_evidence[1], RUN(keys[1], YS).log_evidence, rtol=1e-5)
    assert mapped.population.log_weight.shape == (3, 40)
    assert repr(mapped) == "5 runs of 8 members, (3,) times"
    with pytest.raises(ValueError, match=r"several sets of runs.*\(3, 5\): pick one"):
        _ = mapped.warnings
    with pytest.raises(ValueError, match=r"several sets of runs.*\(3, 5\): pick one"):
        _ = mapped.khat


def test_it_says_how_far_it_is(capsys):
    runs = inference.repeated(WEIGHED, 5, 2, progress=True)(KEY, YS)
    assert "runs   [########################] 5/5" in capsys.readouterr().err
    np.testing.assert_allclose(runs.log_evidence, RUN(KEY, YS).log_evidence, rtol=1e-5)


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="num_runs is a positive integer, not 0"):
        inference.repeated(WEIGHED, 0)
    with pytest.raises(ValueError, match="at_once is a positive integer, not 2.5"):
        inference.repeated(WEIGHED, 5, 2.5)
    with pytest.raises(TypeError, match="returns a Population.*this one returns an array"):
        inference.repeated(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 3)(KEY)
    population = RUN(KEY, YS).population
    with pytest.raises(ValueError, match=r"log weights \[run, member\]; these have the shape \(40,\)"):
        inference.pool(population)
    with pytest.raises(TypeError, match="takes a batch of populations, not list"):
        inference.pool([population])


# ------------------------------------------------------------------------------ checkpoints


def kept(folder, num_runs=5, key=KEY, ys=YS) -> Runs:
    return inference.repeated(WEIGHED, num_runs, 2, checkpoint=folder)(key, ys)


def test_runs_that_are_stopped_go_on_to_the_same_end(tmp_path, monkeypatch):
    whole = kept(tmp_path / "whole")
    replace_file = os.replace

    def stop_at_the_last(source, target):
        if target.name == "part-00002.npz":
            raise KeyboardInterrupt
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "parts")
    monkeypatch.undo()
    resumed, plain = kept(tmp_path / "parts"), RUN(KEY, YS)
    assert len(list((tmp_path / "parts").glob("part-*.npz"))) == 3
    assert jax.tree.structure(resumed) == jax.tree.structure(whole) == jax.tree.structure(plain)
    for x, y, z in zip(*map(jax.tree.leaves, (resumed, whole, plain))):
        assert isinstance(x, jax.Array) and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        np.testing.assert_allclose(x, z, rtol=1e-5)


def test_the_folder_is_of_one_call(tmp_path):
    kept(tmp_path)
    for options, what in (
        ({"key": jax.random.key(1)}, "not the same key"),
        ({"ys": YS + 1}, "not the same arguments"),
        ({"num_runs": 6}, "not the same options"),
    ):
        with pytest.raises(CheckpointError, match=what):
            kept(tmp_path, **options)
    with pytest.raises(ppl.UnsupportedError, match="outside jit and vmap"):
        jax.jit(lambda key: kept(tmp_path, key=key))(KEY)


# ------------------------------------------------------------------------------ what is said of them


def test_runs_that_die_are_reported_and_count():
    def program(p):
        x = ppl.sample("x", dist.Bernoulli(p))
        ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf), "only one")
        return x

    run = inference.repeated(inference.importance(program, 1), 8)
    with pytest.warns(
        DegenerateWarning, match=r"No member has weight in \d of 8 runs after factor 'only one'"
    ):
        runs = run(KEY, jnp.array(0.5))
    alive = np.asarray(runs.log_evidence) == 0
    assert 0 < alive.sum() < 8 and np.all((runs.died == -1) == alive) and runs.population.died == -1
    assert np.exp(runs.population.log_evidence) == pytest.approx(alive.mean())
    assert "died after" in repr(runs) and "'only one' (test_repeated.py" in repr(runs)
    with pytest.warns(DegenerateWarning, match="in 8 of 8 runs"):
        runs = run(KEY, jnp.array(0.0))
    assert runs.population.died == 0 and len(runs.warnings) == 1 and np.isnan(runs.khat)
    assert repr(runs).startswith("8 runs of 1 member\n")


def of(log_weight) -> Runs:
    """Runs with these log weights ``[run, member]``."""
    log_weight = jnp.asarray(log_weight, jnp.float32)
    batch = jax.vmap(lambda row: replace(ONE, value=row, log_weight=row))(log_weight)
    return Runs(inference.pool(batch), jax.nn.logsumexp(log_weight, 1) - np.log(log_weight.shape[1]), *REST)


ONE = ppl.seed(inference.importance(lambda: 0.0, 1))(KEY)
REST = (np.ones(4), -np.ones(4, np.int32))
NOISE = np.random.default_rng(0).normal(size=(4, 100))
PLACES = np.random.default_rng(0).permutation((np.arange(400) + 0.5) / 400)
SAID = {
    "even": (NOISE, ()),
    "one run has most": (0.1 * NOISE + 5 * np.eye(4)[:, :1], ("One run has 98% of the evidence of 4",)),
    "one member has most": (
        np.concatenate([0.1 * NOISE, np.full((4, 1), 8.0)], 1),
        ("404 members are worth only 4.3 of equal weight",),
    ),
    "a heavy tail": (-0.75 * np.log(PLACES.reshape(4, 100)), (r"k-hat 0.7\d, above 0.62",)),
    "not a number": (np.full((4, 3), np.nan), ("NaN or infinite in 4 of 4 runs",)),
}


@pytest.mark.parametrize(("log_weight", "matches"), SAID.values(), ids=SAID)
def test_what_is_wrong_is_said_in_words(log_weight, matches):
    found = of(log_weight).warnings
    assert len(found) == len(matches), found
    for warning, match in zip(found, matches):
        with pytest.raises(AssertionError, match=match):
            raise AssertionError(warning)


def test_runs_show_themselves():
    text = repr(of(NOISE))
    assert "4 runs of 100 members: log evidence 0.4" in text and "k-hat" in text and "WARNING" not in text
    assert len(text.splitlines()) == 6 and "<table>" in of(NOISE)._repr_html_()
