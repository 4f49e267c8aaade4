"""Adaptive tempered SMC: borelax against BlackJAX.

A Bayesian logistic regression with ten slopes and a normal prior, 1000 particles, the next temperature where the
effective sample size is half. At each stage both move the particles by the same number of HMC steps, of the same length
and step size, with the prior's variances as inverse mass; BlackJAX moves before it weighs, borelax afterwards. Both run
in one process, taking turns; ratios below 1 mean that borelax is faster.

    python benchmarks/tempered_smc.py
"""

from __future__ import annotations

import argparse
from functools import partial

import blackjax
import blackjax.smc.resampling
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from blackjax.smc import extend_params
from timing import compile_seconds, interleaved, ratio

from borelax import inference, ppl

ROWS, COLUMNS, PARTICLES = 200, 10, 1000
LEAPFROGS, STEP_SIZE, MOVES, TARGET = 10, 0.1, 5, 0.5


def data() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(ROWS, COLUMNS))
    ys = rng.binomial(1, 1 / (1 + np.exp(-xs @ rng.normal(size=COLUMNS))))
    return jnp.asarray(xs, jnp.float32), jnp.asarray(ys)


def program(xs, ys):
    beta = ppl.sample("beta", dist.Normal(0.0, 1.0).expand([COLUMNS]))
    ppl.observe("y", dist.BernoulliLogits(xs @ beta), ys)
    return beta


def borelax_run():
    """``(key, xs, ys) -> (particles, log evidence)``."""

    def kernel(tempered):
        options = {"num_steps": LEAPFROGS, "step_size": STEP_SIZE, "inverse_mass": np.ones(COLUMNS)}
        return inference.hmc(tempered, **options)

    sampler = ppl.seed(inference.tempered_smc(program, PARTICLES, kernel, moves=MOVES, ess_target=TARGET))

    def run(key, xs, ys):
        population = sampler(key, xs, ys)
        return population.expectation(), population.log_evidence, population.generations + 1

    return run


def blackjax_run():
    """The same, with the while_loop of BlackJAX's documentation."""

    def run(key, xs, ys):
        log_prior = lambda beta: dist.Normal(0.0, 1.0).log_prob(beta).sum()  # noqa: E731
        log_likelihood = lambda beta: dist.BernoulliLogits(xs @ beta).log_prob(ys).sum()  # noqa: E731
        parameters = {
            "step_size": STEP_SIZE,
            "inverse_mass_matrix": jnp.ones(COLUMNS),
            "num_integration_steps": LEAPFROGS,
        }
        sampler = blackjax.adaptive_tempered_smc(
            log_prior,
            log_likelihood,
            blackjax.hmc.build_kernel(),
            blackjax.hmc.init,
            extend_params(parameters),
            blackjax.smc.resampling.systematic,
            TARGET,
            num_mcmc_steps=MOVES,
        )
        start, key = jax.random.split(key)
        state = sampler.init(jax.random.normal(start, (PARTICLES, COLUMNS)))

        def step(carry):
            number, state, log_evidence = carry
            state, info = sampler.step(jax.random.fold_in(key, number), state)
            return number + 1, state, log_evidence + info.log_likelihood_increment

        number, state, log_evidence = jax.lax.while_loop(
            lambda carry: carry[1].tempering_param < 1, step, (0, state, 0.0)
        )
        return state.weights @ state.particles, log_evidence, number

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compilations", type=int, default=3)
    options = parser.parse_args()
    xs, ys = data()
    key = jax.random.key(0)
    makes = {"borelax": borelax_run, "blackjax": blackjax_run}
    first: dict[str, list[float]] = {name: [] for name in makes}
    runs = {}
    for _ in range(options.compilations):
        for name, make in makes.items():
            jax.clear_caches()
            seconds, compiled = compile_seconds(make(), key, xs, ys)
            first[name].append(seconds)
            runs[name] = partial(compiled, key, xs, ys)
    for name, run in runs.items():
        mean, log_evidence, stages = run()
        print(f"{name}: {int(stages)} stages, log evidence {log_evidence:.2f}, first slope {mean[0]:.3f}")
    compiling = {name: np.array(seconds) for name, seconds in first.items()}
    times = interleaved(runs, options.repeats)
    for name in runs:
        print(f"{name:9s} run {np.median(times[name]):6.3f} s   compile {np.median(compiling[name]):6.2f} s")
    print(
        f"borelax / blackjax: run {ratio(times['borelax'], times['blackjax']):.2f}, "
        f"compile {ratio(compiling['borelax'], compiling['blackjax']):.2f}"
    )


if __name__ == "__main__":
    main()
