"""Checks of Markov kernels: exact where the target is finite, by sampling where the kernel is for continuous ones."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from .check import check
from .programs import drawn_inputs, guided_markov, parameters, small, switching


def _leaves(lib, kernel, *args, **options):
    return lib.semantics.leaves_invariant(kernel, kernel.program, **options)(*args)


@check("ppl.regenerate", "inference.mh")
def mh_by_resimulation(lib):
    return _leaves(lib, lib.inference.mh(drawn_inputs(lib), lib.ppl.select("x", "y")))


@check("ppl.regenerate", "inference.mh")
def mh_across_branches(lib):
    return _leaves(lib, lib.inference.mh(switching(lib), lib.ppl.select("which")))


@check("ppl.regenerate", "inference.mh")
def mh_with_proposals_at_sites(lib):
    return _leaves(lib, lib.inference.mh(guided_markov(lib), lib.ppl.select("state")))


@check("inference.mh")
def mh_with_a_lopsided_proposal(lib):
    def proposal(choices):
        lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * choices["x"] + 0.125 * choices["y"]))

    return _leaves(lib, lib.inference.mh(small(lib, "chain"), proposal))


@check("inference.mh")
def mh_is_reversible(lib):
    def proposal(choices):
        lib.ppl.sample(
            "y", dist.Categorical(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])[choices["x"]])
        )

    program = small(lib, "chain")
    return lib.semantics.detailed_balance(lib.inference.mh(program, proposal), program)()


@check("inference.mh")
def mh_by_an_involution(lib):
    """Scaling: the Jacobian matters. The target is an exponential law, seen through a weight."""

    def program():
        x = lib.ppl.sample("x", dist.Exponential(1.0))
        return x

    def proposal(choices):
        lib.ppl.sample("log_factor", dist.Normal(0.3, 0.7))

    def scale(choices, auxiliary):
        return (
            {"x": choices["x"] * jnp.exp(auxiliary["log_factor"])},
            {"log_factor": -auxiliary["log_factor"]},
        )

    return _leaves(lib, lib.inference.mh(program, proposal, scale))


@check("inference.mh")
def mh_by_a_map_that_is_no_involution(lib):
    def program():
        return lib.ppl.sample("x", dist.Categorical(jnp.array([0.5, 0.375, 0.125])))

    def turn(choices, auxiliary):
        return {"x": (choices["x"] + 1) % 3}, auxiliary

    return _leaves(lib, lib.inference.mh(program, lambda choices: None, turn))


@check("inference.gibbs")
def gibbs_one_element_at_a_time(lib):
    return _leaves(lib, lib.inference.gibbs(drawn_inputs(lib), ["x", "y"]))


@check("inference.gibbs")
def gibbs_of_coupled_elements(lib):
    """Elements of one site that a factor couples: each is drawn given what the others are by then."""

    def program():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25).expand([2]))
        lib.ppl.factor(1.5 * x[0] * x[1] - 0.5 * x[0])
        return x

    return _leaves(lib, lib.inference.gibbs(program, ["x"]))


@check("inference.gibbs")
def gibbs_of_a_block(lib):
    return _leaves(lib, lib.inference.gibbs(small(lib, "chain"), [("x", "y")]))


@check("inference.gibbs")
def gibbs_in_branches(lib):
    return _leaves(lib, lib.inference.gibbs(switching(lib), ["x", "y"]))


@check("inference.cycle", "inference.repeat", "inference.mixture")
def kernels_joined(lib):
    program = small(lib, "chain")
    redraw = lib.inference.mh(program, lib.ppl.select("x"))
    exact = lib.inference.gibbs(program, ["y"])
    joined = lib.inference.mixture(
        [lib.inference.cycle(redraw, exact), lib.inference.repeat(redraw, 2)], [0.25, 0.75]
    )
    return _leaves(lib, joined)


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_keeps_its_target(lib):
    return _leaves(lib, lib.inference.particle_gibbs(small(lib, "chain"), 2, ess_threshold=2.0))


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_with_adaptive_resampling(lib):
    return _leaves(lib, lib.inference.particle_gibbs(small(lib, "chain"), 3, ess_threshold=0.9))


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_over_a_scan(lib):
    """Weights that are far from equal, so that the retained particle may have several places to take."""

    def program():
        def step(x, weight):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
            lib.ppl.factor(weight * x)
            return x, x

        return lax.scan(step, 0, jnp.array([2.0, -1.0]))[1]

    return _leaves(lib, lib.inference.particle_gibbs(program, 2, ess_threshold=2.0))


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_with_ancestor_sampling(lib):
    def program():
        def step(x, weight):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
            lib.ppl.factor(weight * x)
            return x, x

        return lax.scan(step, 0, jnp.array([2.0, -1.0]))[1]

    return _leaves(lib, lib.inference.particle_gibbs(program, 2, ess_threshold=2.0, ancestor_sampling=True))


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_with_multinomial_resampling(lib):
    kernel = lib.inference.particle_gibbs(
        small(lib, "chain"), 2, resampler=lib.inference.multinomial, ess_threshold=2.0
    )
    return _leaves(lib, kernel)


@check("inference.particle_gibbs", "inference.conditional_smc")
def particle_gibbs_from_proposals(lib):
    return _leaves(lib, lib.inference.particle_gibbs(guided_markov(lib), 2, ess_threshold=2.0))


@check("inference.pmmh", "inference.pseudo_marginal")
def pmmh_keeps_its_target(lib):
    prior, model = parameters(lib)

    def proposal(choices):
        lib.ppl.sample("theta", dist.Bernoulli(0.75 - 0.25 * choices["theta"]))

    return _leaves(lib, lib.inference.pmmh(prior, model, proposal, n=2), steps=2)


def _regression(lib):
    """Two Gaussian sites that are observed together."""

    def program(y):
        f = lib.ppl.sample("f", dist.Normal(jnp.array([0.5, -0.5]), jnp.array([1.0, 2.0])))
        lib.ppl.observe("y", dist.Normal(f.sum(), 0.5), y)
        return f

    return program


@check("inference.elliptical_slice")
def elliptical_slice_keeps_its_target(lib):
    kernel = lib.inference.elliptical_slice(_regression(lib), ["f"])
    return _leaves(lib, kernel, jnp.array(1.0))


@check("inference.slice")
def slice_keeps_its_target(lib):
    def program():
        x = lib.ppl.sample("x", dist.Gamma(2.0, 1.0))
        lib.ppl.factor(-0.25 * x)
        return x

    return _leaves(lib, lib.inference.slice(program, ["x"]))


def _skewed(lib):
    """A positive number and a simplex, both skewed, and a measurement of them, which stays as it is."""

    def program():
        x = lib.ppl.sample("x", dist.Gamma(2.0, 1.0))
        p = lib.ppl.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
        return lib.ppl.sample("y", dist.Normal(jnp.log(x) + 2 * p[0], 0.5))

    return program


def _follows_gradients(lib, make, **options):
    budget = lib.semantics.Budget(draws=16_384, batch=1_024)
    return _leaves(lib, make(_skewed(lib), ["x", "p"], **options), budget=budget)


@check("inference.hmc")
def hmc_keeps_its_target(lib):
    return _follows_gradients(lib, lib.inference.hmc, num_steps=3, step_size=0.4)


@check("inference.nuts")
def nuts_keeps_its_target(lib):
    return _follows_gradients(lib, lib.inference.nuts, step_size=0.6, max_doublings=3)


@check("inference.mala")
def mala_keeps_its_target(lib):
    mass = jnp.array([0.5, 1.0, 0.75])
    return _follows_gradients(lib, lib.inference.mala, step_size=0.6, inverse_mass=mass)


@check("inference.hmc", "inference.cycle")
def hmc_in_a_cycle_keeps_its_target(lib):
    """What the gradient is of changes with the other kernel's site, at every step."""

    def program():
        z = lib.ppl.sample("z", dist.Bernoulli(0.25))
        return lib.ppl.sample("x", dist.Gamma(2.0 + 3 * z, 1.0))

    kernel = lib.inference.cycle(
        lib.inference.gibbs(program, ["z"]), lib.inference.hmc(program, ["x"], num_steps=2, step_size=0.5)
    )
    return _leaves(lib, kernel, budget=lib.semantics.Budget(draws=16_384, batch=1_024))


@check("inference.hmc", "inference.repeat")
def hmc_in_a_row_keeps_its_target(lib):
    """The gradient where a step ends is the one where the next begins."""
    kernel = lib.inference.hmc(_skewed(lib), ["x", "p"], num_steps=2, step_size=0.6)
    budget = lib.semantics.Budget(draws=16_384, batch=1_024)
    return _leaves(lib, lib.inference.repeat(kernel, 2), budget=budget)


@check("inference.mclmc")
def mclmc_keeps_its_target(lib):
    return _follows_gradients(lib, lib.inference.mclmc, step_size=0.8)


@check("inference.chees", "inference.repeat")
def chees_keeps_its_target(lib):
    """Along trajectories of three lengths."""
    options = {"step_size": 0.5, "trajectory_length": 2.0, "inverse_mass": jnp.array([0.5, 1.0, 0.75])}

    def make(program, sites):
        return lib.inference.repeat(lib.inference.chees(program, sites, **options), 3)

    return _follows_gradients(lib, make)


@check("inference.meads")
def meads_keeps_its_target_with_momentum_and_level(lib):
    """All that a chain is, in steps of which many are rejected, and in which little of the momentum is lost."""

    def program():
        return lib.ppl.sample("x", dist.Gamma(2.0, 1.0))

    kernel = lib.inference.meads(program, step_size=1.5, damping=0.1, inverse_mass=jnp.array([0.75]))

    def joint():
        trace = lib.ppl.trace(program)()
        momentum = lib.ppl.sample("momentum", dist.Normal(0.0, 1.0).expand([1]))
        return trace, momentum, lib.ppl.sample("level", dist.Uniform(-1.0, 1.0))

    def step(state):
        trace, momentum, level = state
        begun = kernel.init(trace)
        begun = replace(begun, memory=replace(begun.memory, momentum=momentum, level=level))
        after = kernel(begun)
        return after.trace, after.memory.momentum, after.memory.level

    budget = lib.semantics.Budget(draws=16_384, batch=1_024)
    return lib.semantics.leaves_invariant(step, joint, budget, steps=2)()


@check("inference.parallel_tempering", "inference.tempered")
def parallel_tempering_keeps_its_target(lib):
    def program():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        lib.ppl.factor(1.25 * x)
        return x

    def redraw(tempered):
        return lib.inference.mh(tempered, lib.ppl.select("x"))

    return _leaves(lib, lib.inference.parallel_tempering(program, redraw, [0.25, 1.0]))


@check("inference.from_blackjax")
def an_algorithm_of_blackjax_keeps_its_target(lib):
    import blackjax

    def make(program, sites):
        return lib.inference.from_blackjax(program, lambda density: blackjax.mala(density, 0.15), sites)

    return _follows_gradients(lib, make)


@check("inference.to_blackjax")
def a_kernel_run_by_blackjax_keeps_its_target(lib):
    program = small(lib, "chain")
    algorithm = lib.inference.to_blackjax(lib.inference.gibbs(program, ["x"]))

    def choices():
        run = lib.ppl.trace(program)()
        lib.ppl.factor(run.log_weight)
        return run.choices

    def step(key, position):
        return algorithm.step(key, algorithm.init(position, key))[0].position

    return lib.semantics.leaves_invariant(lib.semantics.keyed(step), choices)()


@check("inference.mcmc")
def mcmc_runs_chains_that_know_nothing_of_each_other(lib):
    """By a kernel that draws from the posterior whatever the state, draws of all chains are independent."""

    def program(bonus):
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        lib.ppl.factor(bonus * x)
        return x

    def independent(bonus):
        odds = jnp.exp(bonus) / 3
        return lib.ppl.sample("x", dist.Bernoulli(odds / (1 + odds)).expand([2, 2]))

    run = lib.inference.mcmc(
        lib.inference.gibbs(program, ["x"]), num_samples=2, num_warmup=1, num_chains=2, thin=2
    )
    chains = lib.semantics.keyed(lambda key, bonus: run(key, bonus).value)
    return lib.semantics.same_distribution(chains, independent)(jnp.array(1.0))


@check("inference.mcmc")
def mcmc_adapts_in_the_warmup_alone(lib):
    """Chains whose memories are numbers, which they add up when they adapt together, and draw as they learnt to."""

    def program():
        return lib.ppl.sample("x", dist.Bernoulli(0.25))

    def init(trace):
        return lib.inference.State(trace, jnp.ones((), int), jnp.zeros((), int))

    def step(state):
        after = lib.inference.gibbs(program, ["x"])(lib.inference.State(state.trace)).trace
        return lib.inference.State(after, state.memory, state.memory)

    def adapt_together(memory, stage):
        return jnp.full_like(memory, memory.sum())

    kernel = lib.inference.Kernel(program, init, step, adapt_together=adapt_together)
    run = lib.inference.mcmc(kernel, num_samples=2, num_warmup=2, num_chains=3)

    def expected():
        return lib.ppl.sample("x", dist.Bernoulli(0.25).expand([3, 2])), jnp.full((3, 2), 9)

    def found(key):
        draws = run(key)
        return draws.value, draws.info

    return lib.semantics.same_distribution(lib.semantics.keyed(found), expected)()
