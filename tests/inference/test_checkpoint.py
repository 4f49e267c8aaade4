"""checkpoint: a run that is killed goes on to the draws that it would have had, and no other run's."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference import CheckpointError, Kernel, State
from borelax.inference.checkpoint import hashed, kept_scan

KEY = jax.random.key(0)


def parts(folder) -> list:
    return sorted(folder.glob("part-*.npz"))


# ------------------------------------------------------------------------------ a scan


class Interrupted(Exception):
    """What stops a step, or the writing of a file."""


@jax.jit
def add(carry, x):
    """Of several dtypes, one of which NumPy has no name for."""
    total = carry["total"] + x
    return {"total": total, "is_large": total > 2}, {"half": total.astype(jnp.bfloat16) / 2, "x": x}


def scan(folder, fails_at=None, about=None, xs=range(5), step=add, start=0.1):
    """The result of a scan of five steps, and which of them were run."""
    ran = []

    def noted(carry, x):
        if not isinstance(x, jax.core.Tracer):
            ran.append(int(x))
            if x == fails_at:
                raise Interrupted
        return step(carry, x)

    init = lambda: {"total": jnp.array(start), "is_large": jnp.array(False)}  # noqa: E731
    return kept_scan(folder, about or {"what": "a sum"}, {}, init, noted, [np.float32(x) for x in xs]), ran


def assert_same(one, other) -> None:
    """Bit by bit."""
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def test_it_is_the_scan(tmp_path):
    (carry, outs), ran = scan(tmp_path / "new" / "folder")
    assert ran == list(range(5)) and len(parts(tmp_path / "new" / "folder")) == 5
    assert carry["total"] == np.float32(10.1) and carry["is_large"].dtype == bool
    assert [float(out["x"]) for out in outs] == list(range(5)) and outs[0]["half"].dtype == jnp.bfloat16
    assert_same(outs[-1]["half"], jnp.bfloat16(carry["total"]) / 2)


@pytest.mark.parametrize("fails_at", [0, 3])
def test_after_a_step_that_fails_it_goes_on_from_there(tmp_path, fails_at):
    whole, _ = scan(tmp_path / "whole")
    with pytest.raises(Interrupted):
        scan(tmp_path / "parts", fails_at)
    resumed, ran = scan(tmp_path / "parts")
    assert ran == [0, *range(max(fails_at, 1), 5)]  # the first is run again, to compare
    assert_same(resumed, whole)
    again, ran = scan(tmp_path / "parts")
    assert ran == [0]
    assert_same(again, whole)


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    """What was being written when the run stopped is not read."""
    replace_file = os.replace

    def stop_at_the_third(source, target):
        if target.name == "part-00002.npz":
            raise Interrupted
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_third)
    with pytest.raises(Interrupted):
        scan(tmp_path)
    (unfinished,) = tmp_path.glob("*.tmp")
    unfinished.write_bytes(unfinished.read_bytes()[:100])
    monkeypatch.undo()
    (carry, _), ran = scan(tmp_path)
    assert ran == [0, 2, 3, 4] and carry["total"] == np.float32(10.1)


def test_a_folder_of_something_else_is_refused(tmp_path):
    scan(tmp_path / "sum")
    with pytest.raises(CheckpointError, match="another run: not the same what"):
        scan(tmp_path / "sum", about={"what": "a product"})
    with pytest.raises(CheckpointError, match="another run: not the same steps"):
        scan(tmp_path / "sum", xs=[0, 1, 2, 3, 5])
    with pytest.raises(CheckpointError, match="part-00000.npz has another result than the same step has now"):
        scan(tmp_path / "sum", start=0.2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("...")
    with pytest.raises(CheckpointError, match="is not empty, and no folder of checkpoints"):
        scan(tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").exists()


def late(literal=1.0, constant=(0.0, 0.0), in_a_branch=1.0):
    """Steps that are the same until the third, whatever their constants."""

    @jax.jit
    def step(carry, x):
        carry, out = add(carry, x)
        more = lambda: literal * in_a_branch + jnp.asarray(np.array(constant))[1]  # noqa: E731
        return carry | {"total": carry["total"] + jax.lax.cond(x > 2, more, lambda: 0.0)}, out

    return step


@pytest.mark.parametrize("other", [{"literal": 1 + 1e-6}, {"constant": (0.0, 1e-9)}, {"in_a_branch": 2.0}])
def test_a_program_that_differs_later_is_refused(tmp_path, other):
    scan(tmp_path, step=late())
    assert scan(tmp_path, step=late())[1] == [0]
    with pytest.raises(CheckpointError, match="another run: not the same program"):
        scan(tmp_path, step=late(**other))


def test_a_file_that_cannot_be_read_is_reported(tmp_path):
    scan(tmp_path)
    parts(tmp_path)[1].write_bytes(b"PK nothing")
    with pytest.raises(CheckpointError, match="part-00001.npz cannot be read: delete it"):
        scan(tmp_path)
    parts(tmp_path)[1].unlink()
    assert scan(tmp_path)[1] == list(range(5))


def test_keys_cannot_be_kept(tmp_path):
    with pytest.raises(CheckpointError, match="PRNG key"):
        kept_scan(tmp_path, {}, {}, lambda: KEY, lambda key, x: (key, x), [np.float32(0)])


def test_hashes_tell_arrays_apart():
    x = jnp.arange(3.0)
    assert hashed([x, KEY]) == hashed([np.arange(3, dtype=np.float32), jax.random.key(0)])
    others = [[x, jax.random.key(1)], [x + 1, KEY], [x.astype(int), KEY], (x, KEY), [x[None], KEY]]
    assert len({hashed(tree) for tree in ([x, KEY], *others)}) == 6


# ------------------------------------------------------------------------------ chains


def model(p):
    x = ppl.sample("x", dist.Bernoulli(p).expand([3]))
    ppl.factor(0.5 * x[0] * x[1])
    return x.sum()


GIBBS = inference.gibbs(model, ["x"])


def counting() -> Kernel:
    """A kernel that learns how many steps of each stage of the warmup it has seen, and in which order."""

    def adapt(memory, stage):
        place = jnp.stack([stage.in_window, stage.ends_window, stage.ends, jnp.array(True)])
        return memory * 1.01 + place

    return replace(GIBBS, init=lambda trace, p: State(trace, jnp.zeros(4)), step=_stay, adapt=adapt)


def _stay(state: State, p) -> State:
    ppl.sample("bit", dist.Bernoulli(p))
    return state


P = jnp.array(0.25)


@pytest.mark.parametrize(("num_samples", "num_warmup", "thin", "every"), [(7, 5, 2, 2), (4, 0, 1, 10)])
def test_the_draws_are_those_of_a_run_without_checkpoints(tmp_path, num_samples, num_warmup, thin, every):
    """To the last bit, as nothing is rounded here; in parts that do not divide draws or warmup, too."""
    options = (num_samples, num_warmup, 2, thin)
    plain = inference.mcmc(GIBBS, *options)(KEY, P)
    kept = inference.mcmc(GIBBS, *options, checkpoint=tmp_path / "a", every=every)(KEY, P)
    assert jax.tree.structure(kept) == jax.tree.structure(plain)
    np.testing.assert_array_equal(kept.choices["x"], plain.choices["x"])
    np.testing.assert_allclose(kept.log_density, plain.log_density, rtol=1e-6)
    np.testing.assert_array_equal(kept.state.trace.choices["x"], plain.choices["x"][:, -1])
    assert kept.started.shape == (2,) and isinstance(kept.value, jax.Array)
    learnt = [
        run(KEY, P).state.memory
        for run in (
            inference.mcmc(counting(), *options),
            inference.mcmc(counting(), *options, checkpoint=tmp_path / "b", every=every),
        )
    ]
    np.testing.assert_allclose(*learnt, rtol=1e-5)
    assert (num_warmup == 0) == np.all(learnt[0] == 0)


SCRIPT = """
import sys, jax, jax.numpy as jnp, numpyro.distributions as dist
from borelax import inference, ppl

def model(y, names):
    x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([len(names)]))
    ppl.observe("y", dist.Normal(x, jax.nn.softplus(0.5)), y)  # which holds a function, with its address

def run(folder):
    kernel = inference.elliptical_slice(model, ["x"])
    chains = inference.mcmc(kernel, 130, 20, 2, checkpoint=folder, every=1)
    return chains(jax.random.key(0), jnp.array([0.5, -1.0]), frozenset({"left", "right"}))

if __name__ == "__main__":
    run(sys.argv[1])
"""


def test_a_run_that_is_killed_goes_on_to_the_same_draws(tmp_path):
    """Killed at once, in the midst of many checkpoints; the process that goes on is another."""
    script, killed, whole = tmp_path / "run.py", tmp_path / "killed", tmp_path / "whole"
    script.write_text(SCRIPT)
    child = subprocess.Popen([sys.executable, script, killed], env=os.environ | {"PYTHONHASHSEED": "7"})
    while len(parts(killed)) < 5:
        assert child.poll() is None, "it ended before it had five checkpoints"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = {file: file.stat().st_mtime_ns for file in parts(killed)}
    assert 5 <= len(done) < 150
    run = runpy.run_path(str(script))["run"]
    assert_same(run(killed), run(whole))
    assert all(file.stat().st_mtime_ns == then for file, then in done.items()) and len(parts(killed)) == 150


def test_another_run_is_refused(tmp_path):
    chains = lambda kernel, **options: inference.mcmc(kernel, 4, 2, 2, checkpoint=tmp_path, **options)  # noqa: E731
    right = chains(GIBBS)
    right(KEY, P)
    for run, args, what in (
        (right, (jax.random.key(1), P), "not the same key"),
        (right, (KEY, P + 0.5), "not the same arguments"),
        (chains(GIBBS, every=3), (KEY, P), "not the same options"),
        (chains(GIBBS, progress=True), (KEY, P), "not the same progress"),
        (chains(inference.gibbs(lambda p: model(1 - p), ["x"])), (KEY, P), "not the same program"),
        (right, (KEY, 0.25), "not the same static arguments"),
    ):
        with pytest.raises(CheckpointError, match=what):
            run(*args)


def test_it_cannot_be_compiled(tmp_path):
    run = inference.mcmc(GIBBS, 4, 2, 2, checkpoint=tmp_path)
    with pytest.raises(ppl.UnsupportedError, match="outside jit and vmap"):
        jax.jit(run)(KEY, P)
    with pytest.raises(ValueError, match="every is a positive integer"):
        inference.mcmc(GIBBS, checkpoint=tmp_path, every=0)
