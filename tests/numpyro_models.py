"""NumPyro models as their users write them, with arguments: what ``from_numpyro`` has to understand.

All have only proper priors, so that they can be drawn from. Where Stan's models have flat ones, theirs are wide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

MODELS: dict[str, Model] = {}


@dataclass(frozen=True)
class Model:
    """A model and its arguments.

    Attributes:
      plates: the plates that subsample: their size, and that of the subsample.
    """

    run: Callable
    args: tuple
    plates: tuple[tuple[int, int], ...] = ()

    @property
    def log_choices(self) -> float:
        """The log density of the indices of its plates, which NumPyro leaves out."""
        return sum(-math.log(math.perm(size, count)) for size, count in self.plates)


def model(*args, plates: tuple[tuple[int, int], ...] = ()):
    def register(run: Callable) -> Callable:
        MODELS[run.__name__] = Model(run, args, plates)
        return run

    return register


def data(name: str) -> dict[str, np.ndarray]:
    path = Path(__file__).parent / "data" / "posteriordb" / f"{name}.json"
    return {column: np.asarray(values, float) for column, values in json.loads(path.read_text()).items()}


EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
SERIES = np.array([0.3, -0.4, 1.2, 0.9, 2.2, 1.7])
GRID = np.linspace(-1.0, 1.0, 12).reshape(4, 3)


# ------------------------------------------------------------------------------ hierarchies and plates


@model(EFFECTS, ERRORS)
def eight_schools(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(effects)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, errors), obs=effects)


@model(EFFECTS, ERRORS)
def eight_schools_non_centred(effects, errors):
    with handlers.reparam(config={"theta": LocScaleReparam(0)}):
        eight_schools(effects, errors)


@model(EFFECTS, ERRORS)
def eight_schools_transformed(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("schools", len(effects)), handlers.reparam(config={"theta": TransformReparam()}):
        law = dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(mu, 5.0))
        theta = numpyro.sample("theta", law)
        numpyro.sample("y", dist.Normal(theta, errors), obs=effects)


@model(GRID)
def nested_plates(ys):
    rows, columns = numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 3, dim=-1)
    with rows:
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with columns:
        b = numpyro.sample("b", dist.Gamma(2.0, 1.0))
        v = numpyro.sample("v", dist.Dirichlet(jnp.ones(2)))
    with rows, columns:
        numpyro.sample("y", dist.Normal(a * v[..., 0], b), obs=ys)
    with numpyro.plate_stack("stack", [2, 3]):
        numpyro.sample("c", dist.Normal(jnp.zeros(3), 1.0))


@model(np.linspace(-1.0, 2.0, 10), plates=((10, 4),))
def subsampled(ys):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(ys), subsample_size=4) as indices:
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=ys[indices])
        numpyro.factor("tilt", 0.1 * mu)


@model(np.linspace(-1.0, 2.0, 10), GRID, plates=((10, 4), (3, 2)))
def subsampled_with_local_variables(ys, grid):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(ys), subsample_size=4):
        z = numpyro.sample("z", dist.StudentT(3.0, mu, 1.0))
        batch = numpyro.subsample(ys, event_dim=0)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=batch)
    with numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 3, subsample_size=2, dim=-1) as columns:
        numpyro.sample("w", dist.Normal(mu, 1.0), obs=grid[:, columns])


# ------------------------------------------------------------------------------ weights


@model(np.array([1.0, np.nan, 2.0, np.nan]), np.array([True, False, True, False]))
def masked_data(ys, known):
    rate = numpyro.sample("rate", dist.Exponential(1.0))
    with numpyro.plate("data", 4), handlers.mask(mask=known):
        numpyro.sample("y", dist.Exponential(rate), obs=ys)
    with handlers.mask(mask=known), numpyro.plate("again", 4):
        numpyro.sample("z", dist.Exponential(rate).mask(jnp.array(True)), obs=ys)
        numpyro.factor("f", -rate)
    with handlers.mask(mask=False):
        numpyro.sample("left_out", dist.Normal(rate, 1.0), obs=jnp.nan)
    with handlers.scale(scale=0.5):
        scores = jnp.broadcast_to(ys[:, None], (4, 2))
        numpyro.sample("v", dist.Normal(rate, 1.0).expand([4, 2]).to_event(1).mask(known), obs=scores)


@model(SERIES)
def scaled(ys):
    with handlers.scale(scale=2.5):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        numpyro.factor("tilt", 0.25 * mu)
    with numpyro.plate("data", 6), handlers.scale(scale=np.linspace(0.5, 1.0, 6)):
        z = numpyro.sample("z", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + z, 1.0), obs=ys)


@model()
def factors():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("one", -jnp.abs(x))
    numpyro.factor("several", jnp.stack([x, 2 * x]))
    with numpyro.plate("plate", 3):
        numpyro.factor("each", 0.5 * x)
    if numpyro.get_mask() is not False:
        numpyro.factor("another", 1.0)


# ------------------------------------------------------------------------------ distributions


@model(SERIES)
def mixture(ys):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("components", 3):
        means = numpyro.sample("means", dist.Normal(0.0, 3.0))
    law = dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.Normal(means, 1.0))
    with numpyro.plate("data", len(ys)):
        numpyro.sample("y", law, obs=ys)


@model(SERIES)
def assignments(ys):
    with numpyro.plate("components", 3):
        means = numpyro.sample("means", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", len(ys)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=ys)


@model(GRID)
def correlated(ys):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(3, 2.0))
    with numpyro.plate("rows", 4):
        numpyro.sample("y", dist.MultivariateNormal(0.0, scale_tril=scale[:, None] * factor), obs=ys)


@model()
def repeated():
    a = numpyro.sample("a", dist.Normal(jnp.zeros(2), 1.0), sample_shape=(3,))
    b = numpyro.sample("b", dist.Dirichlet(jnp.ones(2)).expand([4]))
    numpyro.sample("c", dist.Beta(2.0, 2.0).expand([2, 1]).expand([2, 3]).to_event(1))
    with numpyro.plate("plate", 2):
        numpyro.sample("d", dist.Normal(a.sum(), b[0, 0]), sample_shape=(5, 1))


@model(SERIES)
def broadcast(ys):
    """Observations that NumPyro broadcasts: values against one distribution, and the reverse."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("many", dist.Normal(mu, 1.0), obs=ys)
    numpyro.sample("one", dist.Normal(mu * ys, 1.0), obs=0.5)
    numpyro.sample("rows", dist.Normal(mu * ys, 1.0).to_event(1), obs=jnp.stack([ys, 2 * ys]))
    numpyro.sample("counts", dist.Poisson(jnp.exp(mu)), obs=np.array([1, 0, 3]))
    numpyro.sample("ignored", dist.Normal(mu, 1.0), obs=0.25, sample_shape=(4,))


@model(GRID, np.array([0, 1, 1, 0]))
def logistic(xs, ys):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    logits = numpyro.deterministic("logits", xs @ weights)
    return numpyro.sample("y", dist.Bernoulli(logits=logits), obs=ys)


# ------------------------------------------------------------------------------ handlers


@model(SERIES)
def submodels(ys):
    def walk(name):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        return numpyro.deterministic("twice", 2 * x)

    with handlers.scope(prefix="left"):
        left = walk("left")
    right = handlers.scope(walk, prefix="right", divider=".")("right")
    with handlers.scope(prefix="outer"), handlers.scope(prefix="inner"), numpyro.plate("data", 6):
        z = numpyro.sample("z", dist.Normal(left, 1.0))
        numpyro.sample("y", dist.Normal(z + right, 1.0), obs=ys)


@model()
def handled():
    def inner():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0), rng_key=None)
        b = numpyro.sample("b", dist.Normal(a, 1.0))
        s = numpyro.param("s", 1.0)
        return numpyro.sample("c", dist.Normal(b, s))

    lifted = handlers.lift(inner, prior={"s": dist.Exponential(1.0)})
    with handlers.condition(data={"c": 0.5}), handlers.do(data={"b": 2.0}):
        lifted()
    with handlers.substitute(data={"known": 3.0}):
        numpyro.sample("d", dist.Normal(numpyro.param("known"), 1.0))
    with handlers.block():
        numpyro.sample("hidden", dist.Normal(0.0, 1.0), obs=9.0)


# ------------------------------------------------------------------------------ control flow


@model(SERIES)
def state_space(ys):
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    phi = numpyro.sample("phi", dist.Beta(2.0, 2.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(phi * x, sigma))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        numpyro.factor("smooth", -0.1 * x**2)
        return x, numpyro.deterministic("squared", x**2)

    first = numpyro.sample("first", dist.Normal(0.0, 1.0))
    last, squares = scan(step, first, ys, history=0)
    numpyro.deterministic("last", last)
    return squares


@model(GRID)
def several_series(ys):
    """A scan with a plate in it, and handlers around it."""

    def step(x, y):
        with numpyro.plate("series", 3), handlers.mask(mask=y > -0.5):
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        with numpyro.plate("series", 3):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
        return x, None

    with handlers.scale(scale=0.5), handlers.mask(mask=True):
        scan(step, jnp.zeros(3), ys)


@model(SERIES)
def hidden_markov(ys):
    with numpyro.plate("states", 2):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(2)))

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)
        return z, None

    scan(step, 0, ys)


@model(SERIES)
def branches(ys):
    which = numpyro.sample("which", dist.Normal(0.0, 1.0))
    high = lambda y: numpyro.sample("x", dist.Normal(20.0, 1.0)) + y  # noqa: E731
    low = lambda y: numpyro.sample("x", dist.Normal(which, 2.0))  # noqa: E731
    x = cond(which > 0, high, low, 1.0)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=ys)


# ------------------------------------------------------------------------------ posteriordb


def regression(predictors, outcome, sigma: dist.Distribution):
    predictors = jnp.stack([jnp.ones_like(outcome), *predictors], axis=-1)
    beta = numpyro.sample("beta", dist.Normal(0, 1000).expand([predictors.shape[-1]]).to_event(1))
    sigma = numpyro.sample("sigma", sigma)
    with numpyro.plate("data", len(outcome)):
        numpyro.sample("y", dist.Normal(predictors @ beta, sigma), obs=outcome)


@model(data("kidiq"))
def kidscore_interaction(d):
    predictors = [d["mom_hs"], d["mom_iq"], d["mom_hs"] * d["mom_iq"]]
    regression(predictors, d["kid_score"], dist.HalfCauchy(2.5))


@model(data("mesquite"))
def logmesquite_logvash(d):
    area = d["diam1"] * d["diam2"]
    shapes = [area * d["canopy_height"], area, d["diam1"] / d["diam2"], d["total_height"]]
    regression([*map(jnp.log, shapes), d["group"]], jnp.log(d["weight"]), dist.HalfNormal(1000))


@model(data("nes1980"))
def nes(d):
    ages = [(d["age_discrete"] == age).astype(float) for age in (2, 3, 4)]
    others = [d["educ1"], d["gender"], d["income"]]
    regression([d["real_ideo"], d["race_adj"], *ages, *others], d["partyid7"], dist.HalfNormal(1000))


@model(data("arma"))
def arma11(d):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    phi = numpyro.sample("phi", dist.Normal(0, 2))
    theta = numpyro.sample("theta", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))

    def step(carry, y):
        before, error = carry
        prediction = mu + phi * before + theta * error
        numpyro.sample("y", dist.Normal(prediction, sigma), obs=y)
        return (y, y - prediction), None

    scan(step, (mu, 0.0), d["y"])


# ------------------------------------------------------------------------------ small enough to enumerate


def coins(ys, *, observed: bool = True):
    """Coins with a common bias, of which all but one are looked at."""
    bias = jnp.array([0.25, 0.75])[numpyro.sample("biased", dist.Bernoulli(0.5))]
    with numpyro.plate("coins", len(ys), subsample_size=len(ys) - 1) as indices:
        flips = numpyro.sample("flips", dist.Bernoulli(bias))
        looks = dist.Bernoulli(0.125 + 0.5 * flips)
        numpyro.sample("y", looks, obs=ys[indices] if observed else None)
    return flips.sum() + 4 * indices[0]
