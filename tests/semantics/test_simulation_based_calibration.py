"""Simulation-based calibration: exactly on finite programs, and against samplers that are wrong in many ways."""

from __future__ import annotations

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from families import family
from jax import lax

from borelax import inference, ppl, semantics
from borelax.semantics.simulation_based_calibration import replicate

# ------------------------------------------------------------------------- exactly: the law of the ranks


def coins():
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.sample("y", dist.Bernoulli(0.125 + 0.5 * x))


def die():
    x = ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
    ppl.sample("y", dist.Bernoulli(jnp.array([0.25, 0.5, 0.75])[x]))


def branch():
    x = ppl.sample("x", dist.Bernoulli(0.25))
    z = lax.cond(x == 1, lambda: ppl.sample("z", dist.Bernoulli(0.75)) + 1, lambda: 0)
    ppl.sample("y", dist.Bernoulli(0.25 + 0.25 * z))


def unevenness(program, posterior, draws=2, **options) -> dict[str, float]:
    """How far the law of each component's ranks is from uniform, in total variation."""
    law = semantics.meaning(replicate(program, "y", posterior, draws, **options))().map(lambda pair: pair[0])
    assert law.total == pytest.approx(1.0, abs=1e-12)
    uniform = semantics.Measure(list(range(draws + 1)), np.full(draws + 1, 1 / (draws + 1)))
    return {name: law.map(lambda ranks: ranks[name]).distance(uniform) for name in law.values[0]}


def exactly_from(program, odds=lambda target, choices: 0.0):
    """Independent draws from the posterior by enumeration, or from one tilted by ``odds``."""

    def posterior(target):
        def tilted():
            choices = target()
            ppl.factor(odds(target, choices))
            return choices

        def draws():
            population = inference.enumerate(tilted)()
            picked = ppl.sample("picked", dist.Categorical(logits=population.log_weight).expand([2]))
            return jax.tree.map(lambda x: x[picked], population.value)

        return draws

    return posterior


@pytest.mark.parametrize("program", [coins, die, branch], ids=lambda p: p.__name__)
def test_ranks_among_exact_draws_are_uniform(program):
    uneven = unevenness(program, exactly_from(program))
    assert {"x", "log likelihood", "log density"} <= uneven.keys()
    assert max(uneven.values()) < 1e-10


def test_what_a_tilt_does_to_ranks():
    """Tilted by a site that only one branch has: the ranks of that site tell."""
    odds = lambda target, choices: jnp.where(choices["z"].present, 0.5 * choices["z"].value, 0.0)  # noqa: E731
    assert unevenness(branch, exactly_from(branch, odds))["z"] > 1e-3


def test_draws_from_the_prior_have_uniform_ranks_except_of_the_likelihood():
    blind = lambda target, choices: -ppl.log_density(target)(choices) + ppl.log_density(prior)(choices)  # noqa: E731
    prior = lambda: ppl.sample("x", dist.Bernoulli(0.25))  # noqa: E731
    uneven = unevenness(coins, exactly_from(coins, blind))
    assert uneven["x"] < 1e-10 and uneven["log likelihood"] > 0.01


@pytest.mark.parametrize("draws", [1, 3])
def test_a_reversible_kernel_started_from_the_truth(draws):
    """Exactly uniform after one step already: nothing has to be forgotten."""
    kernel = lambda target: inference.mh(target, ppl.select("x"))  # noqa: E731
    assert max(unevenness(coins, kernel, draws, quantities={}).values()) < 1e-10
    assert max(unevenness(branch, kernel, draws=1).values()) < 1e-10


class Kernel:
    """A kernel by hand: what happens to x, whatever the data."""

    def __init__(self, target, move):
        self.program, self.move = target, move
        self.init = lambda trace, *args: State(trace)

    def __call__(self, state, *args):
        x = self.move(state.trace.choices["x"], *args)
        return State(ppl.update(self.program, {"x": x})(state.trace, *args).trace)


@jax.tree_util.register_pytree_node_class
class State:
    def __init__(self, trace):
        self.trace = trace

    def tree_flatten(self):
        return (self.trace,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def fair_die():
    ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))
    ppl.sample("y", dist.Bernoulli(0.5))


def test_a_kernel_that_is_not_reversible_has_no_uniform_ranks_unless_it_is_made_a_palindrome():
    turn = lambda x: (x + 1) % 3  # noqa: E731
    shake = lambda x: jnp.where(ppl.sample("which", dist.Bernoulli(0.25)) == 1, turn(x), x)  # noqa: E731
    assert semantics.leaves_invariant(
        shake, lambda: ppl.sample("x", dist.Categorical(jnp.ones(3) / 3))
    )().holds
    assert unevenness(fair_die, lambda target: Kernel(target, shake), quantities={})["x"] > 1e-3

    def palindrome(x):
        there = ppl.sample("there", dist.Bernoulli(0.25))
        back = ppl.sample("back", dist.Bernoulli(0.25))
        return (x + there - back) % 3

    assert unevenness(fair_die, lambda target: Kernel(target, palindrome), quantities={})["x"] < 1e-10


def test_members_of_an_exact_population():
    assert max(unevenness(coins, inference.enumerate).values()) < 1e-10


def test_members_of_a_small_population_are_not_drawn_from_the_posterior():
    assert unevenness(coins, partial(inference.importance, n=2), quantities={})["x"] > 0.01


# ------------------------------------------------------------------------- by a test


def normal(*_):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(x, 1.0))


def conjugate(target):
    """Draws from the exact posterior, or from one that is off as the arguments say. The arguments are traced, so that
    what is wrong does not have to be compiled again."""

    def draws(prior_precision, noise_precision, shift, scale):
        precision = prior_precision + noise_precision
        mean = noise_precision * target.data["y"] / precision
        d = dist.Normal(mean + shift / jnp.sqrt(precision), scale / jnp.sqrt(precision))
        return {"x": ppl.sample("draws", d.expand([63]))}

    return draws


WRONG = {
    "too narrow by a tenth": (1.0, 1.0, 0.0, 0.9),
    "too wide by a tenth": (1.0, 1.0, 0.0, 1.1),
    "shifted": (1.0, 1.0, 0.2, 1.0),
    "prior counted twice": (2.0, 1.0, 0.0, 1.0),
    "likelihood ignored": (1.0, 0.0, 0.0, 1.0),
    "likelihood counted twice": (1.0, 2.0, 0.0, 1.0),
}
calibrated = partial(semantics.simulation_based_calibration, normal, "y")


def arrays(*numbers):
    return map(jnp.array, numbers)


def test_draws_from_the_posterior():
    report = calibrated(conjugate)(*arrays(1.0, 1.0, 0.0, 1.0))
    assert report.holds and 0.01 < report.p_value and report.counterexample is None
    assert set(report.ranks) == {"x", "log likelihood", "log density"} and report.draws == 63
    assert all(
        ranks.shape == (2_048,) and ranks.min() == 0 and ranks.max() == 63 for ranks in report.ranks.values()
    )
    lower, upper = report.ecdf_bands(1 - 1e-6)
    assert all(np.all((lower <= d) & (d <= upper)) for d in report.ecdf_difference().values())


@pytest.mark.parametrize(("wrong",), family([(wrong,) for wrong in WRONG.values()], every=2), ids=WRONG)
def test_wrong_draws_are_found(wrong):
    report = calibrated(conjugate, semantics.Budget(draws=4_096, batch=256))(*arrays(*wrong))
    assert not report.holds and report.p_value <= 1e-6
    assert "at the share of ranks of" in str(report.counterexample)
    assert len(report.ranks["x"]) < 4_096


def test_without_the_densities_draws_from_the_prior_pass():
    """Why test quantities are needed that depend on the data."""
    ignored = arrays(*WRONG["likelihood ignored"])
    assert calibrated(conjugate, quantities={})(*ignored).holds


def test_a_quantity_of_ones_own():
    product = {"x y": lambda target, choices, *_: choices["x"] * target.data["y"]}
    report = calibrated(conjugate, quantities=product)(*arrays(*WRONG["likelihood ignored"]))
    assert not report.holds and set(report.ranks) == {"x", "x y"} and "x y" in report.counterexample.where


def metropolis(target):
    """A random walk with steps of size ``scale``; with ``power=-1`` it accepts the wrong way round."""

    def step(key, x, scale, power):
        propose, decide = jax.random.split(key)
        y = x + scale * jax.random.normal(propose)
        ratio = ppl.log_density(target)({"x": y}, scale, power) - ppl.log_density(target)(
            {"x": x}, scale, power
        )
        return jnp.where(jnp.log(jax.random.uniform(decide)) < power * ratio, y, x)

    return Kernel(target, semantics.keyed(step))


def test_a_kernel_started_from_the_truth():
    """However slowly it mixes: one that never moves passes."""
    check = calibrated(metropolis, draws=7)
    assert check(*arrays(1.5, 1.0)).holds
    assert check(*arrays(0.0, 1.0)).holds
    assert not check(*arrays(1.5, -1.0)).holds


def test_a_kernel_that_has_to_find_its_way():
    check = calibrated(metropolis, draws=7, thin=12, warmup=12)
    assert check(*arrays(2.5, 1.0)).holds
    assert not check(*arrays(0.2, 1.0)).holds
    assert not check(*arrays(0.0, 1.0)).holds
    assert not check(*arrays(2.5, 0.7)).holds


def walk(count):
    def step(x, _):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        return x, ppl.sample("y", dist.Normal(x, 0.5))

    return lax.scan(step, 0.0, None, length=count)[1]


def test_sequential_monte_carlo():
    """The sites of a scan, with enough particles; with too few the exact tests above tell."""
    report = semantics.simulation_based_calibration(
        walk, "y", partial(inference.smc, n=300), semantics.Budget(draws=512, batch=256), draws=7
    )(2)
    assert report.holds and {"x[0]", "x[1]"} <= report.ranks.keys()


def test_a_population_without_weight_has_the_rank_of_a_failure():
    def hopeless(target):
        def never():
            ppl.factor(-jnp.inf)
            return target()

        return inference.importance(never, 8, check=False)

    report = calibrated(hopeless)()
    assert not report.holds and all(np.all(ranks == 0) for ranks in report.ranks.values())


def test_a_proposal_is_not_what_data_are_drawn_from():
    def guided():
        x = ppl.sample("x", dist.Normal(0.0, 1.0), proposal=dist.Normal(0.0, 2.0))
        ppl.sample("y", dist.Normal(x, 1.0))

    posterior = lambda target: lambda: conjugate(target)(1.0, 1.0, 0.0, 1.0)  # noqa: E731
    assert semantics.simulation_based_calibration(guided, "y", posterior)().holds


def line(xs, *_):
    w = ppl.sample("w", dist.Normal(0.0, 1.0).expand([2]))
    ppl.sample("y", dist.Normal(w[0] + w[1] * xs, 0.5).to_event(1))


def nuts(target):
    """Another library's sampler, of the density to some power."""

    def draw(key, xs, power):
        density = lambda x: power * ppl.log_density(target)(x, xs)  # noqa: E731
        kernel = blackjax.nuts(density, 0.4, jnp.ones(2), max_num_doublings=4)
        step = lambda state, key: (kernel.step(key, state)[0], state.position)  # noqa: E731
        start = kernel.init({"w": jnp.zeros(2)})
        path = lax.scan(step, start, jax.random.split(key, 80))[1]
        return jax.tree.map(lambda x: x[20::4], path)

    return semantics.keyed(draw)


def test_nuts_of_blackjax():
    check = semantics.simulation_based_calibration(line, "y", nuts, semantics.Budget(draws=1_024, batch=256))
    xs = jnp.array([-1.0, 0.0, 1.0])
    report = check(xs, jnp.array(1.0))
    assert report.holds and set(report.ranks) == {"w[0]", "w[1]", "log likelihood", "log density"}
    assert not check(xs, jnp.array(1.5)).holds


# ------------------------------------------------------------------------- what is said, and what is refused


def test_the_form_that_raises_and_the_figure_numbers():
    with pytest.raises(semantics.CheckFailed, match="FAILS") as failed:
        semantics.assert_simulation_based_calibration(normal, "y", conjugate)(*arrays(1.0, 1.0, 0.0, 0.5))
    report = failed.value.report
    lower, upper = report.ecdf_bands()
    curve = report.ecdf_difference()["x"]
    assert np.any(curve > upper) and np.any(curve < lower)
    assert curve[5] > 0 > curve[-6]  # too narrow: the true value is often beyond all draws


def test_the_same_seed_gives_the_same_ranks():
    check = lambda seed: calibrated(conjugate, semantics.Budget(draws=512, batch=256, seed=seed))(  # noqa: E731
        *arrays(1.0, 1.0, 0.0, 1.0)
    )
    one, other, third = check(0), check(0), check(1)
    assert np.array_equal(one.ranks["x"], other.ranks["x"])
    assert not np.array_equal(one.ranks["x"], third.ranks["x"])


def weighted():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.observe("seen", dist.Normal(x, 1.0), 0.0)
    ppl.sample("y", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("program", "observed", "error", "match"),
    [
        (weighted, "y", ppl.UnsupportedError, r"'seen' \(test_simulation.*sample site"),
        (coins, "z", ppl.AddressError, "'z', which is no site"),
        (coins, ["x", "y"], ppl.AddressError, "nothing to infer"),
        (coins, ppl.select(), ppl.AddressError, "observes nothing"),
    ],
)
def test_what_cannot_be_simulated_is_refused(program, observed, error, match):
    with pytest.raises(error, match=match):
        semantics.simulation_based_calibration(program, observed, inference.enumerate)()


def draws_of(value):
    return lambda target: lambda: value


@pytest.mark.parametrize(
    "value",
    [
        {"z": jnp.zeros(3)},
        {"x": jnp.zeros(())},
        {"x": jnp.zeros((3, 2))},
        {"x": jnp.zeros(3), "y": jnp.zeros(3)},
        1.0,
    ],
    ids=["another site", "no axis", "an axis too many", "the data too", "no choices"],
)
def test_draws_that_are_no_choices_are_refused(value):
    with pytest.raises(ppl.ChoiceError, match="one leading axis"):
        calibrated(draws_of(value))()


def test_a_quantity_with_the_name_of_a_site_is_refused():
    check = semantics.simulation_based_calibration(
        coins, "y", inference.enumerate, quantities={"x": lambda *_: 0.0}
    )
    with pytest.raises(ppl.AddressError, match="another name"):
        check()


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"thin": 0}, {"warmup": -1}, {"draws": 2.5}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        calibrated(conjugate, **wrong)
