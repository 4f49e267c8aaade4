from __future__ import annotations

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro import handlers, primitives
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.util import log_density
from numpyro_models import MODELS, SERIES, coins, eight_schools, state_space
from scipy import stats
from thresholds import assert_mean

from borelax import inference, ppl, semantics
from borelax.ppl.choices import flatten, spell

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def numpyro_is_left_as_it_was():
    yield
    assert primitives._PYRO_STACK == []


def named(choices) -> dict:
    """Choices keyed by NumPyro's names."""
    return {spell(address): value for address, value in flatten(choices).items()}


def computed(sites) -> dict:
    return {name: site["value"] for name, site in sites.items() if site["type"] == "deterministic"}


def drawn(sites) -> dict:
    """The shapes and dtypes of what NumPyro draws: unobserved sites, and the indices of plates that subsample."""
    values = {
        name: site["value"]
        for name, site in sites.items()
        if (site["type"] == "sample" and not site["is_observed"])
        or (site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]))
    }
    return {name: (value.shape, value.dtype) for name, value in values.items()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_densities_choices_and_deterministic_values_are_numpyros(model):
    program = ppl.from_numpyro(model.run)
    numpyros = {}

    @jax.jit
    def both(key, *args):
        run = ppl.simulate(program)(key, *args)
        density = ppl.log_density(program)(run.choices, *args)
        numpyros.update(drawn(handlers.trace(handlers.seed(model.run, key)).get_trace(*args)))
        expected, sites = log_density(model.run, args, {}, named(run.choices))
        return run, density, expected, computed(sites)

    with jax.enable_x64(True):
        run, density, expected, deterministic = both(KEY, *model.args)
        expected = pytest.approx(float(expected) + model.log_choices, rel=1e-12)
        assert np.isfinite(float(density))
        assert float(density) == expected and float(run.log_density) == expected
    assert {name: (value.shape, value.dtype) for name, value in named(run.choices).items()} == numpyros
    jax.tree.map(np.testing.assert_array_equal, named(run.deterministic), deterministic)


# ------------------------------------------------------------------------------ what NumPyro's density does not tell


def normal(name, mean=0.0, **options):
    return numpyro.sample(name, dist.Normal(mean, 1.0), **options)


def step(x, y):
    x = normal("x", x)
    normal("y", x, obs=y)
    return x, x


def walk_density(xs, start=0.0) -> float:
    """Of ``step``, from its states and the data; the states in the order in which they are visited."""
    return stats.norm.logpdf(xs, [start, *xs[:-1]]).sum() + stats.norm.logpdf(SERIES, xs).sum()


XS = np.array([0.5, -1.0, 2.0, 1.0, 0.0, 3.0])


def density(model, choices, *args):
    with jax.enable_x64(True):
        return float(ppl.log_density(ppl.from_numpyro(model))(choices, *args))


def test_a_scan_in_reverse_has_its_choices_in_the_order_of_the_data():
    """NumPyro's own density of a reversed scan reads the choices from their other end."""
    expected = stats.norm.logpdf(XS, [*XS[1:], 0.0]).sum() + stats.norm.logpdf(SERIES, XS).sum()
    model = lambda ys: scan(step, 0.0, ys, reverse=True)[1]  # noqa: E731
    assert density(model, {"x": XS}, SERIES) == pytest.approx(expected, rel=1e-12)


def test_a_scope_around_a_scan_nests_its_sites():
    def model(ys):
        with handlers.scope(prefix="walk"):
            scan(step, 0.0, ys)

    assert density(model, {"walk": {"x": XS}}, SERIES) == pytest.approx(walk_density(XS), rel=1e-12)


def test_a_reparameterisation_around_a_scan_goes_into_it():
    """NumPyro has no density for it: it would reparameterise what it has scanned already."""
    zs = np.diff(XS, prepend=0.0)
    config = {"x": numpyro.infer.reparam.LocScaleReparam(0)}
    model = handlers.reparam(lambda ys: scan(step, 0.0, ys)[1], config=config)
    run = density(model, {"x_decentered": zs}, SERIES)
    assert run == pytest.approx(walk_density(XS), rel=1e-12)


def test_one_body_under_different_handlers():
    """JAX keeps what it has traced of a function; handlers are no part of what it looks at."""
    plain = density(lambda ys: scan(step, 0.0, ys), {"x": XS}, SERIES)
    scaled = density(handlers.scale(lambda ys: scan(step, 0.0, ys), scale=2.0), {"x": XS}, SERIES)
    assert scaled == pytest.approx(2 * plain, rel=1e-12)


@pytest.mark.parametrize("flag", [True, False])
def test_branches_with_different_sites(flag):
    model = lambda flag: cond(flag, lambda _: normal("a"), lambda _: normal("b", 1.0), None)  # noqa: E731
    here, there = ("a", "b") if flag else ("b", "a")
    masked = {here: ppl.Masked(0.5, True), there: ppl.Masked(0.0, False)}
    expected = stats.norm.logpdf(0.5, 0.0 if flag else 1.0)
    assert density(model, masked, np.array(flag)) == pytest.approx(expected, rel=1e-12)


def test_outside_the_support_of_a_scaled_site_the_density_is_zero():
    model = handlers.scale(lambda: numpyro.sample("x", dist.Uniform(0.0, 1.0)), scale=0.5)
    jitted = jax.jit(ppl.log_density(ppl.from_numpyro(model)))
    assert float(jitted({"x": 2.0})) == -np.inf and float(jitted({"x": 0.5})) == 0.0


def test_the_gradient_ignores_masked_data():
    def model(ys):
        rate = numpyro.sample("rate", dist.Exponential(1.0))
        with handlers.mask(mask=~jnp.isnan(ys)):
            numpyro.sample("y", dist.Exponential(rate), obs=ys)

    gradient = jax.grad(ppl.log_density(ppl.from_numpyro(model)))
    ys = jnp.array([1.0, jnp.nan, 2.0])
    assert float(gradient({"rate": jnp.array(0.5)}, ys)["rate"]) == pytest.approx(2 / 0.5 - 3.0 - 1.0)


# ------------------------------------------------------------------------------ as a program like any other

YS = np.array([1, 0, 1])


def enumerated_coins() -> dict:
    """The measure of ``coins`` from NumPyro's density, added up over all choices."""
    biased, first, second = np.array(list(itertools.product([0, 1], repeat=3))).T
    indices = np.array(list(itertools.permutations(range(3), 2)))
    flips = np.stack([first, second], -1)

    def density(biased, flips, indices):
        return log_density(
            coins, (jnp.asarray(YS),), {}, {"biased": biased, "flips": flips, "coins": indices}
        )[0]

    with jax.enable_x64(True):
        over_flips = jax.vmap(density, in_axes=(0, 0, None))
        weights = np.exp(jax.jit(jax.vmap(over_flips, in_axes=(None, None, 0)))(biased, flips, indices)) / 6
    values = flips.sum(-1) + 4 * indices[:, :1]
    return {int(value): float(weights[values == value].sum()) for value in np.unique(values)}


def test_the_measure_of_a_model():
    """With a subsample, a uniform choice, whose scale is a power of the densities of the sites in its plate."""
    measure = {int(value): weight for value, weight in semantics.meaning(ppl.from_numpyro(coins))(YS)}
    assert measure == pytest.approx(enumerated_coins(), rel=1e-12)


def test_smc_is_unbiased():
    program, ys = ppl.from_numpyro(coins), YS[:2]
    runs = semantics.meaning(inference.smc(program, 2))(ys)
    with jax.enable_x64(True):
        evidence = sum(weight * np.exp(float(run.log_evidence)) for run, weight in runs)
    assert evidence == pytest.approx(semantics.meaning(program)(ys).total, rel=1e-12)


def test_conditioning_is_observing():
    seen = ppl.from_numpyro(coins)
    unseen = ppl.from_numpyro(lambda ys: coins(ys, observed=False))
    indices = np.array([2, 0])
    fixed = {"coins": indices}
    observed = semantics.meaning(ppl.do(seen, fixed))(YS)
    conditioned = semantics.meaning(ppl.condition(ppl.do(unseen, fixed), {"y": YS[indices]}))(YS)
    assert dict(conditioned) == pytest.approx(dict(observed), rel=1e-12)


def test_the_types_of_the_sites():
    types = ppl.trace_type(ppl.from_numpyro(coins))(YS)
    kinds = {name: (type.kind, type.shape) for name, type in types.items()}
    assert kinds == {
        "biased": ("sample", ()),
        "coins": ("sample", (2,)),
        "flips": ("sample", (2,)),
        "y": ("observe", (2,)),
    }
    assert types["flips"].source.startswith("numpyro_models.py:")


def test_draws_have_the_distribution_of_the_model():
    def model():
        tau = numpyro.sample("tau", dist.Gamma(3.0, 2.0))
        with numpyro.plate("groups", 2, subsample_size=1) as groups:
            pass  # sites inside would have a scale
        with handlers.scope(prefix="scoped"):
            mu = numpyro.sample("mu", dist.Normal(jnp.array([1.0, 3.0])[groups], tau))

        def step(x, _):
            with numpyro.plate("pair", 2):
                x = numpyro.sample("x", dist.Normal(0.5 * x, 1.0))
            return x, x

        xs = scan(step, jnp.ones(2) * mu, None, length=3)[1]
        return jnp.stack(
            [tau, tau**2, groups[0], mu[0], mu[0] ** 2, *xs[:, 0], xs[2, 0] * xs[1, 1], xs[2, 0] ** 2]
        )

    draws = jax.jit(jax.vmap(ppl.seed(ppl.from_numpyro(model))))(jax.random.split(KEY, 20_000))
    mu_squared = 3.0 + 5.0  # E tau^2 + E m^2, for m = 1 or 3
    expected = [
        1.5,
        3.0,
        0.5,
        2.0,
        mu_squared,
        1.0,
        0.5,
        0.25,
        mu_squared / 32,
        mu_squared / 64 + 1 + 1 / 4 + 1 / 16,
    ]
    assert_mean(draws, expected)


@pytest.mark.parametrize("algorithm", [inference.importance, inference.smc], ids=lambda f: f.__name__)
def test_inference_runs_inside_jit(algorithm):
    program = ppl.from_numpyro(state_space)
    particles = jax.jit(ppl.seed(algorithm(program, 100)))(KEY, SERIES)
    assert particles.value.shape == (100, 6) and np.isfinite(particles.log_evidence)


def test_a_model_with_observations_is_weighed():
    program = ppl.from_numpyro(state_space)
    value, log_weight = jax.jit(ppl.seed(ppl.weigh(program)))(KEY, SERIES)
    assert value.shape == (6,) and np.isfinite(log_weight)
    with pytest.raises(ppl.UnsupportedError, match="carries weights"):
        ppl.seed(program)(KEY, SERIES)


# ------------------------------------------------------------------------------ what is refused


def under(handler):
    return lambda: handler(lambda ys: scan(step, 0.0, ys))(SERIES)


def in_a_plate(**options):
    def model():
        with numpyro.plate("data", 3, **options):
            normal("x")

    return model


def module():
    numpyro.module("net", (lambda key, shape: (shape, {}), lambda params, x: x), (3,))


def seeded_inside():
    with handlers.block():
        normal("x")


def masked_partly_observed():
    normal("y", obs=jnp.zeros(2), obs_mask=jnp.array([True, False]))


LAWS = {
    "improper": dist.ImproperUniform(dist.constraints.real, (), ()),
    "inner mask": dist.Normal(jnp.zeros(2), 1.0).mask(jnp.array([True, False])).to_event(1),
    "pair": dist.Normal(jnp.zeros(2), 1.0),
}

REFUSED = {
    "param": (lambda: numpyro.param("w", 1.0), r"param\('w'\).*no parameters.*test_from_numpyro.py:\d+"),
    "module": (module, r"param\('net\$params'\)"),
    "mutable": (lambda: numpyro.primitives.mutable("m", {}), "'mutable'"),
    "key": (lambda: numpyro.prng_key(), "asks for a PRNG key"),
    "block": (seeded_inside, "asks for a PRNG key"),
    "uncondition": (lambda: handlers.uncondition(normal)("x", obs=1.0), "asks for a PRNG key"),
    "latent mask": (lambda: handlers.mask(normal, mask=False)("x"), "'x' is masked and not observed"),
    "obs_mask": (masked_partly_observed, "'y_unobserved' is masked.*ppl.partly"),
    "inner mask": (
        lambda: numpyro.sample("x", LAWS["inner mask"], obs=jnp.zeros(2)),
        "lies inside Independent",
    ),
    "substitute": (lambda: handlers.substitute(normal, data={"x": 1.0})("x"), "'x' has a value that is not"),
    "improper": (lambda: numpyro.sample("x", LAWS["improper"]), "'x' has the distribution ImproperUniform"),
    "subsample": (in_a_plate(subsample_size=4), "'data' has a subsample of 4 out of 3"),
    "scale": (lambda: handlers.scale(normal, scale=np.ones(2))("x"), r"scale of 'x' has shape \(2,\)"),
    "shape": (
        lambda: numpyro.sample("x", LAWS["pair"], obs=jnp.zeros(3)),
        r"'x'.*shape \(3,\).*Normal.*\(2,\)",
    ),
    "event": (lambda: numpyro.sample("x", LAWS["pair"].to_event(1), obs=jnp.zeros(3)), r"'x'.*shape \(3,\)"),
    "jit": (lambda: jax.jit(normal, static_argnums=0)("x"), "sample 'x' lies inside a transformation of JAX"),
    "vmap": (lambda: jax.vmap(lambda m: normal("x", m))(jnp.zeros(2)), "sample 'x' lies inside"),
    "lax.scan": (lambda: lax.scan(step, 0.0, SERIES), "sample 'x' lies inside"),
    "condition": (under(lambda f: handlers.condition(f, data={"x": XS})), "condition around NumPyro's scan"),
    "do": (under(lambda f: handlers.do(f, data={"x": XS})), "do around NumPyro's scan"),
    "mask": (under(lambda f: handlers.mask(f, mask=XS > 0)), "mask by an array around NumPyro's scan"),
    "scales": (
        under(lambda f: handlers.scale(f, scale=np.ones(6))),
        "scale by an array around NumPyro's scan",
    ),
    "trace": (under(handlers.trace), "trace around NumPyro's scan"),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(model, message):
    with pytest.raises(ppl.BorelaxError, match=message):
        ppl.trace_type(ppl.from_numpyro(model))()


def test_a_model_is_a_function():
    with pytest.raises(TypeError, match="a NumPyro model, which is a function, not dict"):
        ppl.from_numpyro({})


def test_an_event_of_another_size_is_not_broadcast():
    """Not even where NumPyro's formula would go through, and count one value several times."""
    law = dist.Normal(jnp.zeros(1), 1.0).to_event(1)
    with pytest.raises(ppl.ChoiceError, match=r"shape \(3,\).*event \(1,\)"):
        density(lambda: numpyro.sample("x", law, obs=jnp.zeros(3)), {})


# ------------------------------------------------------------------------------ NumPyro's stack


def test_an_error_in_a_model_leaves_nothing_behind():
    def model():
        with numpyro.plate("data", 3), handlers.scale(scale=2.0), handlers.scope(prefix="s"):
            normal("x")
            raise KeyError("the model's own")

    for _ in range(2):
        with pytest.raises(KeyError, match="the model's own"):
            ppl.trace_type(ppl.from_numpyro(model))()
        assert primitives._PYRO_STACK == []
    inside = lambda: scan(lambda x, _: (normal("x", x) + jnp.zeros(2), None), 0.0, None, length=2)  # noqa: E731
    with pytest.raises(TypeError, match="carry"):
        ppl.trace_type(ppl.from_numpyro(inside))()


def test_handlers_outside_have_no_say():
    program = ppl.from_numpyro(eight_schools)
    args = MODELS["eight_schools"].args
    expected = ppl.simulate(program)(KEY, *args)
    with handlers.trace() as trace, handlers.scale(scale=2.0), handlers.seed(rng_seed=0):
        with handlers.substitute(data={"mu": 3.0}), numpyro.plate("outside", 7):
            run = ppl.simulate(program)(KEY, *args)
    assert list(trace) == ["outside"]
    jax.tree.map(np.testing.assert_array_equal, run, expected)


def test_models_in_several_threads_do_not_meet():
    inside = []

    def model(name):
        inside.append(name)
        x = normal(name)
        time.sleep(0.02)
        assert inside == [name]
        inside.remove(name)
        return x

    found = {}

    def work(name):
        found[name] = list(ppl.trace_type(ppl.from_numpyro(lambda: model(name)))())

    threads = [threading.Thread(target=work, args=(f"x{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"x{i}": [f"x{i}"] for i in range(4)}


def test_a_program_may_call_another():
    inner = ppl.from_numpyro(lambda: normal("inner"))

    def outer():
        with numpyro.plate("data", 2):
            normal("outer", inner())

    assert [type.shape for type in ppl.trace_type(ppl.from_numpyro(outer))().values()] == [(), (2,)]
