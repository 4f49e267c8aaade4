"""Checks of what returns populations: exact, on all runs of tiny programs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .check import Check, check, near
from .programs import drawn_inputs, guided_markov, parameters, remembering, small, switching


@check("ppl.weigh")
def weigh_keeps_the_meaning(lib):
    return lib.semantics.preserves(lib.ppl.weigh, read=lib.semantics.weighted)()


@check("ppl.trace", "ppl.simulate")
def trace_keeps_the_meaning(lib):
    return lib.semantics.preserves(lib.ppl.trace)()


@check("ppl.condition")
def conditioning_on_parts_adds_up(lib):
    """Over all values of what is given, the conditioned programs sum to the program."""

    def program():
        return jax.lax.map(lambda p: lib.ppl.sample("x", dist.Bernoulli(p)), jnp.array([0.25, 0.5, 0.625]))

    def in_parts():
        first = lib.ppl.sample("first", dist.Bernoulli(0.5))
        lib.ppl.factor(jnp.log(2.0))
        known = lib.ppl.partly(jnp.array([0, 1, 0]) * first, known=jnp.array([False, True, False]))
        with lib.ppl.scope("rest"):
            return lib.ppl.condition(program, {"x": known})()

    return lib.semantics.preserves(lambda _: in_parts, program)()


@check("semantics.meaning")
def meaning_is_as_added_up_by_hand(lib):
    """Two of the small programs, and one with factors in branches, as tables of values and weights."""
    e = np.exp
    return _first_failure(
        _tabulated(lib, small(lib, "weighted_constant"), {1: e(0.5)}),
        _tabulated(lib, small(lib, "weighted_coin"), {0: 0.75, 1: 0.25 * e(0.5)}),
        _tabulated(lib, switching(lib), _SWITCHING),
    )


_SWITCHING = {
    (0, 0): 0.25,
    (1, 2): 0.25 * 0.75,
    (1, 3): 0.25 * 0.25 * np.exp(0.5),
    **{(2, 4 * x + y): 0.5 * (0.75 if x else 0.25) * 0.5 * np.exp(-0.5) for x in (0, 1) for y in (0, 1)},
}


def _tabulated(lib, program, table: dict):
    """The check that a program has the measure of a table."""
    values = jax.tree.map(lambda *xs: np.array(xs), *table)
    weights = np.array(list(table.values()))

    def by_hand():
        row = lib.ppl.sample("row", dist.Categorical(probs=jnp.asarray(weights / weights.sum())))
        lib.ppl.factor(jnp.log(weights.sum()))
        return jax.tree.map(lambda x: jnp.asarray(x)[row], values)

    return lib.semantics.preserves(lambda _: program, by_hand)()


def _first_failure(*reports):
    return next((report for report in reports if not report.holds), reports[0])


@check("ppl.condition", "ppl.factor")
def factors_weigh_their_branches_alone(lib):
    """Under vmap, where every branch is run and one of them counts."""

    def program():
        def one(p):
            x = lib.ppl.sample("x", dist.Bernoulli(p))
            jax.lax.cond(x == 1, lambda: lib.ppl.factor(0.75), lambda: lib.ppl.factor(-0.25))
            return x

        return tuple(jax.vmap(one)(jnp.array([0.25, 0.5])))

    weight = {1: np.exp(0.75), 0: np.exp(-0.25)}
    table = {(x, y): (0.25 if x else 0.75) * 0.5 * weight[x] * weight[y] for x in (0, 1) for y in (0, 1)}
    return _tabulated(lib, program, table)


@check("inference.importance")
def importance_is_properly_weighted(lib):
    return lib.semantics.preserves(partial(lib.inference.importance, n=2))()


@check("inference.importance")
def importance_from_proposals_is_properly_weighted(lib):
    program = guided_markov(lib)
    return lib.semantics.properly_weighted(lib.inference.importance(program, 1), program)()


@check("inference.smc", "inference.systematic")
def smc_is_properly_weighted(lib):
    return lib.semantics.preserves(partial(lib.inference.smc, n=2))()


@check("inference.smc", "inference.systematic")
def smc_that_always_resamples_is_properly_weighted(lib):
    return lib.semantics.preserves(partial(lib.inference.smc, n=2, ess_threshold=2.0))()


def _smc_of(make):
    def run(lib):
        program = make(lib)
        algorithm = lib.inference.smc(program, 2, ess_threshold=2.0)
        return lib.semantics.properly_weighted(algorithm, program)()

    return run


@check("inference.smc")
def smc_from_proposals_is_properly_weighted(lib):
    return _smc_of(guided_markov)(lib)


@check("inference.smc", "ppl.history")
def smc_keeps_histories_in_line(lib):
    return _smc_of(remembering)(lib)


@check("inference.smc", "ppl.history")
def smc_keeps_histories_in_line_by_sampling(lib):
    """A program that recalls, and one that carries the same values: resampled, where the others are enumerated."""

    def remembers():
        def step(past, t):
            x = lib.ppl.sample("x", dist.Normal(0.0, 1.0))
            past = lib.ppl.append(past, t, x)
            lib.ppl.factor(0.75 * jnp.tanh(x))
            return past, None

        past, _ = jax.lax.scan(step, lib.ppl.history(3, jnp.zeros(())), jnp.arange(3))
        return lib.ppl.recall(past)

    def carries():
        def step(carry, _):
            x = lib.ppl.sample("x", dist.Normal(0.0, 1.0))
            lib.ppl.factor(0.75 * jnp.tanh(x))
            return carry, x

        return jax.lax.scan(step, 0, None, length=3)[1]

    return lib.semantics.properly_weighted(lib.inference.smc(remembers, 4, ess_threshold=2.0), carries)()


@check("ppl.history")
def what_is_recalled_is_what_was_appended(lib):
    def carries():
        def step(carry, _):
            first, last = carry
            x = lib.ppl.sample("x", dist.Bernoulli(jnp.array([0.25, 0.625])[last]))
            first = jnp.where(first < 0, x, first)
            lib.ppl.factor(0.75 * x * first)
            return (first, x), x

        return jax.lax.scan(step, (-1, 0), None, length=3)[1]

    return lib.semantics.preserves(lambda _: remembering(lib), carries)()


def _advised(lib):
    """Advice by which members are given up, or all of them; and by which those are preferred that soon weigh little."""

    def program():
        k = lib.ppl.sample("k", dist.Bernoulli(0.5))
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        lib.ppl.factor(0.5 * x)
        lib.ppl.twist(jnp.array([[-jnp.inf, 0.0], [1.5, 0.0]])[k, x])
        y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
        lib.ppl.factor(0.75 * y)
        return k, x, y

    return program


@check("inference.smc", "ppl.twist")
def twisted_smc_is_properly_weighted(lib):
    return _smc_of(_advised)(lib)


@check("inference.discrete_smc", "ppl.twist")
def twisted_discrete_smc_is_properly_weighted(lib):
    program = _advised(lib)
    return lib.semantics.properly_weighted(lib.inference.discrete_smc(program, 2), program)()


@check("ppl.twist")
def a_twist_is_no_weight(lib):
    program = _advised(lib)

    def without():
        k = lib.ppl.sample("k", dist.Bernoulli(0.5))
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
        lib.ppl.factor(0.5 * x + 0.75 * y)
        return k, x, y

    return lib.semantics.preserves(lambda _: program, without)()


@check("inference.smc", "ppl.twist")
def particles_of_an_adapted_filter_weigh_the_same(lib):
    run = jax.jit(lib.ppl.seed(lib.inference.smc(_adapted(lib), 8, ess_threshold=2.0)))
    log_weight = run(jax.random.key(0), _OBSERVED).log_weight
    return near(lib, "all weights are the same", log_weight, log_weight[0], 1e-4)


@check("inference.smc")
def one_run_knows_how_far_its_evidence_is_off(lib):
    """Systematic resampling of weights that hardly differ keeps nearly all lines of descent."""
    run = jax.jit(jax.vmap(lib.ppl.seed(lib.inference.smc(_adapted(lib), 64, ess_threshold=2.0)), (0, None)))
    populations = run(jax.random.split(jax.random.key(0), 1000), _OBSERVED)
    claimed = np.mean(np.asarray(populations.log_evidence_se) ** 2)
    return near(
        lib, "errors are what they are claimed to be", claimed / np.var(populations.log_evidence), 1.0, 0.3
    )


_OBSERVED = np.array([1.0, -1.0, 2.0, 0.5], np.float32)


def _adapted(lib):
    """A walk whose states are drawn given the next observation, and chosen by its density."""

    def program(ys):
        def step(x, y):
            now, following = y
            optimal = dist.Normal((x + now) / 2, jnp.sqrt(0.5))
            x = lib.ppl.sample("x", dist.Normal(x, 1.0), proposal=optimal)
            lib.ppl.observe("y", dist.Normal(x, 1.0), now)
            lib.ppl.twist(dist.Normal(x, jnp.sqrt(2.0)).log_prob(following))
            return x, x

        return jax.lax.scan(step, 0.0, (ys, jnp.roll(ys, -1)))[0]

    return program


@check("inference.island_smc")
def island_smc_is_properly_weighted(lib):
    """Two islands of two, that are resampled as wholes and within."""
    program = small(lib, "chain")
    algorithm = lib.inference.island_smc(program, 2, 2, ess_threshold=2.0, island_ess_threshold=2.0)
    return lib.semantics.properly_weighted(algorithm, program)()


@check("inference.genealogy")
def genealogy_is_that_of_the_values(lib):
    """Of a loop that runs backwards, with a suspension within its steps."""

    def program():
        def step(x, _):
            x = lib.ppl.sample("x", dist.Normal(x, 1.0))
            lib.ppl.factor(x)
            z = lib.ppl.sample("z", dist.Normal(x, 1.0))
            lib.ppl.factor(-z)
            return x, x

        return jax.lax.scan(step, 0.0, None, length=3, reverse=True)[1]

    trace = jax.jit(lib.ppl.simulate(lib.inference.smc(program, 8, ess_threshold=2.0)))(jax.random.key(0))
    slots = lib.inference.genealogy(trace).lineages()
    paths = [np.asarray(trace.choices["x"])[t, slots[2 * (2 - t)]] for t in range(3)]
    return near(lib, "values are those of the lineages", np.stack(paths, 1), trace.value.value, 1e-6)


@check("inference.genealogy")
def fixed_lag_smoothing_is_properly_weighted_for_what_is_known_by_then(lib):
    """Each step t of four, together with what it held: its target has the factors up to t + 2."""
    lag, steps, weights = 2, 4, jnp.array([1.0, -0.5, 0.75, 1.5])

    def program(last):
        def step(x, t):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
            lib.ppl.factor(jnp.where(t <= last, weights[t] * x, 0.0))
            return x, x

        return jax.lax.scan(step, 0, jnp.arange(steps))[1]

    def any_step():
        return lib.ppl.sample("t", dist.Categorical(jnp.full(steps, 1 / steps)))

    def smoothed():
        t = any_step()
        with lib.ppl.scope("run"):
            trace = lib.ppl.trace(lib.inference.smc(program, 2, ess_threshold=2.0))(steps)
        x = trace.choices["x"]
        values = jnp.broadcast_to(jnp.arange(steps)[:, None], x.shape), x
        return jax.tree.map(lambda x: x[t], lib.inference.genealogy(trace).fixed_lag(values, lag))

    def known():
        t = any_step()
        return t, program(t + lag)[t]

    return lib.semantics.properly_weighted(smoothed, known)()


@check("inference.smc")
def smc_keeps_the_inputs_of_scans_in_line(lib):
    return _smc_of(drawn_inputs)(lib)


@check("inference.smc")
def smc_weighs_branches(lib):
    return _smc_of(switching)(lib)


@check("inference.smc")
def smc_of_three_particles(lib):
    program = small(lib, "chain")
    return lib.semantics.properly_weighted(lib.inference.smc(program, 3, ess_threshold=2.0), program)()


@check("inference.smc")
def smc_of_three_particles_over_a_scan(lib):
    """Long enough for lines to cross: two resamplings after the first output."""

    def program():
        def step(x, weight):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x))
            lib.ppl.factor(weight * x)
            return x, x

        return jax.lax.scan(step, 0, jnp.array([1.0, -0.5, 0.75]))[1]

    return lib.semantics.properly_weighted(lib.inference.smc(program, 3, ess_threshold=2.0), program)()


def _smc_with(resampler: str):
    n = 3 if resampler == "ssp" else 2  # two fractions are resolved in one way

    def run(lib):
        program = small(lib, "chain")
        algorithm = lib.inference.smc(program, n, getattr(lib.inference, resampler), ess_threshold=2.0)
        return lib.semantics.properly_weighted(algorithm, program)()

    return run


def _draws_as_enumerated(resampler: str):
    """That what a scheme draws is what it enumerates, and that its densities are those of its draws."""

    def run(lib):
        log_weights = jnp.log(jnp.array([0.4, 0.05, 0.35, 0.2]))
        scheme = getattr(lib.inference, resampler)

        def by_drawing():
            return lib.semantics.keyed(lambda key: scheme(log_weights).sample(key))()

        def by_index():
            candidates = scheme(log_weights).enumerate_support()
            log_probs = scheme(log_weights).enumerate_log_probs()
            return candidates[lib.ppl.sample("row", dist.Categorical(logits=log_probs))]

        return lib.semantics.same_distribution(by_index, by_drawing)()

    return run


RESAMPLERS = ("systematic", "stratified", "multinomial", "residual", "killing", "ssp")
OF_RESAMPLERS = tuple(
    Check(name.format(resampler), (f"inference.{resampler}",), make(resampler))
    for name, make in (("smc_with_{}_resampling", _smc_with), ("{}_draws", _draws_as_enumerated))
    for resampler in RESAMPLERS
)


@check("inference.backward_simulation")
def backward_simulation_is_properly_weighted(lib):
    """A first state, which belongs to the past that is drawn, and weights that are far from equal."""

    def program():
        start = lib.ppl.sample("start", dist.Bernoulli(0.25))

        def step(x, weight):
            x = lib.ppl.sample("x", dist.Bernoulli(0.25 + 0.5 * x), proposal=dist.Bernoulli(0.375))
            lib.ppl.factor(weight * x)
            return x, x

        return start, jax.lax.scan(step, start, jnp.array([1.5, -1.0]))[1]

    algorithm = lib.inference.backward_simulation(program, 2, ess_threshold=2.0)
    return lib.semantics.properly_weighted(algorithm, program)()


@check("inference.smc")
def evidence_is_unbiased(lib):
    program = small(lib, "hidden_markov")
    exact = lib.semantics.meaning(program)().total
    evidence = lambda: jnp.exp(lib.inference.smc(program, 2)().log_evidence)  # noqa: E731
    return lib.semantics.unbiased(evidence, exact)()


@check("inference.enumerate")
def enumerate_keeps_the_meaning(lib):
    return lib.semantics.preserves(lib.inference.enumerate)()


@check("inference.enumerate")
def smc_inside_a_program_is_a_program(lib):
    """The evidence of an inner run weighs an outer one: what a pseudo-marginal method relies on."""
    program = small(lib, "weighted_coin")

    def outer():
        x = lib.ppl.sample("outer", dist.Bernoulli(0.25))
        population = lib.inference.smc(program, 2)()
        lib.ppl.factor(population.log_evidence * x)
        return x

    def exact():
        x = lib.ppl.sample("outer", dist.Bernoulli(0.25))
        total = np.exp(0.5) * 0.25 + 0.75
        lib.ppl.factor(jnp.log(jnp.where(x == 1, total, 1.0)))
        return x

    return lib.semantics.preserves(lambda _: outer, exact)()


def _tempered_coin(lib):
    """A site with a proposal, and an observation."""

    def program():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25), proposal=dist.Bernoulli(0.375))
        lib.ppl.observe("y", dist.Bernoulli(0.125 + 0.5 * x), 1)
        return x

    return program


@check("inference.tempered")
def tempering_raises_weights_to_a_power(lib):
    weight = {0: 0.75 * 0.125 / 0.625, 1: 0.25 * 0.625 / 0.375}
    table = {0: 0.625 * weight[0] ** 0.25, 1: 0.375 * weight[1] ** 0.25}
    return _tabulated(lib, lambda: lib.inference.tempered(_tempered_coin(lib))(0.25), table)


@check("inference.tempered_smc")
def tempered_smc_is_properly_weighted(lib):
    program = _tempered_coin(lib)
    redraw = lambda target: lib.inference.mh(target, lib.ppl.select("x"))  # noqa: E731
    algorithm = lib.inference.tempered_smc(program, 2, redraw, [0.25, 1.0], moves=1)
    return lib.semantics.properly_weighted(algorithm, program)()


@check("inference.tempered_smc")
def waste_free_smc_is_properly_weighted(lib):
    """Three particles, of which one is moved, twice."""
    program = _tempered_coin(lib)
    gibbs = lambda target: lib.inference.gibbs(target, ["x"])  # noqa: E731
    algorithm = lib.inference.tempered_smc(program, 3, gibbs, [0.5, 1.0], moves=2, waste_free=True)
    return lib.semantics.properly_weighted(algorithm, program)()


def _two_points(lib):
    """Two sites, each with a factor; the second is guided."""

    def program():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        lib.ppl.factor(0.75 * x)
        y = lib.ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x), proposal=dist.Bernoulli(0.375))
        lib.ppl.factor(0.5 * x - 0.25 * y)
        return x, y

    return program


@check("inference.until")
def a_program_ends_at_its_point(lib):
    first = {0: 0.75, 1: 0.25 * np.exp(0.75)}
    return _tabulated(lib, lambda: lib.inference.until(_two_points(lib))(1)[0], first)


@check("inference.smc")
def smc_with_moves_is_properly_weighted(lib):
    """With one particle: what weighs when, and what moves it."""
    program = _two_points(lib)
    redraw = lambda target: lib.inference.mh(target, lib.ppl.select("x"))  # noqa: E731
    algorithm = lib.inference.smc(program, 1, ess_threshold=2.0, rejuvenate=redraw)
    return lib.semantics.properly_weighted(algorithm, program)()


@check("inference.smc2")
def smc2_is_properly_weighted(lib):
    prior, weighted = parameters(lib)

    def model(theta):
        x = weighted(theta)
        lib.ppl.sample("z", dist.Bernoulli(0.25 + 0.375 * x))
        return x

    def joint():
        theta = prior()
        return theta, model(theta)

    algorithm = lib.inference.smc2(prior, model, 2, 2, ess_threshold=2.0)
    return lib.semantics.properly_weighted(algorithm, joint)()


@check("inference.ibis")
def ibis_is_properly_weighted(lib):
    """Three observations in two blocks."""

    def program():
        x = lib.ppl.sample("x", dist.Bernoulli(0.25))
        jax.vmap(lambda p: lib.ppl.sample("y", dist.Bernoulli(0.125 + p * x)))(jnp.array([0.5, 0.25, 0.625]))
        return x

    data = {"y": np.array([1, 1, 0])}
    gibbs = lambda target: lib.inference.gibbs(target, ["x"])  # noqa: E731
    algorithm = lib.inference.ibis(program, data, 2, gibbs, block=2, moves=1, ess_threshold=2.0)
    return lib.semantics.properly_weighted(algorithm, lib.ppl.condition(program, data))()


def _pooled(lib, algorithm, runs: int = 2):
    """As one program: so many runs of an algorithm, whose sites are mapped."""
    return lambda: lib.inference.pool(jax.vmap(lambda _: algorithm())(jnp.arange(runs)))


@check("inference.pool")
def pooled_populations_are_properly_weighted(lib):
    program = small(lib, "weighted_coin")
    return lib.semantics.properly_weighted(_pooled(lib, lib.inference.importance(program, 2)), program)()


@check("inference.pool", "inference.smc")
def pooled_particles_are_properly_weighted(lib):
    program = small(lib, "chain")
    algorithm = lib.inference.smc(program, 2, ess_threshold=2.0)
    return lib.semantics.properly_weighted(_pooled(lib, algorithm), program)()


@check("inference.pool")
def evidences_of_a_pool_have_the_error_of_their_mean(lib):
    program = small(lib, "hidden_markov")
    keys = jax.random.split(jax.random.key(0), 5)
    populations = jax.jit(jax.vmap(lib.ppl.seed(lib.inference.importance(program, 3))))(keys)
    evidence = np.exp(np.asarray(populations.log_evidence, float))
    pooled = lib.inference.pool(populations)
    found = np.exp(pooled.log_evidence), pooled.log_evidence_se
    right = evidence.mean(), evidence.std(ddof=1) / np.sqrt(5) / evidence.mean()
    return near(lib, "the error is that of the mean", found, right, 1e-5)


@check("inference.repeated")
def runs_know_nothing_of_each_other(lib):
    """Three runs of a member each, two at a time."""

    def coin(p):
        x = lib.ppl.sample("x", dist.Bernoulli(p))
        lib.ppl.factor(0.5 * x)
        return x

    run = lib.inference.repeated(lib.inference.importance(coin, 1), 3, at_once=2)

    def found(key, p):
        population = run(key, p).population
        return population.value, population.log_weight

    def right(p):
        x = lib.ppl.sample("x", dist.Bernoulli(p).expand([3]))
        return x, 0.5 * x

    return lib.semantics.same_distribution(lib.semantics.keyed(found), right)(jnp.array(0.375))
