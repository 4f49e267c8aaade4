"""Posteriors of the kinds that people fit, as programs, each with the moments that are known of it.

Where the reference is not one of posteriordb it is computed here, from a density that is written down a second time, in
NumPy: in closed form, or on a grid (``tests/grid.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from grid import Grid
from jax import lax
from scipy import stats
from thresholds import standard_errors

from borelax import inference, ppl

POSTERIORDB = Path(__file__).parent / "data" / "posteriordb"


@dataclass(frozen=True)
class Posterior:
    """A program with its data, and what is known of it.

    Attributes:
      reference: ``() -> {name: (mean, sd)}``, arrays of the shape of the site that has the name.
      reference_draws: how many draws the reference is from; infinitely many if it is exact.
      options: of :func:`inference.nuts`.
    """

    program: Callable
    args: tuple
    reference: Callable[[], dict]
    reference_draws: float = np.inf
    options: dict = field(default_factory=dict)


def errors(posterior: Posterior, draws: dict, reference: dict) -> dict[str, np.ndarray]:
    """Of each site, how far mean and standard deviation are off, in standard errors: ``[2, ...]``."""
    found = {}
    for name, (mean, sd) in reference.items():
        x = np.asarray(draws[name], np.float64)
        theirs = sd / np.sqrt(posterior.reference_draws), sd / np.sqrt(2 * posterior.reference_draws)
        own = standard_errors(x)
        off = np.abs(x.mean((0, 1)) - mean), np.abs(x.std((0, 1)) - sd)
        found[name] = np.stack([d / np.hypot(*both) for d, both in zip(off, zip(own, theirs))])
    return found


# ------------------------------------------------------------------------------ posteriordb


def columns(name: str) -> dict[str, np.ndarray]:
    return {
        column: np.array(x, float)
        for column, x in json.loads((POSTERIORDB / f"{name}.json").read_text()).items()
    }


def of_posteriordb(name: str, program: Callable, *args) -> Posterior:
    """The reference draws are those of Stan; a dense matrix is what keeps trajectories short."""

    def reference() -> dict:
        found: dict[str, list] = {}
        for number, moments in json.loads((POSTERIORDB / "references.json").read_text())[name].items():
            found.setdefault(number.split("[")[0], []).append((moments["mean"], moments["sd"]))
        return {
            site: tuple(np.array(x).T.reshape(2, *(() if len(x) == 1 else (-1,))))
            for site, x in found.items()
        }

    return Posterior(program, args, reference, reference_draws=10_000, options={"dense": True})


def regression(xs, ys, width):
    """Stan's have flat priors on the coefficients; a standard deviation of 1000 is as good as flat for these data."""
    beta = ppl.sample("beta", dist.Normal(0.0, 1000.0).expand([xs.shape[1]]))
    sigma = ppl.sample("sigma", dist.HalfCauchy(width))
    ppl.observe("y", dist.Normal(xs @ beta, sigma), ys)


def kidiq() -> Posterior:
    d = columns("kidiq")
    xs = np.stack([np.ones(434), d["mom_hs"], d["mom_iq"], d["mom_hs"] * d["mom_iq"]], -1)
    return of_posteriordb("kidiq", regression, xs, d["kid_score"], 2.5)


def mesquite() -> Posterior:
    d = columns("mesquite")
    area = d["diam1"] * d["diam2"]
    shapes = [area * d["canopy_height"], area, d["diam1"] / d["diam2"], d["total_height"]]
    xs = np.stack([np.ones(46), *map(np.log, shapes), d["group"]], -1)
    return of_posteriordb("mesquite", regression, xs, np.log(d["weight"]), 1000.0)


def nes1980() -> Posterior:
    d = columns("nes1980")
    ages = [d["age_discrete"] == age for age in (2, 3, 4)]
    others = [d[name] for name in ("educ1", "gender", "income")]
    xs = np.stack([np.ones(len(ages[0])), d["real_ideo"], d["race_adj"], *ages, *others], -1)
    return of_posteriordb("nes1980", regression, xs, d["partyid7"], 1000.0)


def arma() -> Posterior:
    """Where a draw of theta from the prior makes the errors explode, a chain starts elsewhere."""

    def program(ys):
        mu = ppl.sample("mu", dist.Normal(0.0, 10.0))
        phi, theta = (ppl.sample(name, dist.Normal(0.0, 2.0)) for name in ("phi", "theta"))
        sigma = ppl.sample("sigma", dist.HalfCauchy(2.5))

        def step(carry, y):
            before, error = carry
            prediction = mu + phi * before + theta * error
            ppl.observe("y", dist.Normal(prediction, sigma), y)
            return (y, y - prediction), None

        lax.scan(step, (mu, 0.0), ys)

    return of_posteriordb("arma", program, columns("arma")["y"])


# ------------------------------------------------------------------------------ regressions


def ill_scaled() -> Posterior:
    """Predictors of scales 1 and 10,000. With an inverse gamma variance all is conjugate, and beta is Student t."""
    rng = np.random.default_rng(1)
    xs = rng.normal(size=(40, 2)) * np.array([1.0, 1e4])
    ys = xs @ np.array([15.0, -3e-3]) + 20.0 * rng.normal(size=40)
    widths = np.array([2.0, 2e-3])  # of the prior, in units of sigma

    def program(xs, ys):
        variance = ppl.sample("variance", dist.InverseGamma(3.0, 400.0))
        beta = ppl.sample("beta", dist.Normal(0.0, jnp.sqrt(variance) * jnp.array(widths, float)))
        ppl.observe("y", dist.Normal(xs @ beta, jnp.sqrt(variance)), ys)

    def reference() -> dict:
        precision = xs.T @ xs + np.diag(widths**-2)
        mean = np.linalg.solve(precision, xs.T @ ys)
        shape, rate = 3.0 + 40 / 2, 400.0 + (ys @ ys - mean @ precision @ mean) / 2
        variance = rate / (shape - 1) * np.diag(np.linalg.inv(precision))
        return {
            "beta": (mean, np.sqrt(variance)),
            "variance": (rate / (shape - 1), rate / (shape - 1) / np.sqrt(shape - 2)),
        }

    return Posterior(program, (xs, ys), reference)


def hierarchical() -> Posterior:
    """Groups with intercepts of their own. Given both scales all else is normal, so that the grid is of these alone."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(6), 5)
    xs = rng.normal(size=30)
    ys = 1.0 + 1.2 * rng.normal(size=6)[group] + 0.7 * xs + 0.8 * rng.normal(size=30)

    def program(group, xs, ys):
        mu, slope = ppl.sample("mu", dist.Normal(0.0, 3.0)), ppl.sample("slope", dist.Normal(0.0, 2.0))
        tau, sigma = ppl.sample("tau", dist.HalfNormal(2.0)), ppl.sample("sigma", dist.HalfNormal(2.0))
        z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([6]))
        intercepts = ppl.deterministic("intercepts", mu + tau * z)
        ppl.observe("y", dist.Normal(intercepts[group] + slope * xs, sigma), ys)

    def reference() -> dict:
        # With u = (mu, slope, z), y = design @ u + noise.
        def design(tau):
            own = tau[:, None, None] * np.eye(6)[group]
            common = np.broadcast_to(np.stack([np.ones(30), xs], -1), (len(tau), 30, 2))
            return np.concatenate([common, own], -1)

        prior = np.diag([9.0, 4.0, *np.ones(6)])

        def covariance(tau, sigma):
            a = design(tau)
            return a @ prior @ a.swapaxes(1, 2) + sigma[:, None, None] ** 2 * np.eye(30)

        def log_density(at):
            tau, sigma = np.exp(at).T
            scales = stats.halfnorm(scale=2.0)
            prior = scales.logpdf(tau) + scales.logpdf(sigma) + at.sum(-1)
            return prior + log_normal(ys, covariance(tau, sigma))

        grid = Grid.fitted(log_density, [0.0, 0.0], [0.5, 0.3])
        tau, sigma = np.exp(grid.points).T
        gain = prior @ design(tau).swapaxes(1, 2) @ np.linalg.inv(covariance(tau, sigma))
        mean, spread = gain @ ys, prior - gain @ design(tau) @ prior
        to_intercepts = np.concatenate(
            [np.ones((len(tau), 6, 1)), np.zeros((len(tau), 6, 1)), tau[:, None, None] * np.eye(6)], -1
        )
        to = np.concatenate([np.broadcast_to(np.eye(8)[:2], (len(tau), 2, 8)), to_intercepts], 1)
        variances = np.diagonal(to @ spread @ to.swapaxes(1, 2), axis1=1, axis2=2)
        means = (to @ mean[..., None])[..., 0]
        mean, sd = grid.moments(means, variances)
        return {
            "mu": (mean[0], sd[0]),
            "slope": (mean[1], sd[1]),
            "intercepts": (mean[2:], sd[2:]),
            "tau": grid.moments(tau),
            "sigma": grid.moments(sigma),
        }

    return Posterior(program, (group, xs, ys), reference, options={"target_acceptance": 0.95})


def gaussian_process() -> Posterior:
    rng = np.random.default_rng(3)
    xs = np.linspace(0.0, 4.0, 15)
    ys = np.sin(2 * xs) + 0.3 * rng.normal(size=15)

    def program(xs, ys):
        width = ppl.sample("width", dist.LogNormal(0.0, 0.5))
        length = ppl.sample("length", dist.LogNormal(0.0, 0.5))
        noise = ppl.sample("noise", dist.LogNormal(-1.0, 0.5))
        kernel = width**2 * jnp.exp(-((xs[:, None] - xs) ** 2) / (2 * length**2))
        ppl.observe("y", dist.MultivariateNormal(0.0, kernel + noise**2 * jnp.eye(len(xs))), ys)

    def reference() -> dict:
        def log_density(at):
            width, length, noise = np.exp(at).T[..., None, None]
            kernel = width**2 * np.exp(-((xs[:, None] - xs) ** 2) / (2 * length**2))
            prior = stats.norm.logpdf(at, [0.0, 0.0, -1.0], 0.5).sum(-1)
            return prior + log_normal(ys, kernel + noise**2 * np.eye(15))

        grid = Grid.fitted(log_density, [0.0, 0.0, -1.0], [0.5, 0.5, 0.5])
        return {name: grid.moments(x) for name, x in zip(("width", "length", "noise"), np.exp(grid.points).T)}

    return Posterior(program, (xs, ys), reference)


def log_normal(y, covariance) -> np.ndarray:
    """The log densities of ``y`` under normal laws about zero, of covariances ``[n, len(y), len(y)]``."""
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, np.broadcast_to(y, factor.shape[:-1])[..., None])[..., 0]
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    return -np.log(diagonal).sum(-1) - (white**2).sum(-1) / 2 - len(y) * np.log(2 * np.pi) / 2


# ------------------------------------------------------------------------------ series


def garch() -> Posterior:
    """A variance that follows the last error and the last variance."""
    rng = np.random.default_rng(4)
    ys, variance = [0.0], 1.0
    for _ in range(100):
        variance = 0.3 + 0.4 * ys[-1] ** 2 + 0.4 * variance
        ys.append(np.sqrt(variance) * rng.normal())
    ys = np.array(ys[1:])

    def program(ys):
        base = ppl.sample("base", dist.LogNormal(-1.0, 0.7))
        of_error, of_variance = (
            ppl.sample(name, dist.Beta(2.0, 2.0)) for name in ("of_error", "of_variance")
        )

        def step(variance, y):
            ppl.observe("y", dist.Normal(0.0, jnp.sqrt(variance)), y)
            return base + of_error * y**2 + of_variance * variance, None

        lax.scan(step, 1.0, ys)

    def reference() -> dict:
        def constrained(at):
            return np.exp(at[:, 0]), 1 / (1 + np.exp(-at[:, 1])), 1 / (1 + np.exp(-at[:, 2]))

        def log_density(at):
            base, of_error, of_variance = constrained(at)
            total = stats.norm.logpdf(at[:, 0], -1.0, 0.7) + sum(
                stats.beta.logpdf(p, 2, 2) + np.log(p * (1 - p)) for p in (of_error, of_variance)
            )
            variance = np.ones(len(at))
            for y in ys:
                total = total - (np.log(2 * np.pi * variance) + y**2 / variance) / 2
                variance = base + of_error * y**2 + of_variance * variance
            return total

        grid = Grid.fitted(log_density, [-1.0, 0.0, 0.0], [0.7, 0.7, 0.7])
        return {
            name: grid.moments(x)
            for name, x in zip(("base", "of_error", "of_variance"), constrained(grid.points))
        }

    return Posterior(program, (ys,), reference)


def hidden_markov() -> Posterior:
    """The states are summed out inside the program, by a marginal of a program whose states are sites."""
    ys = np.array([-1.1, -0.4, 1.9, 1.2, -0.9])

    def emissions(stay, means):
        def step(state, _):
            state = ppl.sample("state", dist.Bernoulli(jnp.where(state == 1, stay, 1 - stay)))
            ppl.sample("y", dist.Normal(means[state], 0.7))
            return state, None

        lax.scan(step, 0, None, length=len(ys))

    def program(ys):
        stay = ppl.sample("stay", dist.Beta(3.0, 1.5))
        means = ppl.sample("means", dist.Normal(jnp.array([-1.0, 1.0]), 0.8))
        ppl.observe("ys", ppl.marginal(emissions, "y", inference.enumerate)(stay, means), ys)

    def reference() -> dict:
        def log_density(at):
            stay = 1 / (1 + np.exp(-at[:, 0]))
            forward, total = np.stack([np.ones_like(stay), np.zeros_like(stay)]), 0.0
            for y in ys:
                moved = np.stack(
                    [forward[0] * stay + forward[1] * (1 - stay), forward[0] * (1 - stay) + forward[1] * stay]
                )
                forward = moved * stats.norm.pdf(y, at[:, 1:].T, 0.7)
                total, forward = total + np.log(forward.sum(0)), forward / forward.sum(0)
            prior = stats.beta.logpdf(stay, 3.0, 1.5) + np.log(stay * (1 - stay))
            return total + prior + stats.norm.logpdf(at[:, 1:], [-1.0, 1.0], 0.8).sum(-1)

        grid = Grid.fitted(log_density, [0.7, -1.0, 1.0], [1.0, 0.5, 0.5])
        return {
            "stay": grid.moments(1 / (1 + np.exp(-grid.points[:, 0]))),
            "means": grid.moments(grid.points[:, 1:]),
        }

    return Posterior(program, (ys,), reference)


def predator_and_prey() -> Posterior:
    """The equations of Lotka and Volterra, by the Runge-Kutta method, with noise on the logarithms."""
    step, steps, noise = 0.25, 32, 0.25  # every fourth step is seen

    def slope(x, rates):
        prey, predators = x
        growth, caught, death, fed = rates
        return prey * (growth - caught * predators), predators * (fed * prey - death)

    def moved(x, rates):
        after = lambda k, h: tuple(a + h * b for a, b in zip(x, k))  # noqa: E731
        a = slope(x, rates)
        b = slope(after(a, step / 2), rates)
        c = slope(after(b, step / 2), rates)
        d = slope(after(c, step), rates)
        return after([p + 2 * q + 2 * r + s for p, q, r, s in zip(a, b, c, d)], step / 6)

    def plain_path(rates) -> np.ndarray:
        x, seen = (1.0, 0.6), []
        for t in range(1, steps + 1):
            x = moved(x, rates)
            seen += [] if t % 4 else [np.log(np.stack(np.broadcast_arrays(*x)))]
        return np.stack(seen)  # [time, 2, ...]

    true = np.array([1.0, 0.8, 0.9, 0.7])
    ys = plain_path(true) + noise * np.random.default_rng(5).normal(size=(steps // 4, 2))

    def program(ys):
        rates = ppl.sample("rates", dist.LogNormal(0.0, 0.3).expand([4]))

        def until_seen(x, y):
            x = lax.fori_loop(0, 4, lambda _, x: moved(x, rates), x)
            ppl.observe("y", dist.Normal(jnp.log(jnp.stack(x)), noise), y)
            return x, None

        lax.scan(until_seen, (1.0, 0.6), ys)

    def reference() -> dict:
        def log_density(at):
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                error = np.moveaxis(plain_path(np.exp(at).T), -1, 0) - ys
                total = -(error**2).sum((1, 2)) / (2 * noise**2) - (at**2).sum(-1) / (2 * 0.3**2)
            return np.where(np.isfinite(total), total, -np.inf)

        grid = Grid.fitted(log_density, np.log(true), [0.15] * 4)
        return {"rates": grid.moments(np.exp(grid.points))}

    return Posterior(program, (ys,), reference)


# ------------------------------------------------------------------------------ mixtures


def mixture() -> Posterior:
    """Two normal laws whose priors tell them apart, with the labels summed out."""
    ys = np.array([-2.6, -2.1, -1.8, -1.5, -1.1, -0.3, 0.4, 1.2, 1.7, 2.0, 2.2, 2.9, 3.1])

    def program(ys):
        share = ppl.sample("share", dist.Beta(2.0, 2.0))
        means = ppl.sample("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0))
        sigma = ppl.sample("sigma", dist.LogNormal(0.0, 0.5))
        which = dist.Categorical(jnp.stack([1 - share, share]))
        ppl.observe("y", dist.MixtureSameFamily(which, dist.Normal(means, sigma)).expand(ys.shape), ys)

    def reference() -> dict:
        def constrained(at):
            return 1 / (1 + np.exp(-at[:, 0])), at[:, 1:3], np.exp(at[:, 3])

        def log_density(at):
            share, means, sigma = constrained(at)
            prior = stats.beta.logpdf(share, 2, 2) + np.log(share * (1 - share))
            prior += stats.norm.logpdf(means, [-2.0, 2.0], 1.0).sum(-1) + stats.norm.logpdf(
                at[:, 3], 0.0, 0.5
            )
            z = (ys[:, None, None] - means) / sigma[:, None]
            of_y = (np.exp(-(z**2) / 2) * np.stack([1 - share, share], -1)).sum(-1)
            with np.errstate(divide="ignore"):
                return prior + np.log(of_y).sum(0) - len(ys) * np.log(sigma)

        grid = Grid.fitted(log_density, [0.0, -2.0, 2.0, 0.0], [0.5] * 4)
        return {
            name: grid.moments(x) for name, x in zip(("share", "means", "sigma"), constrained(grid.points))
        }

    return Posterior(program, (ys,), reference)


POSTERIORS: dict[str, Callable[[], Posterior]] = {
    make.__name__: make
    for make in (
        kidiq,
        mesquite,
        nes1980,
        arma,
        ill_scaled,
        hierarchical,
        gaussian_process,
        garch,
        hidden_markov,
        predator_and_prey,
        mixture,
    )
}
