"""A bootstrap filter: borelax against the best hand-written JAX scan.

Stochastic volatility, 500 steps, systematic resampling when the effective sample size is below half. Both run in
one process, taking turns, with the same density formula; ratios below 1 mean that borelax is faster.

    python benchmarks/particle_filter.py
"""

from __future__ import annotations

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from timing import compile_seconds, interleaved, ratio

from borelax import inference, ppl

MEAN, PERSISTENCE, NOISE, STEPS = -1.0, 0.95, 0.3, 500


def lean(x, y):
    """The log density of a return y at log volatility x, simplified by hand."""
    return -0.5 * (y * y * jnp.exp(-x) + x + jnp.log(2 * jnp.pi))


def library(x, y):
    """The same by numpyro's normal distribution, as most people would write it."""
    return dist.Normal(0.0, jnp.exp(x / 2)).log_prob(y)


def volatility(log_density):
    """The program: log volatility is an autoregression, returns have that scale."""

    def program(ys):
        x = ppl.sample("start", dist.Normal(MEAN, NOISE / jnp.sqrt(1 - PERSISTENCE**2)))
        ppl.factor(log_density(x, ys[0]))

        def step(x, y):
            x = ppl.sample("x", dist.Normal(MEAN + PERSISTENCE * (x - MEAN), NOISE))
            ppl.factor(log_density(x, y))
            return x, None

        return jax.lax.scan(step, x, ys[1:])[0]

    return program


def borelax_filter(n: int, log_density):
    run = ppl.seed(inference.smc(volatility(log_density), n))

    def filtered(key, ys):
        population = run(key, ys)
        return population.log_evidence, population.value

    return filtered


def hand_written_filter(n: int, log_density):
    def resample(key, weight):
        cumulated = jnp.cumsum(weight)
        ends = jnp.ceil(n * cumulated / cumulated[-1] - jax.random.uniform(key)).astype(jnp.int32)
        ends = jnp.clip(ends, 0, n)
        return jnp.clip(jnp.cumsum(jnp.zeros(n + 1, jnp.int32).at[ends].add(1))[:n], 0, n - 1)

    def filtered(key, ys):
        first, key = jax.random.split(key)
        x = MEAN + NOISE / jnp.sqrt(1 - PERSISTENCE**2) * jax.random.normal(first, (n,))
        log_weight, log_evidence = log_density(x, ys[0]), 0.0

        def step(carry, inputs):
            x, log_weight, log_evidence = carry
            key, y = inputs
            resample_key, draw_key = jax.random.split(key)
            top = jnp.max(log_weight)
            weight = jnp.exp(log_weight - top)
            total = jnp.sum(weight)

            def resampled():
                ancestors = resample(resample_key, weight)
                return x[ancestors], jnp.zeros(n), log_evidence + top + jnp.log(total / n)

            few = total**2 < 0.5 * n * jnp.sum(weight**2)
            x, log_weight, log_evidence = jax.lax.cond(few, resampled, lambda: (x, log_weight, log_evidence))
            x = MEAN + PERSISTENCE * (x - MEAN) + NOISE * jax.random.normal(draw_key, (n,))
            return (x, log_weight + log_density(x, y), log_evidence), None

        inputs = (jax.random.split(key, len(ys) - 1), ys[1:])
        (x, log_weight, log_evidence), _ = jax.lax.scan(step, (x, log_weight, log_evidence), inputs)
        return log_evidence + jax.nn.logsumexp(log_weight) - jnp.log(n), x

    return filtered


def data() -> jax.Array:
    rng = np.random.default_rng(1)
    x, ys = MEAN, []
    for _ in range(STEPS):
        x = MEAN + PERSISTENCE * (x - MEAN) + NOISE * rng.normal()
        ys.append(np.exp(x / 2) * rng.normal())
    return jnp.asarray(ys, jnp.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--particles", type=int, nargs="+", default=[256, 1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    ys = data()
    for maker in (borelax_filter, hand_written_filter):  # what is compiled once for all is not counted
        compile_seconds(maker(8, lean), jax.random.key(0), ys)
    for log_density in (lean, library):
        for n in options.particles:
            print(
                f"{log_density.__name__:8s} n={n:7d}  {compare(n, log_density, ys, options.repeats)}",
                flush=True,
            )


def compare(n: int, log_density, ys, repeats: int) -> str:
    makers = {"borelax": borelax_filter, "hand": hand_written_filter}
    keys = jax.random.split(jax.random.key(0), 1000)
    seconds, compiled = {name: [] for name in makers}, {}
    for _ in range(3):
        for name, make in makers.items():
            jax.clear_caches()
            spent, compiled[name] = compile_seconds(make(n, log_density), keys[0], ys)
            seconds[name].append(spent)
    build = {name: float(np.median(spent)) for name, spent in seconds.items()}
    key = iter(np.repeat(np.arange(1000), 2))  # both filters get the same keys
    runs = {name: partial(lambda run: run(keys[next(key)], ys), run) for name, run in compiled.items()}
    times = interleaved(runs, repeats)
    speed = {name: n * STEPS / np.median(t) / 1e6 for name, t in times.items()}
    evidence = {name: np.mean([float(run(k, ys)[0]) for k in keys[:8]]) for name, run in compiled.items()}
    return (
        f"run {ratio(times['borelax'], times['hand']):.2f}x ({speed['borelax']:.0f} and {speed['hand']:.0f} M "
        f"particle-steps/s)  compile {build['borelax'] / build['hand']:.2f}x ({build['borelax']:.2f} and "
        f"{build['hand']:.2f} s)  log evidence {evidence['borelax']:.2f} and {evidence['hand']:.2f}"
    )


if __name__ == "__main__":
    main()
