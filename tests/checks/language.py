"""Checks of densities and of programs that are made of programs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax

from .check import check
from .programs import drawn_inputs, small, switching


def _density_is_that_of_the_draws(lib, program):
    """A trace has the log density that ``log_density`` gives its choices, and probability to match."""

    def traced():
        run = lib.ppl.trace(program)()
        lib.ppl.factor(run.log_weight)
        return run.choices, run.log_density

    def scored():
        run = lib.ppl.trace(program)()
        lib.ppl.factor(run.log_weight)
        return run.choices, lib.ppl.log_density(program)(run.choices)

    return lib.semantics.preserves(lambda _: scored, traced)()


@check("ppl.log_density")
def density_of_branches(lib):
    return _density_is_that_of_the_draws(lib, switching(lib))


@check("ppl.log_density")
def density_of_branches_under_vmap(lib):
    def program():
        def one(p):
            x = lib.ppl.sample("x", dist.Bernoulli(p))
            return x, lax.cond(x == 1, lambda: lib.ppl.sample("y", dist.Bernoulli(0.75)) + 1, lambda: 0)

        return jax.vmap(one)(jnp.array([0.25, 0.5]))

    return _density_is_that_of_the_draws(lib, program)


@check("ppl.log_density")
def density_of_a_choice_that_no_branch_has(lib):
    """There is no such run: weighing all choices by their density, only those of runs remain."""

    def program():
        def one(p):
            x = lib.ppl.sample("x", dist.Bernoulli(p))
            return x, lax.cond(x == 1, lambda: lib.ppl.sample("y", dist.Bernoulli(0.75)), lambda: 0)

        return jax.vmap(one)(jnp.array([0.25, 0.5]))

    def guided():
        x, y, here = (lib.ppl.sample(name, dist.Bernoulli(0.5).expand([2])) for name in ("x", "y", "here"))
        choices = {"x": x, "y": lib.ppl.Masked(y * here, here == 1)}
        ways = jnp.prod(
            4.0 * (1 + here)
        )  # choices that are not there have two values here, and none in a run
        lib.ppl.factor(lib.ppl.log_density(program)(choices) + jnp.log(ways))
        return x, y * here

    return lib.semantics.preserves(lambda _: guided, program)()


@check("ppl.log_density")
def density_adds_up_to_the_mass(lib):
    """The exponential of the log density, added up over all choices, is the total mass."""
    program = drawn_inputs(lib)

    def uniform_guide():
        x = lib.ppl.sample("x", dist.Categorical(jnp.ones((2, 2)) / 2))
        y = lib.ppl.sample("y", dist.Categorical(jnp.ones((2, 2)) / 2))
        lib.ppl.factor(lib.ppl.log_density(program)({"x": x, "y": y}) + 4 * jnp.log(2.0))
        return x, y

    return lib.semantics.preserves(lambda _: uniform_guide, program)()


@check("ppl.update")
def update_weighs_by_the_change(lib):
    """From each trace to that with x turned over: new density is old density times weight."""
    program = small(lib, "chain")

    def updated():
        run = lib.ppl.trace(program)()
        edit = lib.ppl.update(program, {"x": 1 - run.choices["x"]})(run)
        return run.choices, edit.trace.log_density, run.log_density + edit.log_weight

    def by_hand():
        run = lib.ppl.trace(program)()
        there = lib.ppl.log_density(program)({"x": 1 - run.choices["x"], "y": run.choices["y"]})
        return run.choices, there, there

    return lib.semantics.preserves(lambda _: updated, by_hand)()


def _noisy(lib):
    def noisy(p):
        x = lib.ppl.sample("x", dist.Bernoulli(p))
        lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))

    return noisy


@check("ppl.marginal")
def marginal_by_importance_weighs_without_bias(lib):
    law = lib.ppl.marginal(_noisy(lib), "y", partial(lib.inference.importance, n=2))

    def seen():
        p = 0.25 + 0.5 * lib.ppl.sample("high", dist.Bernoulli(0.5))
        lib.ppl.observe("seen", law(p), 1)
        return p

    def exact():
        p = 0.25 + 0.5 * lib.ppl.sample("high", dist.Bernoulli(0.5))
        lib.ppl.factor(jnp.log(0.25 + 0.5 * p))
        return p

    return lib.semantics.preserves(lambda _: seen, exact)()


@check("ppl.normalize")
def normalize_has_the_density_of_its_draws(lib):
    """Observing a value with the density of the law, over all values, has total mass one."""

    def weighted():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        z = lib.ppl.sample("z", dist.Bernoulli(0.5))
        lib.ppl.factor(0.75 * x + 0.5 * z)

    law = lib.ppl.normalize(weighted, "x", partial(lib.inference.importance, n=2))

    def scored():
        x = lib.ppl.sample("value", dist.Bernoulli(0.5))
        lib.ppl.factor(jnp.log(2.0))
        lib.ppl.observe("seen", law(), x)
        return jnp.array(0)

    return lib.semantics.preserves(lambda _: scored, lambda: jnp.array(0))()


@check("ppl.unconstrain")
def unconstrained_density_has_its_jacobian(lib):
    """Weighted by it, a normal position is mapped to the program's own law."""

    def program():
        return lib.ppl.sample("rate", dist.Gamma(2.0, 1.0))

    free = lib.ppl.unconstrain(program)

    def mapped():
        law = dist.Normal(0.0, 1.5)
        x = lib.ppl.sample("position", law)
        lib.ppl.factor(free.log_density({"rate": x}) - law.log_prob(x))
        return free.constrain({"rate": x})["rate"]

    return lib.semantics.properly_weighted(mapped, program)()


@check("ppl.from_numpyro")
def subsampled_plates_are_scaled(lib):
    """The expectation of a minibatch's log likelihood is that of all the data."""
    data = jnp.array([0.5, -1.0, 2.0, 0.25])

    def model(size):
        with numpyro.plate("rows", 4, subsample_size=size) as rows:
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=data[rows])

    program = lib.ppl.from_numpyro(model)

    def estimate():
        return lib.ppl.weigh(program)(2)[1]

    return lib.semantics.unbiased(estimate, dist.Normal(0.0, 1.0).log_prob(data).sum())()
