"""Stochastic volatility: hidden states and parameters, by three algorithms on one program.

The logarithm of a variance wanders, and returns are drawn with that variance. Given the parameters, SMC is a particle
filter, and estimates the evidence. Particle Gibbs draws a path of states given the parameters, and slice sampling the
parameters given the path. Particle marginal Metropolis-Hastings moves the parameters alone, by the evidence. The last
two have the same posterior, so that their answers agree.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from borelax import inference, ppl


def parameters(returns):
    persistence = ppl.sample("persistence", dist.Beta(18.0, 2.0))
    size = ppl.sample("size", dist.LogNormal(-1.0, 0.5))
    return persistence, size


def states(parameters, returns):
    persistence, size = parameters

    def step(x, y):
        x = ppl.sample("x", dist.Normal(persistence * x, size))
        ppl.observe("y", dist.Normal(0.0, jnp.exp(x / 2)), y)
        return x, x

    return jax.lax.scan(step, 0.0, returns)[1]


def volatility(returns):
    drawn = parameters(returns)
    return drawn, states(drawn, returns)


def nearby(choices, returns):
    """A proposal for both parameters, on scales on which a step means the same everywhere."""
    p = choices["persistence"]
    logit = dist.Normal(jnp.log(p) - jnp.log1p(-p), 0.7)
    ppl.sample("persistence", dist.TransformedDistribution(logit, dist.transforms.SigmoidTransform()))
    ppl.sample("size", dist.LogNormal(jnp.log(choices["size"]), 0.4))


def simulated(key, length=30, persistence=0.9, size=0.6):
    """Returns, made by the same step."""

    def step(x, key):
        of_x, of_y = jax.random.split(key)
        x = persistence * x + size * jax.random.normal(of_x)
        return x, jnp.exp(x / 2) * jax.random.normal(of_y)

    return jax.lax.scan(step, 0.0, jax.random.split(key, length))[1]


returns = simulated(jax.random.key(1))
key = jax.random.key(0)

print("the evidence of two values of the persistence, by a particle filter (size 0.6):")
filtered = jax.jit(ppl.seed(inference.smc(states, 1_000)))
for persistence in (0.5, 0.9):
    population = filtered(key, (jnp.array(persistence), jnp.array(0.6)), returns)
    print(f"  {persistence}  log evidence {population.log_evidence:.1f} ± {population.log_evidence_se:.2f}")

in_turn = inference.cycle(
    inference.particle_gibbs(volatility, 20, ppl.select("x")),
    inference.slice(volatility, ["persistence", "size"]),
)
marginal = inference.pmmh(parameters, states, nearby, n=50)
print(f"\n{'':18}{'persistence':>16}{'size':>16}{'last log variance':>21}")
for name, kernel in (("particle Gibbs", in_turn), ("PMMH", marginal)):
    draws = inference.mcmc(kernel, num_samples=1000, num_warmup=100)(key, returns)
    (persistence, size), path = draws.value
    cells = [f"{x.mean():.2f} ± {x.std():.2f}" for x in (persistence, size, path[..., -1])]
    print(f"{name:18}{cells[0]:>16}{cells[1]:>16}{cells[2]:>21}")
