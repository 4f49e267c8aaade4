"""The population walk, by exact enumeration: E[(1/n) sum_i w_i 1(x_i = v)] is the program's weight of v."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)


def bit(name, p=0.5):
    return ppl.sample(name, dist.Bernoulli(p))


def member(value, i=None) -> str:
    return repr(jax.tree.map(lambda x: np.asarray(x if i is None else x[i]).tolist(), value))


def assert_properly_weighted(algorithm, program) -> None:
    total: dict = {}
    for population, weight in semantics.meaning(algorithm)():
        for i, log_weight in enumerate(population.log_weight):
            row = member(population.value, i)
            total[row] = total.get(row, 0.0) + weight * np.exp(log_weight) / len(population.log_weight)
    for value, weight in semantics.meaning(program)():
        assert abs(total.pop(member(value)) - weight) < 1e-12
    assert all(abs(rest) < 1e-12 for rest in total.values())


def deterministic_values():
    a = bit("a", 0.25)
    b = ppl.deterministic("b", 2 * a + 1)
    ppl.factor(-0.5 * b)
    return a, b, ppl.deterministic("shared", jnp.arange(2.0)), bit("c")


def reverse_scan_over_drawn_xs():
    xs = jax.vmap(lambda p: bit("xs", p))(jnp.array([0.25, 0.5]))
    ppl.factor(xs[0] - 0.5 * xs[1])

    def step(c, x):
        z = bit("z", 0.25 + 0.5 * x)
        ppl.factor(jnp.where(z == x, 0.5, -0.25))
        return 2 * c + z, (c, z, x)

    c, ys = lax.scan(step, 0, xs, reverse=True)
    return xs, c, ys


def scan_in_a_branch(of_a_draw: bool):
    def program():
        a = bit("a", 0.25)
        ppl.factor(0.5 * a)

        def walk(a):
            def step(c, _):
                z = bit("z", 0.25 + 0.5 * a)
                ppl.factor(z - 0.25 * c)
                return c + z, (c, z)

            return lax.scan(step, a, None, length=2)

        still = lambda a: (a, (jnp.zeros(2, a.dtype),) * 2)  # noqa: E731
        return a, lax.cond(a == 1 if of_a_draw else jnp.array(True), walk, still, a), bit("w")

    return program


def batched_sites():
    a = bit("a", 0.25)
    xs = jax.vmap(lambda p: bit("xs", p + 0.25 * a))(jnp.array([0.25, 0.5]))
    jax.vmap(lambda x: ppl.factor(0.5 * x))(xs)
    with ppl.scope("some"):
        y = jax.vmap(lambda _: lax.cond(a == 1, lambda: bit("y", 0.75), lambda: 0))(jnp.arange(2))
    ppl.factor(-1.0 * y.sum())
    return a, xs, y, bit("z")


def loop():
    n = ppl.sample("n", dist.Categorical(jnp.array([0.25, 0.25, 0.5])))

    def body(i):
        ppl.factor(-0.5)
        return i + 1

    return n, lax.while_loop(lambda i: i < n, body, 0), bit("z")


def history_read_in_a_scan():
    path = ppl.append(ppl.history(2, jnp.zeros(())), 0, 1.0 * bit("a"))
    path = ppl.append(path, 1, 1.0 * bit("b"))
    ppl.factor(ppl.recall(path)[0])

    def step(c, _):
        z = bit("z", 0.25)
        ppl.factor(1.0 * z)
        return c + z, (z, ppl.recall(path))

    return ppl.recall(path), lax.scan(step, 0, None, length=2)


def deterministic_in_a_scan():
    def step(c, _):
        c = ppl.deterministic("c", c + 1)
        z = bit("z", 0.25)
        ppl.factor(0.5 * z)
        return c, (c, ppl.deterministic("y", jnp.arange(2.0)), z)

    return lax.scan(step, 0, None, length=2)


PROGRAMS = {
    "deterministic": deterministic_values,
    "deterministic in a scan": deterministic_in_a_scan,
    "reverse scan over drawn xs": reverse_scan_over_drawn_xs,
    "scan in a branch": scan_in_a_branch(False),
    "scan in a branch of a draw": scan_in_a_branch(True),
    "batched sites": batched_sites,
    "loop": loop,
    "history": history_read_in_a_scan,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_smc_is_properly_weighted(program):
    assert_properly_weighted(inference.smc(program, 2, ess_threshold=2.0), program)


@pytest.mark.parametrize("name", ["deterministic", "deterministic in a scan", "batched sites", "loop"])
def test_importance_sampling_is_properly_weighted(name):
    assert_properly_weighted(inference.importance(PROGRAMS[name], 1), PROGRAMS[name])


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_shared_deterministic_values_in_a_scan(algorithm):
    """What no draw has touched stays one value for all members, recorded or not."""
    population = ppl.seed(algorithm(deterministic_in_a_scan, 5))(KEY)
    c, (cs, ys, zs) = population.value
    assert (c.shape, cs.shape, ys.shape, zs.shape) == ((5,), (5, 2), (5, 2, 2), (5, 2))
    np.testing.assert_array_equal(cs, np.broadcast_to([1, 2], (5, 2)))
    np.testing.assert_array_equal(ys, np.broadcast_to([0.0, 1.0], (5, 2, 2)))


def test_the_outputs_of_a_scan_follow_their_lineage():
    """The stacked outputs are those that a carried copy of the whole path has."""

    def program():
        def step(carry, t):
            x, path = carry
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.factor(-(x**2))
            path = path.at[t].set(x)
            return (x, path), x

        (_, path), xs = lax.scan(step, (0.0, jnp.zeros(6)), jnp.arange(6))
        return path, xs

    population = ppl.seed(inference.smc(program, 32, ess_threshold=2.0))(KEY)
    path, xs = population.value
    assert int(population.generations) == 5 and len(np.unique(path[:, 0])) < 16
    np.testing.assert_array_equal(path, xs)
