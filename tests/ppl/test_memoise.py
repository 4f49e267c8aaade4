"""ppl.mem: random functions whose values are drawn once, over finite domains exactly and over any domain by running."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.tree_util import Partial
from thresholds import assert_mean, z_threshold

from borelax import inference, ppl, semantics

KEY = jax.random.key(0)
BIAS = np.array([0.25, 0.5, 0.875])


def flip(i):
    return ppl.sample("heads", dist.Bernoulli(jnp.asarray(BIAS)[i]))


def normal(*args):
    return ppl.sample("x", dist.Normal(0.0, 1.0))


def weights(measure) -> dict:
    return {repr(jax.tree.map(int, value)): weight for value, weight in measure}


# ------------------------------------------------------------------------- over a finite domain


def test_every_value_is_drawn_once():
    """Three lookups, against the sum over all eight functions from {0, 1, 2} to {0, 1}."""

    def program(i, j):
        coin = ppl.mem("coin", flip, 3)
        return coin(i), coin(j), coin(2)

    for i, j in [(0, 1), (1, 1), (2, 0)]:
        expected: dict = {}
        for table in itertools.product((0, 1), repeat=3):
            seen = repr((table[i], table[j], table[2]))
            expected[seen] = expected.get(seen, 0.0) + np.where(table, BIAS, 1 - BIAS).prod()
        measure = semantics.meaning(program)(jnp.array(i), jnp.array(j))
        assert weights(measure) == pytest.approx(expected, rel=1e-12)


def test_a_product_of_domains():
    def program():
        likes = ppl.mem("likes", lambda i, j: 10 * i + j + 100 * ppl.sample("x", dist.Bernoulli(0.5)), (2, 3))
        return jax.vmap(lambda i: jax.vmap(lambda j: likes(i, j))(jnp.arange(3)))(jnp.arange(2))

    trace = ppl.simulate(program)(KEY)
    x = trace.choices["likes"]["x"]
    assert x.shape == (2, 3)
    np.testing.assert_array_equal(trace.value, 100 * x + np.array([[0, 1, 2], [10, 11, 12]]))
    np.testing.assert_allclose(trace.log_density, 6 * np.log(0.5), rtol=1e-6)


def posterior():
    """A coin of three is picked twice; the two flips are seen to agree."""
    coin = ppl.mem("coin", flip, 3)
    i, j = (ppl.sample(name, dist.Categorical(jnp.array([0.5, 0.25, 0.25]))) for name in ("i", "j"))
    ppl.factor(jnp.where(coin(i) == coin(j), 0.0, -jnp.inf))
    return i, j


def test_the_posterior_of_arguments():
    pick = np.array([0.5, 0.25, 0.25])
    agree = lambda i, j: 1.0 if i == j else BIAS[i] * BIAS[j] + (1 - BIAS[i]) * (1 - BIAS[j])  # noqa: E731
    expected = {repr((i, j)): pick[i] * pick[j] * agree(i, j) for i in range(3) for j in range(3)}
    assert weights(semantics.meaning(posterior)()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_inference_over_a_memoised_function(algorithm):
    population = jax.jit(ppl.seed(algorithm(posterior, 20_000)))(KEY)
    same = np.exp(population.log_weight) * (population.value[0] == population.value[1])
    assert_mean(same, 0.5**2 + 2 * 0.25**2)


def test_its_sites_are_sites():
    """Density, conditioning and intervention, against one site that draws the whole table."""

    def program():
        f = ppl.mem("f", normal, 3)
        return f(2) + ppl.observe("y", dist.Normal(f(0), 1.0), 1.0)

    table = jnp.array([0.5, -1.0, 2.0])
    prior, likelihood = dist.Normal(0.0, 1.0).log_prob(table).sum(), dist.Normal(0.5, 1.0).log_prob(1.0)
    density = ppl.log_density(program)({"f": {"x": table}})
    np.testing.assert_allclose(density, prior + likelihood, rtol=1e-6)
    given = ppl.simulate(ppl.condition(program, {"f": {"x": ppl.partly([jnp.nan, 7.0, 2.0])}}))(KEY)
    assert given.choices["f"]["x"][2] == 2.0 and given.value == 3.0
    done = ppl.simulate(ppl.do(program, {"f": {"x": table}}))(KEY)
    np.testing.assert_allclose(done.log_weight, likelihood, rtol=1e-6)


def test_a_table_is_a_value():
    def program():
        coin = ppl.mem("coin", flip, 3)

        def step(f, i):
            return f, f(i)

        return lax.scan(step, coin, jnp.array([0, 1, 2, 0]))

    for (table, seen), weight in semantics.meaning(program)():
        assert seen.tolist() == [int(table(i)) for i in (0, 1, 2, 0)]
        assert weight == pytest.approx(np.where(table.values, BIAS, 1 - BIAS).prod(), rel=1e-12)
    population = ppl.seed(inference.smc(lambda: ppl.mem("coin", flip, 3), 1000))(KEY)
    assert_mean(population.value.values, BIAS)
    np.testing.assert_allclose(
        population.expectation(lambda coin: coin(2)), np.mean(population.value.values[:, 2]), rtol=1e-5
    )


@pytest.mark.parametrize("index", [3, -1, np.int64(3), jnp.array(-1)])
def test_an_index_outside_the_domain_is_refused(index):
    with pytest.raises(
        ppl.SiteError,
        match=rf"'coin' has the domain 0, ..., 2, but was called with {int(index)} at test_memoise.py:\d+",
    ):
        ppl.seed(lambda: ppl.mem("coin", flip, 3)(index))(KEY)


@pytest.mark.parametrize("index", [3, -1, -3])
def test_a_computed_index_outside_the_domain_gives_no_value(index):
    assert np.isnan(ppl.seed(lambda i: ppl.mem("f", normal, 3)(i))(KEY, jnp.array(index)))
    least = ppl.seed(lambda i: ppl.mem("coin", flip, 3)(i))(KEY, jnp.array(index))
    assert int(least) == np.iinfo(np.int32).min


@pytest.mark.parametrize("args", [(), (1, 2), (1.0,), (True,), ([1, 2],), (np.arange(2),)])
def test_what_is_no_index_is_refused(args):
    with pytest.raises(
        ppl.SiteError, match=r"'coin' is a function of 1 integer scalars.* at test_memoise.py:\d+"
    ):
        ppl.seed(lambda: ppl.mem("coin", flip, 3)(*args))(KEY)


@pytest.mark.parametrize("domain", [0, -1, 2.0, (), (2, 0), [2]])
def test_what_is_no_domain_is_refused(domain):
    with pytest.raises(
        ppl.SiteError, match=r"test_memoise.py:\d+: a domain has a positive integer size for each argument"
    ):
        ppl.seed(lambda: ppl.mem("coin", flip, domain))(KEY)


# ------------------------------------------------------------------------- over any domain


def everywhere(x):
    """The same argument in a jit, a vmap, a scan, a while_loop and a branch."""
    f = ppl.mem("f", normal)
    in_vmap = jax.vmap(f)(jnp.stack([x, x + 1]))[0]
    in_scan = lax.scan(lambda c, _: (c, f(x)), 0, None, length=2)[1]
    in_while = lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, f(x)), (0, 0.0))[1]
    in_branch = lax.cond(x > 0, f, lambda x: 0.0, x)
    return jnp.stack([f(x), jax.jit(f)(x), in_vmap, *in_scan, in_while, in_branch])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_the_same_argument_has_the_same_value_everywhere(impl):
    values = np.asarray(jax.jit(ppl.seed(everywhere))(jax.random.key(0, impl=impl), jnp.array(3)))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_it_is_a_function_of_its_argument_alone():
    """Argument by argument or all at once, in any order, in the program or after it."""
    f = jax.jit(ppl.seed(lambda: ppl.mem("f", normal)))(KEY)
    x = jnp.arange(50)
    together = jax.vmap(f)(x)
    np.testing.assert_allclose(lax.map(f, x[::-1])[::-1], together, rtol=1e-6)
    np.testing.assert_allclose(f(7), together[7], rtol=1e-6)
    inside = ppl.seed(lambda: jax.vmap(ppl.mem("f", normal))(x))(KEY)
    np.testing.assert_allclose(inside, together, rtol=1e-6)
    assert len(set(together.tolist())) == 50


EQUAL = [
    (1, jnp.array(1)),
    (0.0, -0.0),
    (np.nan, -np.nan),
    ((1, [2.0]), (jnp.array(1), [np.float32(2.0)])),
    (True, np.bool_(True)),
]
DIFFERENT = [
    (0, 1),
    (0, 0.0),
    (0, False),
    (1.0, np.nextafter(np.float32(1), np.float32(2))),
    (np.zeros(2, np.int32), np.zeros(3, np.int32)),
    (np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32)),
    (np.int8(1), np.int16(1)),
    ((1, 2), (2, 1)),
    ((1, 2), [1, 2]),
    ((1, (2, 3)), ((1, 2), 3)),
    ({"a": 1}, {"b": 1}),
    (np.array([1, 2]), (1, 2)),
    (np.array([1, 1], np.uint8), np.array([257], np.uint16)),
    ((), None),
]


@pytest.fixture(scope="module")
def function():
    return ppl.seed(lambda: ppl.mem("f", normal))(KEY)


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_arguments(function, one, other):
    assert float(function(one)) == float(function(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_different_arguments(function, one, other):
    assert float(function(one)) != float(function(other))


def test_arguments_of_64_bits():
    with jax.enable_x64(True):
        function = ppl.seed(lambda: ppl.mem("f", normal))(KEY)
        one, high, low = (jnp.array(n, jnp.int64) for n in (1, 1 + 2**40, 2))
        assert len({float(function(x)) for x in (one, high, low, one.astype(jnp.int32), one + 0.0)}) == 5
        assert float(function(one + 1)) == float(function(low))


def test_no_two_of_many_arguments_collide():
    """Neighbours, powers of two and pairs. By chance two of the 30 000 values of 69 bits agree once in 10^12 runs."""
    uniform = dist.Uniform(0.0, 1.0).expand([3])
    f = ppl.seed(lambda: ppl.mem("f", lambda *x: ppl.sample("x", uniform)))(KEY)
    singles = jnp.concatenate([jnp.arange(-5000, 5000), 2 ** jnp.arange(13, 31), -(2 ** jnp.arange(13, 31))])
    pairs = jnp.arange(20_000)
    values = jnp.concatenate([jax.vmap(f)(singles), jax.vmap(f)(pairs // 200, pairs % 200)])
    assert len({tuple(row) for row in values.tolist()}) == len(singles) + len(pairs)


def test_values_at_different_arguments_are_independent():
    """Moments of (f(0), f(1), f(2), f(-1), f((0, 0))) over many runs are those of independent standard normals."""

    def run(key):
        f = ppl.seed(lambda: ppl.mem("f", normal))(key)
        return jnp.stack([*jax.vmap(f)(jnp.array([0, 1, 2, -1])), f(0, 0)])

    x = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 50_000)))
    assert_mean(x, np.zeros(5))
    assert_mean(x[:, :, None] * x[:, None, :], np.eye(5))


def test_values_of_one_function_are_independent():
    """Over the arguments of one run, neighbouring values do not go together."""
    f = ppl.seed(lambda: ppl.mem("f", normal))(KEY)
    x = np.asarray(jax.jit(jax.vmap(f))(jnp.arange(100_000)), np.float64)
    for lag in (1, 2, 256):
        products = x[lag:] * x[:-lag]
        assert abs(products.mean()) * np.sqrt(len(products)) < z_threshold(3)


def test_two_functions_are_independent_and_copies_too():
    def program():
        f, g = ppl.mem("f", normal), ppl.mem("g", normal)
        copies = jax.vmap(lambda x: ppl.mem("h", normal)(x), in_axes=None, axis_size=2)(1)
        steps = lax.scan(lambda c, _: (c, ppl.mem("s", normal)(1)), 0, None, length=2)[1]
        return jnp.stack([f(1), g(1), *copies, *steps])

    x = np.asarray(jax.jit(jax.vmap(ppl.seed(program)))(jax.random.split(KEY, 20_000)))
    assert_mean(x[:, :, None] * x[:, None, :], np.eye(6))


def test_a_memoised_function_calls_another():
    """Sums along a line that all share their beginnings: f(n) = f's own step + g(n // 2)."""

    def program():
        g = ppl.mem("g", normal)
        f = ppl.mem("f", lambda n: ppl.sample("step", dist.Normal(g(n // 2), 1.0)))
        return jnp.stack([f(2), f(3), f(4)])

    x = np.asarray(jax.jit(jax.vmap(ppl.seed(program)))(jax.random.split(KEY, 20_000)))
    assert_mean(x[:, :, None] * x[:, None, :], [[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 2.0]])


def test_a_program_with_parameters():
    """A Partial: the memoised function carries its arrays, out of the program too."""
    shifted = lambda mean, x: ppl.sample("x", dist.Normal(mean + x, 1.0))  # noqa: E731
    program = lambda mean: ppl.mem("f", Partial(shifted, mean))  # noqa: E731
    functions = jax.jit(jax.vmap(ppl.seed(program), in_axes=(0, None)))(
        jax.random.split(KEY, 20_000), jnp.array(10.0)
    )
    assert_mean(jax.vmap(lambda f: f(5.0))(functions), 15.0)


def dirichlet_process(alpha):
    """Two draws from a random measure with law DP(alpha, uniform): its sticks and atoms are two memoised functions."""
    stick = ppl.mem("stick", lambda k: ppl.sample("v", dist.Beta(1.0, alpha)))

    def draw(name):
        u = ppl.sample(name, dist.Uniform(0.0, 1.0))

        def next_stick(carry):
            k, rest, _ = carry
            left = rest * (1 - stick(k))
            return k + 1, left, u < 1 - left

        found = lax.while_loop(lambda carry: ~carry[2], next_stick, (0, 1.0, jnp.array(False)))
        return found[0]

    return draw("u") == draw("w")


def test_a_dirichlet_process():
    """Two draws fall on one atom with probability 1 / (1 + alpha)."""
    alpha = jnp.array(1.5)
    same = jax.jit(jax.vmap(ppl.seed(dirichlet_process), in_axes=(0, None)))(
        jax.random.split(KEY, 20_000), alpha
    )
    assert_mean(same, 1 / 2.5)


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_inference_runs_it(algorithm):
    """f(i) ~ Bernoulli(bias[i]) at two drawn arguments, against the same program over a finite domain, enumerated."""

    def program(domain):
        coin = ppl.mem("coin", flip, domain)
        i = ppl.sample("i", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
        ppl.factor(jnp.where(coin(i) == 1, 0.0, -1.0))
        j = ppl.sample("j", dist.Categorical(jnp.array([0.25, 0.25, 0.5])))
        ppl.factor(jnp.where(coin(j) == coin(i), 0.0, -2.0))
        return coin(0) + 2 * coin(1) + 4 * coin(j)

    exact = semantics.meaning(lambda: program(3))()
    run = ppl.seed(algorithm(lambda: program(None), 8))
    populations = jax.jit(jax.vmap(run))(jax.random.split(KEY, 20_000))
    weight = np.exp(populations.log_weight)
    assert_mean(weight.mean(-1), exact.total)
    assert_mean((weight * populations.value).mean(-1), exact.expectation())


def test_particles_of_one_ancestor_share_their_function():
    """The function counts as drawn where mem is called, at arguments too that are asked for later."""

    def program():
        f = ppl.mem("f", normal)
        ppl.factor(-10.0 * f(0) ** 2)
        ppl.sample("z", dist.Normal(0.0, 1.0))
        return f(0), f(1)

    population = ppl.seed(inference.smc(program, 50, ess_threshold=2.0))(KEY)
    f0, f1 = map(np.asarray, population.value)
    assert len(set(f0.tolist())) == len(set(f1.tolist())) == len(set(zip(f0.tolist(), f1.tolist()))) < 50


def unbounded():
    f = ppl.mem("f", normal)
    return ppl.observe("y", dist.Normal(f(1), 1.0), ppl.sample("z", dist.Normal(0.0, 1.0)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ppl.simulate(unbounded)(KEY),
        lambda: ppl.log_density(unbounded)({}),
        lambda: ppl.log_density(unbounded)({"f": KEY, "z": 0.0}),
        lambda: ppl.seed(ppl.weigh(ppl.condition(unbounded, {"f": KEY})))(KEY),
        lambda: ppl.seed(ppl.weigh(ppl.do(unbounded, {"f": KEY})))(KEY),
        lambda: ppl.simulate(lambda: jax.vmap(lambda _: unbounded())(jnp.arange(2)))(KEY),
    ],
    ids=["trace", "log_density", "log_density at a key", "condition", "do", "vmap"],
)
def test_who_asks_for_a_density_is_refused(ask):
    with pytest.raises(
        ppl.UnsupportedError, match=r"'f' \(test_memoise.py:\d+\) draws a PRNG key.*finite domain"
    ):
        ask()


def test_enumeration_is_refused():
    with pytest.raises(ppl.UnsupportedError, match=r"'f' \(test_memoise.py:\d+\) has a RandomKey"):
        semantics.meaning(unbounded)()


def test_the_other_sites_can_be_conditioned_on():
    value, log_weight = ppl.seed(ppl.weigh(ppl.condition(unbounded, {"z": 0.5})))(KEY)
    assert value == 0.5 and np.isfinite(log_weight)
    assert ppl.trace_type(unbounded)()["f"].shape == ()


def test_a_memoised_program_with_weights_is_refused():
    def program():
        return ppl.mem("f", lambda x: ppl.factor(1.0, "inner"))(1)

    with pytest.raises(ppl.UnsupportedError, match="carries weights, which seed cannot honour: 'inner'"):
        ppl.seed(program)(KEY)


def test_arguments_without_bits_are_refused():
    with pytest.raises(
        ppl.UnsupportedError, match="integers, floats and booleans, got an array of dtype complex64"
    ):
        ppl.seed(lambda: ppl.mem("f", normal)(1j))(KEY)
    with pytest.raises(TypeError):
        ppl.seed(lambda: ppl.mem("f", normal)("text"))(KEY)
