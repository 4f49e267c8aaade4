"""What the language costs over hand-written JAX: densities, gradients, simulation, importance sampling, tracing.

Every comparison runs in one process, the two sides taking turns on the same work: the same densities at the same
values, the same number of draws from the same generator, the same things returned.

    python benchmarks/language.py                        # all parts
    python benchmarks/language.py --part density addresses
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from timing import compile_seconds, interleaved, ratio

from borelax import inference, ppl

ROWS, COLUMNS, STEPS = 1000, 25, 1000
HALF_LOG_TWO_PI = 0.5 * jnp.log(2 * jnp.pi)


# ------------------------------------------------------------------------- two programs, and the same by hand


def regression(xs, ys):
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    scale = ppl.sample("scale", dist.HalfNormal(1.0))
    slopes = ppl.sample("slopes", dist.Normal(mean, scale).expand([COLUMNS]))
    ppl.observe("ys", dist.Normal(xs @ slopes, 0.5), ys)
    return slopes


def normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale) - HALF_LOG_TWO_PI


def half_normal(x):
    return jnp.where(x >= 0, jnp.log(2.0) + normal(x, 0.0, 1.0), -jnp.inf)


def regression_density(choices, xs, ys):
    mean, scale, slopes = choices["mean"], choices["scale"], choices["slopes"]
    prior = normal(mean, 0.0, 1.0) + half_normal(scale) + normal(slopes, mean, scale).sum()
    return prior + normal(ys, xs @ slopes, 0.5).sum()


def draw_regression(key, xs, ys):
    keys = jax.random.split(key, 3)
    mean, scale = jax.random.normal(keys[0]), jnp.abs(jax.random.normal(keys[1]))
    slopes = mean + scale * jax.random.normal(keys[2], (COLUMNS,))
    return {"mean": mean, "scale": scale, "slopes": slopes}


def walk(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(0.9 * x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, None

    return jax.lax.scan(step, 0.0, ys)[0]


def walk_density(choices, ys):
    def step(carry, inputs):
        previous, total = carry
        x, y = inputs
        return (x, total + normal(x, 0.9 * previous, 1.0) + normal(y, x, 0.5)), None

    return jax.lax.scan(step, (0.0, 0.0), (choices["x"], ys))[0][1]


def draw_walk(key, ys):
    def step(x, key):
        x = 0.9 * x + jax.random.normal(key)
        return x, x

    return {"x": jax.lax.scan(step, 0.0, jax.random.split(key, len(ys)))[1]}


def simulate_by_hand(draw, density):
    def simulated(key, *args):
        choices = draw(key, *args)
        return choices, density(choices, *args)

    return simulated


PROGRAMS = {
    "regression": (regression, draw_regression, regression_density),
    "walk": (walk, draw_walk, walk_density),
}


def arguments(name: str):
    rng = np.random.default_rng(0)
    if name == "walk":
        return (jnp.asarray(rng.normal(size=STEPS), jnp.float32),)
    xs = rng.normal(size=(ROWS, COLUMNS)) / 5
    return jnp.asarray(xs, jnp.float32), jnp.asarray(rng.normal(size=ROWS), jnp.float32)


# ------------------------------------------------------------------------- the parts


def densities(repeats: int) -> None:
    """Log density and its gradient, at 64 points at a time."""
    for name, (program, draw, by_hand) in PROGRAMS.items():
        args = arguments(name)
        points = jax.vmap(lambda key: draw(key, *args))(jax.random.split(jax.random.key(0), 64))
        in_axes = (0, *(None for _ in args))
        for what, change in (("log density", lambda f: f), ("gradient", jax.value_and_grad)):
            sides = {"borelax": ppl.log_density(program), "hand": by_hand}
            sides = {side: jax.vmap(change(density), in_axes) for side, density in sides.items()}
            report(f"{what} of {name}", sides, [(points, *args)], repeats)


def simulation(repeats: int) -> None:
    """Forward runs that return all choices, and their density."""
    for name, (program, draw, density) in PROGRAMS.items():
        args = arguments(name)

        def traced(key, *args, program=program):
            trace = ppl.simulate(program)(key, *args)
            return trace.choices, trace.log_density

        sides = {"borelax": traced, "hand": simulate_by_hand(draw, density)}
        in_axes = (0, *(None for _ in args))
        sides = {side: jax.vmap(run, in_axes) for side, run in sides.items()}
        keys = [(jax.random.split(jax.random.key(i), 256), *args) for i in range(4)]
        report(f"simulate {name}", sides, keys, repeats)


def importance(repeats: int, sizes=(10_000, 100_000, 1_000_000)) -> None:
    """Importance sampling of the regression on ten rows."""
    xs, ys = (x[:10] for x in arguments("regression"))
    for n in sizes:

        def by_library(key, xs, ys, n=n):
            population = ppl.seed(inference.importance(regression, n))(key, xs, ys)
            return population.value, population.log_weight

        def by_hand(key, xs, ys, n=n):
            keys = jax.random.split(key, 3)
            mean, scale = jax.random.normal(keys[0], (n,)), jnp.abs(jax.random.normal(keys[1], (n,)))
            slopes = mean[:, None] + scale[:, None] * jax.random.normal(keys[2], (n, COLUMNS))
            return slopes, normal(ys, slopes @ xs.T, 0.5).sum(-1)

        keys = [(jax.random.key(i), xs, ys) for i in range(4)]
        report(f"importance {n}", {"borelax": by_library, "hand": by_hand}, keys, repeats)


def addresses(repeats: int) -> None:
    """Programs of many addresses: seconds to trace the density, and to compile it."""
    for count in (100, 500):

        def program(count=count):
            x = 0.0
            for i in range(count):
                x = ppl.sample(f"x{i}", dist.Normal(x, 1.0))

        def by_hand(choices, count=count):
            x, total = 0.0, 0.0
            for i in range(count):
                total = total + normal(choices[f"x{i}"], x, 1.0)
                x = choices[f"x{i}"]
            return total

        choices = {f"x{i}": jnp.array(0.5) for i in range(count)}
        for side, density in {"borelax": ppl.log_density(program), "hand": by_hand}.items():
            traced, compiled = [], []
            for _ in range(3):
                jax.clear_caches()
                start = time.perf_counter()
                lowered = jax.jit(density).trace(choices)
                traced.append(time.perf_counter() - start)
                lowered.lower().compile()
                compiled.append(time.perf_counter() - start)
            line = f"traced in {min(traced):.3f} s, traced and compiled in {min(compiled):.2f} s"
            print(f"{count} addresses, {side:8s}  {line}", flush=True)


def report(name: str, sides: dict, calls: list, repeats: int) -> None:
    compiled, seconds = {}, {side: [] for side in sides}
    for _ in range(3):
        for side, fun in sides.items():
            jax.clear_caches()
            spent, compiled[side] = compile_seconds(fun, *calls[0])
            seconds[side].append(spent)
    turn = {side: iter(range(10**9)) for side in sides}
    runs = {
        side: partial(lambda run, side: run(*calls[next(turn[side]) % len(calls)]), run, side)
        for side, run in compiled.items()
    }
    times = interleaved(runs, repeats)
    build = {side: float(np.median(spent)) for side, spent in seconds.items()}
    milliseconds = {side: np.median(spent) * 1e3 for side, spent in times.items()}
    print(
        f"{name:28s} run {ratio(times['borelax'], times['hand']):.2f}x ({milliseconds['borelax']:.2f} and "
        f"{milliseconds['hand']:.2f} ms)  compile {build['borelax'] / build['hand']:.2f}x "
        f"({build['borelax']:.2f} and {build['hand']:.2f} s)",
        flush=True,
    )


PARTS = {"density": densities, "simulation": simulation, "importance": importance, "addresses": addresses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=31)
    options = parser.parse_args()
    for part in options.part:
        PARTS[part](options.repeats)


if __name__ == "__main__":
    main()
