from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from borelax import ppl, semantics
from borelax.inference.unguided import unguided


def program():
    def step(x, _):
        x = ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x), proposal=dist.Bernoulli(0.5))
        return x, ppl.deterministic("twice", 2 * x)

    x, twice = jax.lax.scan(step, 0, None, length=2)
    z = jax.lax.cond(
        x == 1, lambda: ppl.sample("z", dist.Bernoulli(0.75), proposal=dist.Bernoulli(0.25)), lambda: 0
    )
    ppl.factor(0.5 * z)
    return twice, z


def test_it_means_the_same_and_has_no_proposals():
    one, other = (
        {repr((value[0].tolist(), int(value[1]))): weight for value, weight in semantics.meaning(p)()}
        for p in (program, unguided(program))
    )
    assert one.keys() == other.keys()
    np.testing.assert_allclose([other[value] for value in one], list(one.values()), rtol=1e-12)

    trace = ppl.simulate(unguided(program))(jax.random.key(0))
    assert jnp.allclose(trace.log_weight, 0.5 * trace.value[1])  # the factor alone
    assert list(trace.deterministic) == ["twice"]
