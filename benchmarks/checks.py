"""The library's own checks: bugs that they catch, and false alarms that they raise on what is right.

python benchmarks/checks.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from borelax import inference, ppl
from borelax.semantics import Budget
from borelax.semantics.budget import Outcome, batches
from borelax.semantics.same_law import bet
from borelax.semantics.same_mean import compare_means, compare_measures

# In place of this folder, in which `checks` would be this file.
sys.path[0] = str(Path(__file__).parents[1] / "tests")


def normal_walk(ys):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.observe("y", dist.Normal(x, 0.5), y)
        return x, x

    return jax.lax.scan(step, 0.0, ys)[0]


def moved_by_mh():
    """A skewed target, and a step of a random walk."""

    def target():
        return ppl.sample("x", dist.Gamma(2.0, 1.0))

    nearby = lambda choices: ppl.sample("x", dist.LogNormal(jnp.log(choices["x"]), 0.7))  # noqa: E731
    kernel = inference.mh(target, nearby)
    trace = ppl.trace(target)()
    return trace.choices, kernel(kernel.init(trace)).trace.choices


def smc_against_its_target():
    ys = jnp.array([0.5, 1.0, 2.0])
    with ppl.scope("target"):
        exact = inference.importance(normal_walk, 16)(ys)
    with ppl.scope("smc"):
        found = inference.smc(normal_walk, 8)(ys)
    return exact.value, exact.log_weight, found.value, found.log_weight


def gradient_by_the_score():
    """Estimates of the gradient of a mean, by the score of an exponential draw: skewed, with a long tail."""
    objective = lambda rate: ppl.sample("x", dist.Exponential(rate), grad="score") ** 2  # noqa: E731
    return -4.0, inference.expectation_grad(objective)(jnp.array(1.0))


CORRECT: dict[str, tuple[Callable, Callable[[Iterator, Budget], Outcome]]] = {
    "a kernel and its target": (moved_by_mh, bet),
    "a population and its target": (smc_against_its_target, compare_measures),
    "a gradient and its value": (gradient_by_the_score, compare_means),
}


def false_alarms(runs: int, budget: Budget) -> None:
    print(f"\nFalse alarms in {runs} checks of what is right, {budget.draws} draws each")
    print("  what is compared               at 1e-6   at 0.05 (expected at most)   ms per check")
    for name, (program, test) in CORRECT.items():
        stream = batches(program, (), budget)
        next(stream)
        start = time.perf_counter()
        p_values = [test(stream, budget).p_value for _ in range(runs // len(CORRECT) + 1)]
        milliseconds = (time.perf_counter() - start) / len(p_values) * 1e3
        strict, loose = (sum(p <= rate for p in p_values) for rate in (1e-6, 0.05))
        print(f"  {name:30} {strict:7}   {loose:7} ({0.05 * len(p_values):.0f}){milliseconds:27.1f}")


def mutants() -> None:
    from checks.registry import CHECKS
    from mutants import MUTANTS
    from mutation import mutated

    missed, slowest = [], 0.0
    for mutant in MUTANTS:
        start = time.perf_counter()
        with mutated(mutant.patch) as library:
            if CHECKS[mutant.check].run(library).holds:
                missed.append(mutant.bug)
        slowest = max(slowest, time.perf_counter() - start)
    print(f"\nMutants: {len(MUTANTS) - len(missed)} of {len(MUTANTS)} caught, the slowest in {slowest:.0f} s")
    for bug in missed:
        print(f"  missed: {bug}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="of correct checks, in all")
    runs = parser.parse_args().runs
    false_alarms(runs, Budget(draws=4_096, batch=512, resolution=0.0))
    mutants()
