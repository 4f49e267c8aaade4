"""Bayesian regression over random functions: lines, steps and broken lines, by one generic program.

A prior is a program that returns a function. The regression takes any prior, observes the drawn function at the data,
and returns it; and a prior may take another one: ``pieces(line)`` joins lines where ``pieces(constant)`` makes steps.
The example is that of Heunen, Kammar, Staton and Yang, *A convenient category for higher-order probability theory*,
LICS 2017.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.tree_util import Partial

from borelax import inference, ppl

XS = jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
YS = jnp.array([0.6, 0.7, 1.2, 3.2, 6.8, 8.2, 8.4])
NOISE = 1.0
PARTICLES = 300_000


# A random function is a Partial: an ordinary function with the arrays that were drawn for it.


def constant():
    level = ppl.sample("level", dist.Normal(5.0, 4.0))
    return Partial(lambda level, x: level, level)


def line():
    intercept = ppl.sample("intercept", dist.Normal(0.0, 4.0))
    slope = ppl.sample("slope", dist.Normal(0.0, 3.0))
    return Partial(lambda intercept, slope, x: intercept + slope * x, intercept, slope)


def pieces(piece, most=2):
    """A prior of functions made of up to ``most + 1`` pieces, each of them drawn by ``piece``."""

    def prior():
        count = ppl.sample("count", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        at = ppl.sample("at", dist.Uniform(0.0, 6.0).expand([most]))
        at = jnp.where(jnp.arange(most) < count, at, jnp.inf)
        with ppl.scope("piece"):
            drawn = jax.vmap(piece, axis_size=most + 1)()
        return Partial(evaluate, at, drawn)

    def evaluate(at, drawn, x):
        own = jnp.sum(at <= x)
        return jax.tree.map(lambda leaf: jnp.take(leaf, own, axis=0), drawn)(x)

    return prior


def regression(prior):
    def program(xs, ys):
        with ppl.scope("function"):
            f = prior()
        ppl.observe("y", dist.Normal(jax.vmap(f)(xs), NOISE), ys)
        return f

    return program


AT = jnp.linspace(0.0, 7.0, 8)
print(f"{'':12}{'log evidence':>14}{'ESS':>7}   mean ± sd of the function at x =")
print(" " * 36 + "".join(f"{x:<10.0f}" for x in AT))
for name, prior in {"line": line, "steps": pieces(constant), "broken line": pieces(line)}.items():
    fit = jax.jit(ppl.seed(inference.importance(regression(prior), PARTICLES)))
    posterior = fit(jax.random.key(0), XS, YS)
    mean = posterior.expectation(lambda f: jax.vmap(f)(AT))
    sd = jnp.sqrt(posterior.expectation(lambda f: (jax.vmap(f)(AT) - mean) ** 2))
    values = "".join(f"{m:.1f} ± {s:<4.1f}" for m, s in zip(mean, sd))
    evidence = f"{posterior.log_evidence:.1f} ± {posterior.log_evidence_se:.2f}"
    print(f"{name:12}{evidence:>14}{posterior.ess:7.0f}   {values}")
