"""Draws, made by hand so that what is to be said of them is known: numbers, warnings and tables."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference import Draws, State, Trajectory
from borelax.inference.chains.diagnostics import ess_bulk, ess_tail, rhat
from borelax.ppl import Masked

RNG = np.random.default_rng(0)
CHAINS, DRAWS = 4, 500
X = RNG.normal(size=(CHAINS, DRAWS))
SMOOTH = RNG.normal(size=(CHAINS, DRAWS, 2))


def trajectories(**changes) -> Trajectory:
    no = np.zeros((CHAINS, DRAWS), bool)
    usual = {
        "acceptance_rate": np.full((CHAINS, DRAWS), 0.8),
        "divergent": no,
        "energy": RNG.normal(size=(CHAINS, DRAWS)),
        "num_steps": np.full((CHAINS, DRAWS), 7),
        "cut_short": no,
        "step_size": np.full((CHAINS, DRAWS), 0.3),
    }
    return Trajectory(**usual | changes)


def made(choices=None, deterministic=None, **changes) -> Draws:
    choices = {"x": X, "block": {"y": SMOOTH}} if choices is None else choices
    draws = Draws(
        None,
        choices,
        deterministic or {},
        np.zeros((CHAINS, DRAWS)),
        trajectories(),
        np.ones(CHAINS, bool),
        State(None),
    )
    return replace(draws, **changes)


# ------------------------------------------------------------------------------ numbers


def test_statistics_are_those_of_all_draws():
    of = made(deterministic={"double": 2 * X}).summary().statistics
    assert list(of) == ["x", "block/y", "double"]
    y = of["block/y"]
    np.testing.assert_allclose(y.mean, SMOOTH.reshape(-1, 2).mean(0))
    np.testing.assert_allclose(y.sd, SMOOTH.reshape(-1, 2).std(0, ddof=1))
    np.testing.assert_allclose([y.low, y.median, y.high], np.quantile(SMOOTH, [0.05, 0.5, 0.95], axis=(0, 1)))
    for found, diagnose in ((y.rhat, rhat), (y.ess_bulk, ess_bulk), (y.ess_tail, ess_tail)):
        np.testing.assert_array_equal(found, diagnose(SMOOTH))
    assert of["x"].is_drawn and not of["double"].is_drawn and of["double"].mean == 2 * of["x"].mean


def test_of_a_site_in_a_branch_only_draws_in_which_it_is_present_count():
    present = RNG.uniform(size=(CHAINS, DRAWS)) < 0.25
    never, always = np.zeros_like(present), np.ones_like(present)
    choices = {name: Masked(X, where) for name, where in (("a", present), ("b", never), ("c", always))}
    summary = made(choices | {"v": Masked(SMOOTH, present)}).summary()
    a, b, c, v = (summary.statistics[name] for name in "abcv")
    np.testing.assert_allclose([a.mean, a.sd], [X[present].mean(), X[present].std(ddof=1)])
    np.testing.assert_allclose(a.present, present.mean())
    assert np.isnan(a.rhat) and np.isnan(b.mean) and b.present == 0
    np.testing.assert_allclose([c.mean, c.rhat], [X.mean(), rhat(X)])
    np.testing.assert_allclose(v.mean, SMOOTH[present].mean(0))
    assert summary.warnings == () and "present" in repr(summary)


def test_the_rows_with_the_largest_rhat_are_shown():
    drifting = SMOOTH[..., 0] + np.linspace(0, 3, DRAWS)
    wide = np.concatenate([RNG.normal(size=(CHAINS, DRAWS, 40)), drifting[..., None]], axis=-1)
    summary = made({"x": X, "w": wide}).summary(most=3)
    assert len(summary.table.rows) == 3 and summary.table.rows[-1][0] == "w[40]"
    assert "the 3 of 42 numbers with the largest R-hat" in repr(summary)
    assert summary.statistics["w"].mean.shape == (41,)


# ------------------------------------------------------------------------------ warnings


def test_good_draws_are_not_complained_of():
    assert made().summary().warnings == ()
    assert made({"n": RNG.poisson(3.0, size=(CHAINS, DRAWS))}).summary().warnings == ()


def with_stuck_chain(x, chain=2):
    x = x.copy()
    x[chain] = x[chain, 0]
    return x


def slow(number):
    return np.repeat(RNG.normal(size=(CHAINS, DRAWS // number)), number, axis=1)


def flags(number):
    flat = np.zeros(CHAINS * DRAWS, bool)
    flat[:number] = True
    return flat.reshape(CHAINS, DRAWS)


CONSTANT = np.ones((CHAINS, DRAWS))
BY_CHAIN = CONSTANT * np.arange(CHAINS)[:, None]
BAD = {
    "apart": (
        lambda: made({"x": X, "a": X + np.arange(CHAINS)[:, None]}),
        r"R-hat is 1\.\d\d\d for 'a', above 1.01",
    ),
    "drifting": (
        lambda: made({"v": SMOOTH + np.linspace(0, 3, DRAWS)[:, None]}),
        r"R-hat is .*'v\[0\]'.*'v\[1\]'",
    ),
    "slow": (
        lambda: made({"x": X, "s": slow(10)}),
        r"worth only \d+ independent ones for 's' .*400 is the least",
    ),
    "divergent": (lambda: made(info=trajectories(divergent=flags(3))), "3 of 2000 trajectories diverged"),
    "divergent in a cycle": (
        lambda: made(info=((), (trajectories(), trajectories(divergent=flags(1))))),
        "1 of 2000 trajectories diverged",
    ),
    "energy": (
        lambda: made(info=trajectories(energy=np.cumsum(RNG.normal(size=(CHAINS, DRAWS)), 1))),
        r"energy changes slowly in chains 0, 1, 2 and 3 \(E-BFMI 0.\d\d, below 0.3\)",
    ),
    "cut short": (
        lambda: made(info=trajectories(cut_short=flags(500))),
        "25.0% of the trajectories were cut short",
    ),
    "stuck": (
        lambda: made({"x": with_stuck_chain(X), "y": with_stuck_chain(SMOOTH)}),
        "All draws of chain 2 are the same",
    ),
    "constant": (lambda: made({"x": X, "z": CONSTANT.astype(int)}), "The same in all draws: 'z'"),
    "not moved": (lambda: made({"x": X, "z": BY_CHAIN}), "same in all draws of a chain: 'z'"),
    "bad start": (
        lambda: made(started=np.array([True, False, False, True])),
        "not finite where chains 1 and 2 started",
    ),
    "not finite": (
        lambda: made(log_density=np.where(flags(2), -np.inf, 0.0)),
        "2 of 2000 draws have a log density that is not finite, in chain 0",
    ),
    "one chain": (lambda: jax.tree.map(lambda x: x[:1], made()), "only one chain"),
    "few draws": (
        lambda: jax.tree.map(lambda x: x[:, :3] if x.ndim > 1 else x, made()),
        "fewer than 4 draws",
    ),
}


@pytest.mark.parametrize(("make", "match"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_in_words(make, match):
    summary = make().summary()
    with pytest.raises(AssertionError, match=match):
        assert not summary.warnings, "\n".join(summary.warnings)
    assert "WARNING: " in repr(summary) and "<li>" in summary._repr_html_()


def test_a_chain_that_is_stuck_is_no_site_that_is_not_moved():
    warnings = made({"x": BY_CHAIN}).summary().warnings
    assert not any("of a chain: " in warning for warning in warnings)
    assert any("chains 0, 1, 2 and 3 are the same" in warning for warning in warnings)


# ------------------------------------------------------------------------------ tables and trees


def test_a_summary_is_a_table():
    lines = repr(made().summary()).splitlines()
    assert lines[0] == "4 chains of 500 draws"
    assert lines[1].split()[:4] == ["address", "mean", "sd", "5%"]
    assert [line.split()[0] for line in lines[2:]] == ["x", "block/y[0]", "block/y[1]"]
    assert lines[2].split()[1] == f"{X.mean():.3g}" and lines[2].split()[-1] == "1.00"


def test_draws_show_what_they_hold():
    draws = made({"x": X, "m": Masked(X, flags(1))})
    assert "Draws: 4 chains of 500 draws" in repr(draws) and "float64[4,500]" in repr(draws)
    assert "<table>" in draws._repr_html_()
    shown = []
    jax.jit(lambda draws: shown.append(repr(draws)))(made(info=(), state=State(())))
    assert "float32[4,500]" in shown[0]


def test_draws_are_a_tree():
    half = jax.tree.map(lambda x: x[:, ::2] if x.ndim > 1 else x, made())
    np.testing.assert_array_equal(half.choices["x"], X[:, ::2])
    assert half.summary().statistics["x"].mean == X[:, ::2].mean()


# ------------------------------------------------------------------------------ of chains


def test_draws_of_mcmc_have_all_of_it():
    def program(y):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.observe("y", dist.Normal(ppl.deterministic("double", 2 * x), 1.0), y)
        return jnp.stack([x, y])

    draws = inference.mcmc(inference.nuts(program), num_samples=50, num_warmup=100)(
        jax.random.key(0), jnp.array(1.0)
    )
    assert draws.value.shape == (4, 50, 2) and draws.info.energy.shape == (4, 50)
    np.testing.assert_array_equal(draws.deterministic["double"], 2 * draws.choices["x"])
    density = jax.vmap(jax.vmap(lambda choices: ppl.log_density(program)(choices, jnp.array(1.0))))(
        draws.choices
    )
    np.testing.assert_allclose(draws.log_density, density, rtol=1e-5)
    np.testing.assert_array_equal(draws.state.trace.choices["x"], draws.choices["x"][:, -1])
    # The energy is that of the draw: what is left is kinetic.
    assert np.all(np.asarray(draws.info.energy + draws.log_density) > -1e-4)
