"""to_arviz: the groups and their names, by the interfaces of ArviZ before and since version 1."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from borelax import inference, ppl
from borelax.inference import Draws, Prediction, State, Trajectory
from borelax.ppl import Masked

RNG = np.random.default_rng(0)
CHAINS, DRAWS = 4, 50
X, SMOOTH, Y = (RNG.normal(size=(CHAINS, DRAWS, *shape)) for shape in ((), (2,), (3,)))
PRESENT = RNG.uniform(size=(CHAINS, DRAWS)) < 0.5


def trajectories(num_steps: int) -> Trajectory:
    no, some = np.zeros((CHAINS, DRAWS), bool), np.full((CHAINS, DRAWS), 0.3)
    return Trajectory(some, no, X, np.full((CHAINS, DRAWS), num_steps), no, some)


def made() -> Draws:
    """By a cycle of three kernels, of which two follow gradients."""
    return Draws(
        value=None,
        choices={"block": {"y": SMOOTH}, "m": Masked(X, PRESENT)},
        deterministic={"double": 2 * X},
        log_density=X - 1,
        info=(trajectories(7), inference.Acceptance(X, PRESENT), trajectories(1)),
        started=np.ones(CHAINS, bool),
        state=State(None),
    )


PREDICTION = Prediction(None, {"out": {"y": Y}, "b": Masked(X, PRESENT)}, {"new": X}, {})
PRIOR = Prediction(None, {"out": {"y": Y[0]}}, {"block": {"y": SMOOTH[0]}}, {"double": X[0]})
GIVEN = {
    "log_likelihood": {"out": {"y": -(Y**2)}},
    "posterior_predictive": PREDICTION,
    "prior": PRIOR,
    "observed_data": {"out": {"y": Y[0, 0]}},
}


def fake_arviz(monkeypatch, version: str) -> list:
    calls = []
    module = SimpleNamespace(
        __version__=version, from_dict=lambda *args, **groups: calls.append((args, groups))
    )
    monkeypatch.setitem(sys.modules, "arviz", module)
    return calls


@pytest.mark.parametrize("version", ["0.23.4", "1.3.0"])
def test_both_interfaces_get_the_groups(monkeypatch, version):
    calls = fake_arviz(monkeypatch, version)
    made().to_arviz(**GIVEN)
    args, keywords = calls[0]
    groups = keywords if version.startswith("0") else args[0]
    assert (args == ()) == version.startswith("0")
    assert {name: set(group) for name, group in groups.items() if name != "sample_stats"} == {
        "posterior": {"block.y", "m", "double"},
        "posterior_predictive": {"out.y", "b"},
        "log_likelihood": {"out.y"},
        "prior": {"block.y", "double"},
        "prior_predictive": {"out.y"},
        "observed_data": {"out.y"},
    }
    np.testing.assert_array_equal(groups["posterior"]["m"], np.where(PRESENT, X, np.nan))
    np.testing.assert_array_equal(groups["posterior_predictive"]["out.y"], Y)
    np.testing.assert_array_equal(groups["prior_predictive"]["out.y"], Y[:1])
    stats = groups["sample_stats"]
    assert {"lp", "diverging", "energy", "n_steps", "acceptance_rate", "n_steps_1"} <= stats.keys()
    assert np.all(stats["n_steps"] == 7) and np.all(stats["n_steps_1"] == 1)


def test_groups_that_are_not_given_are_not_there(monkeypatch):
    calls = fake_arviz(monkeypatch, "0.23.4")
    made().to_arviz()
    assert calls[0][1].keys() == {"posterior", "sample_stats"}


def test_the_library_itself_takes_them():
    found = made().to_arviz(**GIVEN)
    assert set(found.groups()) == {"posterior", "sample_stats", "prior", "prior_predictive"} | (
        GIVEN.keys() - {"prior"}
    )
    np.testing.assert_array_equal(found.posterior["block.y"], SMOOTH)
    np.testing.assert_array_equal(found.sample_stats["lp"], X - 1)
    assert found.prior["block.y"].shape == (1, DRAWS, 2) and found.observed_data["out.y"].shape == (3,)
    assert found.sample_stats["diverging"].dtype == bool


def test_what_chains_and_predictions_give_is_taken():
    """From a program to ArviZ's own score."""

    def program(ys):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        with ppl.scope("seen"):
            ppl.observe("y", dist.Normal(x, 1.0).expand([2]), ys)

    ys = jnp.array([0.5, -0.5])
    key = jax.random.key(0)
    draws = inference.mcmc(inference.elliptical_slice(program, ["x"]), num_samples=DRAWS, num_warmup=0)(
        key, ys
    )
    scores = inference.log_likelihood(program, draws)(ys)
    data = draws.to_arviz(
        log_likelihood=scores,
        posterior_predictive=inference.predictive(program, draws)(key, ys),
        prior=inference.prior_predictive(program, 20)(key, ys),
        observed_data={"seen": {"y": ys}},
    )
    assert data.posterior_predictive["seen.y"].shape == (4, DRAWS, 2)
    assert data.prior_predictive["seen.y"].shape == (1, 20, 2) and data.prior["x"].shape == (1, 20)
    each = np.moveaxis(np.asarray(scores["seen"]["y"], float).reshape(-1, 2), 0, -1)
    ours = np.logaddexp.reduce(inference.psis(-each).log_weight + each, axis=-1)
    np.testing.assert_allclose(arviz.loo(data, reff=1.0).elpd_loo, ours.sum(), rtol=1e-6)


def test_a_group_of_other_draws_is_refused():
    with pytest.raises(
        ValueError, match=r"'out.y' of log_likelihood has the shape \(4, 49, 3\).*4 chains of 50 draws"
    ):
        made().to_arviz(log_likelihood={"out": {"y": Y[:, 1:]}})


def test_without_arviz_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    for ask in (made().to_arviz, made().plot):
        with pytest.raises(ImportError, match=r"borelax\[arviz\]") as error:
            ask()
        assert isinstance(error.value, ppl.BorelaxError)
