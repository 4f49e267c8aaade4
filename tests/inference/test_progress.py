"""Progress: what is shown of a run while it runs, in jit, in vmap and in turns; the draws are the same."""

from __future__ import annotations

import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from borelax import inference, ppl
from borelax.inference.progress import Progress

KEY = jax.random.key(0)


def lines(stream: io.StringIO) -> list[str]:
    return [line.strip() for line in re.split(r"[\r\n]+", stream.getvalue()) if line.strip()]


def numbers(stream: io.StringIO) -> list[int]:
    return [int(re.search(r"\] (\d+)/", line)[1]) for line in lines(stream)]


def ticking(total: int, num_warmup: int = 0, seconds: float = 1.0) -> Progress:
    """A bar whose clock goes on by so much each time that it is read."""
    now = iter(np.arange(10_000) * seconds)
    return Progress(total, num_warmup, io.StringIO(), lambda: float(next(now)))


def test_the_line_says_how_far_it_is_and_how_long_it_takes():
    bar = ticking(200, 100, seconds=30.0)
    for number in (1, 51, 101, 200):
        bar.show(number)
    assert lines(bar.stream) == [
        "warmup [                        ] 1/200  0 s, 0 s to go",
        "warmup [######                  ] 51/200  30 s, 1:29 to go",
        "draws  [############            ] 101/200  1:00, 59 s to go",
        "draws  [########################] 200/200  1:30",
    ]
    assert bar.stream.getvalue().endswith("\n") and bar.stream.getvalue().count("\n") == 1


def test_it_is_shown_now_and_then():
    """Fifty times in a loop at most, and not more often than ten times in a second; the end is always shown."""
    slow, fast = ticking(10_000, seconds=1.0), ticking(10_000, seconds=0.001)
    for bar in (slow, fast):
        jax.jit(lambda bar=bar: lax.fori_loop(0, 10_000, lambda i, _: bar(i + 1), None))()
        jax.effects_barrier()
    assert numbers(slow.stream) == [1, *range(200, 10_001, 200)]
    assert numbers(fast.stream) == [1, 10_000]


def test_under_vmap_there_is_one_bar_and_the_next_run_has_the_next():
    bar = ticking(3)

    @jax.jit
    @jax.vmap
    def run(x):
        return lax.fori_loop(0, 3, lambda i, x: (bar(i + 1), x + i)[1], x)

    for _ in range(2):
        np.testing.assert_array_equal(run(jnp.arange(4)), jnp.arange(4) + 3)
        jax.effects_barrier()
    assert numbers(bar.stream) == [1, 2, 3] * 2
    assert "3/3  2 s" in lines(bar.stream)[-1]  # of its own run


def model(p):
    return ppl.sample("x", dist.Bernoulli(p))


def _redraw(state: inference.State, p) -> inference.State:
    return inference.State(ppl.trace(model)(p))


def test_chains_say_how_far_they_are(capsys):
    kernel = inference.Kernel(model, lambda trace, p: inference.State(trace), _redraw)
    keys, p = jax.random.split(KEY, 3), jnp.array(0.5)
    silent, shown = (inference.mcmc(kernel, 5, 10, 2, thin=2, progress=shown) for shown in (False, True))
    draws = shown(KEY, p)
    printed = capsys.readouterr().err
    assert "20/20" in printed and "warmup" in printed
    np.testing.assert_array_equal(draws.value, silent(KEY, p).value)
    assert capsys.readouterr().err == ""
    mapped = jax.jit(jax.vmap(shown, in_axes=(0, None)))(keys, p)
    jax.effects_barrier()
    assert capsys.readouterr().err.count("20/20") == 1
    np.testing.assert_array_equal(mapped.value[1], silent(keys[1], p).value)
