"""Checks of what is said of data: drawn anew, scored element by element, left out."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from scipy import stats

from .check import check, near


def _seen(lib, see, proposal=None):
    """Bits that follow each other, and what is seen of each; another thing is seen in a branch."""

    def program():
        def step(x, y):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x), proposal=proposal)
            return jnp.asarray(x, int), see("y", dist.Bernoulli(0.125 + 0.75 * x), y)

        last, y = lax.scan(step, 0, jnp.array([1, 0]))
        z = lax.cond(last == 1, lambda: see("z", dist.Bernoulli(0.75), jnp.array(1)), lambda: jnp.array(0))
        return jnp.asarray(y, int), jnp.asarray(z, int)

    return program


def _drawing(lib):
    return _seen(lib, lambda name, d, value: jnp.asarray(lib.ppl.sample(name, d), value.dtype))


@check("ppl.unobserve")
def unobserved_data_has_its_own_law(lib):
    observing = _seen(lib, lib.ppl.observe)
    return lib.semantics.preserves(lambda _: lib.ppl.unobserve(observing), _drawing(lib))()


@check("inference.predictive")
def predictions_are_drawn_given_the_choices(lib):
    """For two draws at once, each by itself."""
    draws = jnp.array([[1, 1], [1, 0]])

    def predicted(key):
        return lib.inference.predictive(_seen(lib, lib.ppl.observe), {"x": draws})(key).value

    def right():
        y = lib.ppl.sample("y", dist.Bernoulli(0.125 + 0.75 * draws))
        return y, draws[:, 1] * lib.ppl.sample("z", dist.Bernoulli(0.75).expand([2]))

    return lib.semantics.same_distribution(lib.semantics.keyed(predicted), right)()


@check("inference.prior_predictive")
def the_prior_predicts_what_the_program_draws(lib):
    """Whatever its proposals are."""

    def predicted(key):
        program = _seen(lib, lib.ppl.observe, proposal=dist.Bernoulli(0.5))
        found = lib.inference.prior_predictive(program, 1)(key)
        return found.choices["x"][0], found.observed["y"][0]

    def right():
        run = lib.ppl.trace(_drawing(lib))()
        return run.choices["x"], run.choices["y"]

    return lib.semantics.same_distribution(lib.semantics.keyed(predicted), right)()


@check("inference.log_likelihood")
def likelihoods_of_elements_add_up_to_the_weight(lib):
    """In every run; what is in a branch that is not taken does not count."""
    program = _seen(lib, lib.ppl.observe)

    def traced():
        run = lib.ppl.trace(program)()
        return run.choices, run.log_weight

    def scored():
        run = lib.ppl.trace(program)()
        found = lib.inference.log_likelihood(program, run.choices)()
        return run.choices, found["y"].sum() + jnp.where(found["z"].present, found["z"].value, 0.0)

    return lib.semantics.preserves(lambda _: scored, traced)()


@check("inference.log_predictive_density", "inference.log_likelihood")
def elements_are_predicted_by_the_mean_density(lib):
    draws = jnp.array([[0.25, 0.75, 0.5], [0.125, 0.75, 0.25]])
    data = jnp.array([1, 0])

    def program():
        p = lib.ppl.sample("p", dist.Uniform(0.0, 1.0))
        lib.ppl.observe("y", dist.Bernoulli(p).expand([2]), data)

    def predicted():
        each, joint = (
            lib.inference.log_predictive_density(program, {"p": draws}, joint=joint)()
            for joint in (False, True)
        )
        return jnp.exp(each["y"]), jnp.exp(joint)

    def right():
        return jnp.stack([draws.mean(), 1 - draws.mean()]), jnp.mean(draws * (1 - draws))

    return lib.semantics.unbiased(predicted, right)()


@check("inference.psis")
def smoothed_weights_keep_a_pareto_tail(lib):
    """Of quantiles of a Pareto law, of which the shape is known, in no particular order."""
    weights = stats.genpareto(0.4).ppf((np.arange(20_000) + 0.5) / 20_000)
    order = np.random.default_rng(0).permutation(20_000)
    found = lib.inference.psis(np.log(weights[order]))
    smoothed = np.exp(found.log_weight)[np.argsort(order)]
    largest = smoothed[-100:-5] / (weights / weights.sum())[-100:-5]
    return near(lib, "the tail has its shape and size", [*largest, found.khat], [*np.ones(95), 0.4], 0.1)


@check("inference.loo")
def left_out_elements_are_predicted_by_the_others(lib):
    """Of measurements of one place, at the quantiles of its posterior given all; the first is the odd one out."""
    data = np.array([1.5, -0.4, 0.1, 0.3, -0.2, 0.2])

    def posterior(y):
        return y.sum() / (len(y) + 1), 1 / (len(y) + 1)

    def density_given(i):
        mean, variance = posterior(np.delete(data, i))
        return stats.norm(mean, np.sqrt(1 + variance)).logpdf(data[i])

    mean, variance = posterior(data)
    place = stats.norm(mean, np.sqrt(variance)).ppf((np.arange(4000) + 0.5) / 4000)
    place = np.random.default_rng(0).permutation(place).reshape(4, 1000, 1)
    found = lib.inference.loo({"y": stats.norm(place).logpdf(data)})
    right = [density_given(i) for i in range(len(data))]
    return near(lib, "each is predicted as without it", found.pointwise["y"], right, 0.01)
