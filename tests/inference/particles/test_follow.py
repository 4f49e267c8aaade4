"""Members that follow given choices are weighed as log_density has it, each from where it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import ppl
from borelax.inference.particles.follow import Follow
from borelax.ppl.carried import carrying
from borelax.ppl.members import Kind, Members, kind_of
from borelax.ppl.population_walk import weigh_alone


def bit(name, p=0.5, **options):
    return ppl.sample(name, dist.Bernoulli(p), **options)


def step(z):
    """A site with a proposal, one that only some members come by, a scan, sites that are vmapped."""
    new = bit("new", jnp.array([0.25, 0.5, 0.75])[z], proposal=dist.Bernoulli(0.375))
    some = lax.cond(z == 1, lambda: bit("some", 0.25 + 0.25 * new), lambda: 0)
    ppl.observe("y", dist.Bernoulli(0.125 + 0.25 * some + 0.25 * z), 1)
    walked, _ = lax.scan(lambda x, _: (bit("x", 0.25 + 0.5 * x), None), (z == 2).astype(int), None, length=2)
    many = jax.vmap(lambda p: bit("many", p * (0.5 + 0.25 * new)))(jnp.array([0.25, 0.5]))
    ppl.factor(0.5 * z * many.sum())
    return new, walked, many, z + new


@pytest.mark.parametrize("present", [True, False])
def test_the_density_from_each_member(present):
    given = {
        ("new",): jnp.array(1),
        ("some",): ppl.Masked(jnp.array(1), jnp.array(present)),
        ("x",): jnp.array([1, 0]),
        ("many",): jnp.array([0, 1]),
    }
    z = jnp.array([0, 1, 2, 1])
    closed = carrying(jax.make_jaxpr(step)(0), given)
    outs, log_weight = weigh_alone(Follow(), closed, [*jax.tree.leaves(given), Members(z)], 4, ())
    choices = {address: x for (address,), x in given.items()}
    expected = [float(ppl.log_density(step)(choices, x)) for x in z]
    np.testing.assert_allclose(log_weight, expected, rtol=1e-5)
    assert list(np.isinf(expected)) == ([True, False, True, False] if present else [False, True, False, True])
    # What is made of sites alone is shared, and is what was chosen.
    assert [kind_of(out) for out in outs] == [Kind.SHARED, Kind.SHARED, Kind.SHARED, Kind.MEMBERS]
    assert int(outs[0]) == 1 and int(outs[1]) == 0 and outs[2].tolist() == [0, 1]
