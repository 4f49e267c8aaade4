"""Checks of exact inference: of finite programs small enough to go through all their runs one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .check import check


def reader(lib):
    """A chain of letters that an automaton reads, with weights between neighbours, and draws that live on around it."""
    moves, reads = np.array([[0.75, 0.25], [0.5, 0.5]], np.float32), np.array([[1, 2], [1, 0], [0, 2]])

    def program():
        a = lib.ppl.sample("a", dist.Bernoulli(0.25))
        b = lib.ppl.sample("b", dist.Bernoulli(0.5))

        def step(carry, weight):
            state, letter = carry
            new = lib.ppl.sample("letter", dist.Categorical(jnp.asarray(moves)[letter]))
            lib.ppl.factor(jnp.where(new == letter, weight, 0.5 * a))
            return (jnp.asarray(reads)[state, new], new), None

        (state, _), _ = jax.lax.scan(step, (0, 0), jnp.array([0.5, -0.25, 1.0]))
        lib.ppl.factor(jnp.where(state == 1, -jnp.inf, 0.25 * state * b))
        return a, state

    return program


def short_chain(lib):
    """Two states, and the path."""

    def program():
        def step(state, weight):
            state = lib.ppl.sample("state", dist.Bernoulli(jnp.array([0.25, 0.625])[state]))
            lib.ppl.factor(weight * state)
            y = jax.vmap(toss)(state[None])[0]
            lib.ppl.factor(0.5 * y)
            return state, (state, y)

        def toss(state):
            return jax.lax.cond(state == 1, lambda: lib.ppl.sample("y", dist.Bernoulli(0.25)), lambda: 0)

        return jax.lax.scan(step, 1, jnp.array([0.5, -0.25]))[1]

    return program


@check("inference.enumerate")
def enumerate_adds_up_runs_in_one_state(lib):
    program = reader(lib)
    return lib.semantics.preserves(lambda _: lib.inference.enumerate(program), program)()


@check("inference.enumerate")
def enumerate_has_room_for_all_states(lib):
    """Where it has not, its weights are not numbers."""
    has_room = lambda: ~jnp.isnan(lib.inference.enumerate(reader(lib))().log_evidence)  # noqa: E731
    return lib.semantics.preserves(lambda _: has_room, lambda: jnp.array(True))()


@check("inference.posterior_draw")
def posterior_draws_have_the_posterior(lib):
    program = short_chain(lib)

    def drawn():
        lib.ppl.factor(lib.inference.enumerate(lambda: (program(), 0)[1])().log_evidence)
        return lib.inference.posterior_draw(program)().value

    return lib.semantics.preserves(lambda _: drawn, program)()


@check("inference.posterior_mode")
def the_posterior_mode_is_the_best_run(lib):
    program = short_chain(lib)

    def best():
        mode = lib.inference.posterior_mode(program)()
        lib.ppl.factor(mode.log_density)
        return mode.value

    values, weights = zip(*lib.semantics.meaning(program)())
    first = int(np.argmax(weights))

    def by_hand():
        lib.ppl.factor(jnp.log(weights[first]))
        return jax.tree.map(jnp.asarray, values[first])

    return lib.semantics.preserves(lambda _: best, by_hand)()


@check("inference.posterior_marginals")
def posterior_marginals_are_those_of_the_runs(lib):
    """A step, and a choice in it: by marginals, and in a run."""
    program = short_chain(lib)
    step = dist.Categorical(jnp.ones(2) / 2)

    def by_marginals():
        marginals = lib.inference.posterior_marginals(program)()
        lib.ppl.factor(lib.inference.enumerate(lambda: (program(), 0)[1])().log_evidence)
        t = lib.ppl.sample("step", step)
        state, y = (marginals[name].probability[t].reshape(2) for name in ("state", "y"))
        y = jnp.append(y, 1.0 - y.sum())  # or none
        return t, lib.ppl.sample("of", dist.Categorical(state)), lib.ppl.sample("other", dist.Categorical(y))

    def apart():
        """Whether in one run or in two does not matter to what each is."""
        t = lib.ppl.sample("step", step)
        with lib.ppl.scope("one"):
            state, _ = program()
        with lib.ppl.scope("other"):
            other, y = program()
        lib.ppl.factor(-lib.inference.enumerate(lambda: (program(), 0)[1])().log_evidence)
        return t, state[t], jnp.where(other[t] == 1, y[t], 2)

    return lib.semantics.preserves(lambda _: by_marginals, apart)()


@check("inference.discrete_smc")
def discrete_smc_is_properly_weighted(lib):
    program = short_chain(lib)
    return lib.semantics.properly_weighted(lib.inference.discrete_smc(program, 2), program)()


@check("inference.beam")
def beam_keeps_the_heaviest(lib):
    """Two of three values, before the next site; and all that may come of them."""

    def program():
        x = lib.ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))
        lib.ppl.factor(jnp.array([0.0, 2.0, 1.0])[x])
        return x, lib.ppl.sample("y", dist.Bernoulli(0.25))

    def kept():
        x = lib.ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.5])))
        lib.ppl.factor(jnp.log(0.5) + jnp.array([2.0, 1.0])[x])
        return x + 1, lib.ppl.sample("y", dist.Bernoulli(0.25))

    return lib.semantics.preserves(lambda _: lib.inference.beam(program, 2), kept)()


def at_some_values(lib, program, choices):
    """The finite program that takes one of several choices, weighted by the density of ``program`` there."""
    with jax.enable_x64(True):
        densities = jax.jit(jax.vmap(lib.ppl.log_density(program)))(jax.tree.map(jnp.asarray, choices))
    log_weight = np.asarray(densities)

    def tabulated():
        i = lib.ppl.sample("of", dist.Categorical(jnp.ones(len(log_weight)) / len(log_weight)))
        lib.ppl.factor(jnp.asarray(log_weight)[i])
        return i

    return tabulated


@check("inference.conjugate")
def conjugate_draws_keep_the_density(lib):
    """Of a rate and a mean with several observations each, one of them in a scan; and of a line."""

    def program():
        lib.ppl.factor(20.0)  # a weight of about one
        rate = lib.ppl.sample("rate", dist.Gamma(2.0, 0.5))
        mean = jax.vmap(lambda m: lib.ppl.sample("mean", dist.Normal(m, 2.0)))(jnp.array([0.0, 1.0]))
        line = lib.ppl.sample("line", dist.Normal(0.5, 2.0).expand([2]).to_event(1))
        events = lambda y, c: lib.ppl.observe("events", dist.Poisson(c * rate), y)  # noqa: E731
        jax.vmap(events)(jnp.array([1, 0, 2]), jnp.array([0.5, 2.0, 1.0]))

        def step(i, y):
            lib.ppl.observe("y", dist.Normal(0.5 - mean[i], 3.0), y)
            return 1 - i, None

        jax.lax.scan(step, 0, jnp.array([1.0, -2.0, 0.5]))
        design = jnp.array([[1.0, 0.5], [1.0, -1.0], [1.0, 2.0]])
        lib.ppl.observe("z", dist.Normal(design @ line, 0.5).to_event(1), jnp.array([1.0, -0.5, 2.0]))

    def transformed(program):
        for site in ("rate", "mean", "line"):
            program = lib.inference.conjugate(program, site)
        return program

    choices = {
        "rate": np.array([0.5, 1.0, 2.0]),
        "mean": np.array([[0.25, -0.5], [1.0, 0.5], [-0.5, 2.0]]),
        "line": np.array([[0.5, 1.0], [0.25, 0.5], [0.75, 0.5]]),
    }
    table = lambda program: at_some_values(lib, program, choices)  # noqa: E731
    return lib.semantics.preserves(lambda _: table(transformed(program)), table(program))()


@check("inference.collapse")
def what_is_collapsed_is_summed_up(lib):
    """A rate integrated out of counts, whose exposure is drawn: they have numpyro's compound distribution."""
    counts = jnp.array([2, 1, 3])

    def program():
        exposure = 1.0 + 2.0 * lib.ppl.sample("busy", dist.Bernoulli(0.25))
        rate = jax.vmap(lambda a: lib.ppl.sample("rate", dist.Gamma(a, 0.5)))(jnp.array([1.0, 2.0, 1.5]))
        lib.ppl.observe("count", dist.Poisson(exposure * rate).to_event(1), counts)
        return exposure

    def by_hand():
        exposure = 1.0 + 2.0 * lib.ppl.sample("busy", dist.Bernoulli(0.25))
        law = dist.GammaPoisson(jnp.array([1.0, 2.0, 1.5]), 0.5 / exposure)
        lib.ppl.observe("count", law.to_event(1), counts)
        return exposure

    return lib.semantics.preserves(lambda _: lib.inference.collapse(program, "rate"), by_hand)()


@check("inference.conjugate")
def what_is_not_conjugate_is_not_drawn_as_if_it_were(lib):
    """A constant beside the rate, a scale that depends on the mean: refused, so that the program stays as it is."""

    def shifted():
        z = lib.ppl.sample("z", dist.Gamma(2.0, 0.5))
        lib.ppl.observe("y", dist.Poisson(z + 1.0), 2)

    def wide():
        z = lib.ppl.sample("z", dist.Normal(0.5, 2.0))
        lib.ppl.observe("y", dist.Normal(z, 1.0 + z**2), 1.0)

    def transformed(program):
        conjugate = lib.inference.conjugate(program, "z")
        try:
            lib.ppl.trace_type(conjugate)()
        except lib.ppl.UnsupportedError:
            return program
        return conjugate

    def both(change):
        tables = [at_some_values(lib, change(p), {"z": np.array([0.5, 2.0])}) for p in (shifted, wide)]

        def program():
            with lib.ppl.scope("shifted"):
                first = tables[0]()
            with lib.ppl.scope("wide"):
                return first, tables[1]()

        return program

    return lib.semantics.preserves(lambda _: both(transformed), both(lambda program: program))()


@check("models.LinearGaussian")
def linear_gaussian_posteriors_have_the_density_of_the_model(lib):
    """At some paths: of the model conditioned on observations, and of the program that draws its states given them."""
    model = lib.models.LinearGaussian(
        mean=np.array([0.5, -0.5]),
        covariance=np.array([[1.0, 0.25], [0.25, 0.5]]),
        transition=np.array([[0.75, 0.5], [-0.25, 1.0]]),
        transition_noise=np.array([[0.5, 0.0], [0.0, 0.25]]),
        emission=np.array([[1.0, -0.5]]),
        emission_noise=np.array([[0.5]]),
        drift=np.array([[0.25, 0.0], [-0.5, 0.5]]),
    )
    ys = np.array([[0.5], [1.0], [-0.5]])
    weighted = lambda program: lambda: (lib.ppl.factor(8.0), program())[1]  # noqa: E731
    conditioned = lib.ppl.condition(weighted(lambda: model.generate(3)), {"y": ys})
    paths = {"x": np.arange(18.0).reshape(3, 3, 2) % 5 / 4 - 0.5}
    table = lambda program: at_some_values(lib, program, paths)  # noqa: E731
    drawn = weighted(lambda: model.posterior(ys))
    return lib.semantics.preserves(lambda _: table(drawn), table(conditioned))()
