"""The No-U-Turn sampler: borelax against NumPyro and BlackJAX, on four posteriors.

Four chains side by side, 1000 steps of warmup and 1000 draws, the same target acceptance and the same density. All
run in one process, taking turns. Reported are effective draws per second once compiled (bulk, of the number that has
fewest), and the time of a first run, tracing and compiling included; in brackets, what borelax has over the other.

    python benchmarks/nuts.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import initialize_model

from borelax import inference, ppl
from borelax.inference.chains.diagnostics import ess_bulk

CHAINS, WARMUP, DRAWS = 4, 1000, 1000


@dataclass(frozen=True)
class Posterior:
    """One posterior, as a borelax program and as a NumPyro model, with its data."""

    program: Callable
    model: Callable
    args: tuple
    target_acceptance: float


def eight_schools() -> Posterior:
    """Non-centred."""

    def program(effects, errors):
        mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        tau = ppl.sample("tau", dist.HalfCauchy(5.0))
        z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([8]))
        ppl.observe("effect", dist.Normal(mu + tau * z, errors), effects)

    def model(effects, errors):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([8]))
        numpyro.sample("effect", dist.Normal(mu + tau * z, errors), obs=effects)

    effects = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    return Posterior(program, model, (effects, errors), 0.9)


def logistic(rows: int = 1000, columns: int = 25) -> Posterior:
    """A logistic regression."""

    def program(xs, ys):
        beta = ppl.sample("beta", dist.Normal(0.0, 1.0).expand([columns]))
        ppl.observe("y", dist.BernoulliLogits(xs @ beta), ys)

    def model(xs, ys):
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([columns]))
        numpyro.sample("y", dist.BernoulliLogits(xs @ beta), obs=ys)

    rng = np.random.default_rng(0)
    xs = np.c_[np.ones(rows), rng.normal(size=(rows, columns - 1))]
    ys = rng.binomial(1, 1 / (1 + np.exp(-xs @ (0.5 * rng.normal(size=columns)))))
    return Posterior(program, model, (jnp.asarray(xs, jnp.float32), jnp.asarray(ys)), 0.8)


def garch(steps: int = 200) -> Posterior:
    """Returns whose scale is fed by the last return and the last scale."""

    def variances(mu, alpha0, alpha1, beta1, ys):
        def step(variance, y):
            variance = alpha0 + alpha1 * (y - mu) ** 2 + beta1 * variance
            return variance, variance

        first = jnp.array(1.0)
        return jnp.append(first, jax.lax.scan(step, first, ys[:-1])[1])

    def law(mu, alpha0, alpha1, beta1, ys):
        return dist.Normal(mu, jnp.sqrt(variances(mu, alpha0, alpha1, beta1, ys)))

    def program(ys):
        mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        alpha0 = ppl.sample("alpha0", dist.HalfNormal(2.0))
        alpha1 = ppl.sample("alpha1", dist.Uniform(0.0, 1.0))
        share = ppl.sample("share", dist.Uniform(0.0, 1.0))
        ppl.observe("y", law(mu, alpha0, alpha1, (1 - alpha1) * share, ys), ys)

    def model(ys):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        alpha0 = numpyro.sample("alpha0", dist.HalfNormal(2.0))
        alpha1 = numpyro.sample("alpha1", dist.Uniform(0.0, 1.0))
        share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
        numpyro.sample("y", law(mu, alpha0, alpha1, (1 - alpha1) * share, ys), obs=ys)

    rng = np.random.default_rng(0)
    ys, variance = [], 1.0
    for _ in range(steps):
        ys.append(1.0 + np.sqrt(variance) * rng.normal())
        variance = 0.5 + 0.3 * (ys[-1] - 1.0) ** 2 + 0.4 * variance
    return Posterior(program, model, (jnp.asarray(ys, jnp.float32),), 0.8)


def volatility(steps: int = 1000) -> Posterior:
    """Stochastic volatility, non-centred: the innovations of the log volatility are standard normal."""

    def law(mu, phi, sigma, z):
        def step(h, z):
            h = mu + phi * (h - mu) + sigma * z
            return h, h

        first = mu + sigma / jnp.sqrt(1 - phi**2) * z[0]
        h = jnp.append(first, jax.lax.scan(step, first, z[1:])[1])
        return dist.Normal(0.0, jnp.exp(h / 2))

    def program(ys):
        mu = ppl.sample("mu", dist.Normal(-1.0, 2.0))
        phi = ppl.sample("phi", dist.Beta(20.0, 1.5))
        sigma = ppl.sample("sigma", dist.HalfNormal(0.5))
        z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([steps]))
        ppl.observe("y", law(mu, phi, sigma, z), ys)

    def model(ys):
        mu = numpyro.sample("mu", dist.Normal(-1.0, 2.0))
        phi = numpyro.sample("phi", dist.Beta(20.0, 1.5))
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([steps]))
        numpyro.sample("y", law(mu, phi, sigma, z), obs=ys)

    rng = np.random.default_rng(0)
    ys, h = [], -1.0
    for _ in range(steps):
        h = -1.0 + 0.95 * (h + 1.0) + 0.3 * rng.normal()
        ys.append(np.exp(h / 2) * rng.normal())
    return Posterior(program, model, (jnp.asarray(ys, jnp.float32),), 0.8)


POSTERIORS = {
    "eight schools": eight_schools,
    "logistic": logistic,
    "garch": garch,
    "volatility": volatility,
}


# ------------------------------------------------------------------------- libraries: key -> draws by site


def borelax_run(posterior: Posterior) -> Callable:
    kernel = inference.nuts(posterior.program, target_acceptance=posterior.target_acceptance)
    run = inference.mcmc(kernel, num_samples=DRAWS, num_warmup=WARMUP, num_chains=CHAINS)
    return lambda key: run(key, *posterior.args).choices


def numpyro_run(posterior: Posterior) -> Callable:
    kernel = NUTS(posterior.model, target_accept_prob=posterior.target_acceptance)
    options = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, **options)

    def run(key):
        mcmc.run(key, *posterior.args)
        return mcmc.get_samples(group_by_chain=True)

    return run


def blackjax_run(posterior: Posterior) -> Callable:
    """By BlackJAX's own warmup, on NumPyro's density, from uniform draws on (-2, 2)."""

    def chain(key, args):
        info = initialize_model(jax.random.key(0), posterior.model, model_args=args, dynamic_args=True)
        log_density = lambda z: -info.potential_fn(*args)(z)  # noqa: E731
        start, warm, sample = jax.random.split(key, 3)
        leaves, tree = jax.tree.flatten(info.param_info.z)
        keys = jax.random.split(start, len(leaves))
        uniform = [jax.random.uniform(k, x.shape, minval=-2, maxval=2) for k, x in zip(keys, leaves)]
        warmup = blackjax.window_adaptation(
            blackjax.nuts, log_density, target_acceptance_rate=posterior.target_acceptance
        )
        (state, parameters), _ = warmup.run(warm, jax.tree.unflatten(tree, uniform), WARMUP)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state, key):
            state, _ = kernel.step(key, state)
            return state, info.postprocess_fn(*args)(state.position)

        return jax.lax.scan(step, state, jax.random.split(sample, DRAWS))[1]

    run = jax.jit(jax.vmap(chain, in_axes=(0, None)))
    return lambda key: run(jax.random.split(key, CHAINS), posterior.args)


LIBRARIES = {"borelax": borelax_run, "numpyro": numpyro_run, "blackjax": blackjax_run}


# ------------------------------------------------------------------------- measurement


class Compiling:
    """Seconds spent tracing and compiling so far: NumPyro does that in every run."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, seconds: float, **_) -> None:
        if any(part in event for part in ("jaxpr_trace", "jaxpr_to_mlir", "backend_compile")):
            self.seconds += seconds


def measured(run: Callable, key, compiling: Compiling) -> tuple[float, float, float]:
    """Seconds in all, seconds without compilation, and effective draws."""
    before, start = compiling.seconds, time.perf_counter()
    draws = jax.block_until_ready(run(key))
    total = time.perf_counter() - start
    size = min(float(np.min(ess_bulk(x))) for x in jax.tree.leaves(draws))
    return total, total - (compiling.seconds - before), size


def compare(name: str, posterior: Posterior, repeats: int, compiling: Compiling) -> None:
    first = {library: [] for library in LIBRARIES}
    speed = {library: [] for library in LIBRARIES}
    for repeat in range(repeats):
        for library, make in LIBRARIES.items():
            jax.clear_caches()
            run = make(posterior)
            first[library].append(measured(run, jax.random.key(10 * repeat), compiling)[0])
            for again in range(1, 4):
                _, seconds, size = measured(run, jax.random.key(10 * repeat + again), compiling)
                speed[library].append(size / seconds)
    for library in LIBRARIES:
        faster = np.median(np.array(speed["borelax"]) / np.array(speed[library]))
        sooner = np.median(np.array(first["borelax"]) / np.array(first[library]))
        print(
            f"{name:14s} {library:9s} {np.median(speed[library]):8.0f} effective draws/s (borelax {faster:.2f}x)   "
            f"first run {np.median(first[library]):5.2f} s (borelax {sooner:.2f}x)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=POSTERIORS, help="one of the posteriors")
    options = parser.parse_args()
    compiling = Compiling()
    for name in [options.only] if options.only else POSTERIORS:
        compare(name, POSTERIORS[name](), options.repeats, compiling)


if __name__ == "__main__":
    main()
