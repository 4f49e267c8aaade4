"""A bootstrap filter: borelax against cuthbert and particles.

The model, the data and the rule of resampling are those of ``benchmarks/particle_filter.py``. All run in one process,
taking turns; in brackets, how many times as fast borelax is. Eight filters side by side are under ``vmap``, which
particles does not have.

    python benchmarks/peers/particle_filters.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import particles
from cuthbert import filter as cuthbert_run
from cuthbert.smc import particle_filter as cuthbert_filter
from cuthbertlib.resampling import adaptive, systematic
from particles.state_space_models import Bootstrap, StochVol

sys.path.insert(0, str(Path(__file__).parent.parent))
from particle_filter import MEAN, NOISE, PERSISTENCE, STEPS, borelax_filter, data, lean
from timing import interleaved, ratio

START_NOISE = NOISE / np.sqrt(1 - PERSISTENCE**2)


def by_borelax(n: int) -> Callable:
    """``(key, ys) -> log evidence``."""
    run = borelax_filter(n, lean)
    return lambda key, ys: run(key, ys)[0]


def by_cuthbert(n: int) -> Callable:
    """``(key, ys) -> log evidence``."""

    def start(key):
        return MEAN + START_NOISE * jax.random.normal(key)

    def move(key, x, inputs):
        # The first observation weighs what was drawn at the start.
        moved = MEAN + PERSISTENCE * (x - MEAN) + NOISE * jax.random.normal(key)
        return jnp.where(inputs["step"] > 0, moved, x)

    def weigh(before, x, inputs):
        return lean(x, inputs["y"])

    resample = adaptive.ess_decorator(systematic.resampling, 0.5)
    model = cuthbert_filter.build_filter(start, move, weigh, n, resample)

    def filtered(key, ys):
        inputs = {"y": ys, "step": jnp.arange(len(ys))}
        states = cuthbert_run(model, inputs, model.init_prepare(key=key), key=key)
        return states.log_normalizing_constant[-1]

    return filtered


def by_particles(n: int, ys: np.ndarray) -> Callable:
    """``() -> log evidence``."""
    model = Bootstrap(ssm=StochVol(mu=MEAN, rho=PERSISTENCE, sigma=NOISE), data=list(ys))

    def filtered() -> float:
        run = particles.SMC(fk=model, N=n, resampling="systematic", ESSrmin=0.5)
        run.run()
        return run.logLt

    return filtered


def compare(n: int, filters: int, ys: jax.Array, repeats: int) -> None:
    keys = iter(jax.random.split(jax.random.key(0), (2 * (repeats + 1), filters)))
    evidence: dict[str, list[float]] = {"borelax": [], "cuthbert": []}

    def by_jax(name: str, make: Callable) -> Callable:
        run = jax.jit(jax.vmap(make(n), (0, None)) if filters > 1 else make(n))

        def timed():
            key = next(keys)
            found = jax.block_until_ready(run(key if filters > 1 else key[0], ys))
            evidence[name].append(float(np.mean(found)))

        return timed

    runs = {"borelax": by_jax("borelax", by_borelax), "cuthbert": by_jax("cuthbert", by_cuthbert)}
    if filters == 1:
        run, evidence["particles"] = by_particles(n, np.asarray(ys)), []
        runs["particles"] = lambda: evidence["particles"].append(run())
    times = interleaved(runs, repeats)
    for name in runs:
        speed = filters * n * STEPS / np.median(times[name]) / 1e6
        print(
            f"{filters} x n={n:6d}  {name:9s} {speed:6.1f} M particle-steps/s "
            f"(borelax {ratio(times[name], times['borelax']):.1f}x)  log evidence {np.mean(evidence[name]):.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--particles", type=int, nargs="+", default=[256, 1_024, 10_000])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    for filters in (1, 8):
        for n in options.particles:
            compare(n, filters, data(), options.repeats)


if __name__ == "__main__":
    main()
