"""Eight schools: one posterior in two forms, of which a sampler can do the second.

Coaching for a test was tried in eight schools, each of which reports an effect and its standard error. How much of the
difference between them is noise? The effects are drawn from a normal distribution whose spread is unknown. Written like
that, the posterior is a funnel: where the spread is small, the effects have to be close together, and steps that are
right for a wide spread are much too long. The summary says so. The second form draws standardised effects, which the
spread then scales. The data, and the model, are those of Rubin, *Estimation in parallel randomized experiments*, 1981.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from borelax import inference, ppl

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def as_they_are(mean, spread):
    return ppl.sample("theta", dist.Normal(mean, spread).expand([8]))


def standardised(mean, spread):
    return mean + spread * ppl.sample("z", dist.Normal(0.0, 1.0).expand([8]))


def schools(draw_effects):
    def program(effects, errors):
        mean = ppl.sample("mean", dist.Normal(0.0, 5.0))
        spread = ppl.sample("spread", dist.HalfCauchy(5.0))
        true = ppl.deterministic("true", draw_effects(mean, spread))
        ppl.observe("effect", dist.Normal(true, errors), effects)

    return program


for form in (as_they_are, standardised):
    kernel = inference.nuts(schools(form), target_acceptance=0.95)
    draws = inference.mcmc(kernel, num_samples=1000, num_warmup=1000)(jax.random.key(0), EFFECTS, ERRORS)
    print(f"{form.__name__.replace('_', ' ')}:")
    print(draws.summary(most=4))
    best = jnp.mean(jnp.argmax(draws.deterministic["true"], -1) == 0)
    print(f"probability that coaching works best in the first school: {best:.2f}\n")
