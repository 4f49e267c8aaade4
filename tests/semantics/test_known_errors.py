"""Errors that libraries have made without a word, made again: each is caught by a check that the right one passes.

Not here are errors of diagnostics: an effective sample size from the first autocorrelation alone, an R-hat that does
not split its chains. A diagnostic is an estimate from one run, right only as that grows, and a check of laws says
nothing of it. Those of the language alone are in ``tests/ppl/test_silent_errors.py``.
"""

from __future__ import annotations

from dataclasses import replace

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from tiny import tiny_model

from borelax import inference, models, ppl, semantics

KEY = jax.random.key(0)


# ------------------------------------------------------------------ of kernels


def correlated():
    return ppl.sample("x", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.5, 2.0]])))


def langevin(noise_shape):
    """MALA for ``correlated``; with noise of shape ``()`` all coordinates get the same."""
    log_density = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.5, 2.0]])).log_prob
    step = 0.6

    def drift(x):
        return x + step * jax.grad(log_density)(x)

    def move(key, x):
        propose, decide = jax.random.split(key)
        y = drift(x) + jnp.sqrt(2 * step) * jax.random.normal(propose, noise_shape)
        log_q = lambda y, x: -jnp.sum((y - drift(x)) ** 2) / (4 * step)  # noqa: E731
        log_ratio = log_density(y) - log_density(x) + log_q(x, y) - log_q(y, x)
        return jnp.where(jnp.log(jax.random.uniform(decide)) < log_ratio, y, x)

    return semantics.keyed(move)


def test_one_number_of_noise_for_all_coordinates():
    budget = semantics.Budget(draws=16_384)
    assert semantics.leaves_invariant(langevin((2,)), correlated, budget)().holds
    assert not semantics.leaves_invariant(langevin(()), correlated, budget)().holds


def test_hamiltonian_monte_carlo_on_a_positive_number_as_it_is():
    """The formula of the density goes on below zero, and so does the chain."""
    waiting = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    formula = blackjax.hmc(lambda x: -x[0], 0.5, jnp.ones(1), 3)

    def as_it_is(key, x):
        return formula.step(key, formula.init(x[None]))[0].position[0]

    free = ppl.unconstrain(waiting)
    algorithm = blackjax.hmc(lambda z: free.log_density({"x": z[0]}), 0.5, jnp.ones(1), 3)

    def unconstrained(key, x):
        z = free.unconstrain({"x": x})["x"]
        return free.constrain({"x": algorithm.step(key, algorithm.init(z[None]))[0].position[0]})["x"]

    budget = semantics.Budget(draws=8_192)
    assert not semantics.leaves_invariant(semantics.keyed(as_it_is), waiting, budget)().holds
    assert semantics.leaves_invariant(semantics.keyed(unconstrained), waiting, budget)().holds


def flagged():
    """A flag, and an observation whose weight depends on its branch."""
    flag = ppl.sample("flag", dist.Bernoulli(0.5))
    lax.cond(flag == 1, lambda: ppl.factor(-3.0), lambda: ppl.factor(0.0))
    return flag


def test_a_flip_across_a_branch_that_is_weighed_by_nothing():
    def blind(flag):
        """The weight of the change comes out as 0, so that every flip is accepted."""
        return ppl.sample("new", dist.Bernoulli(0.5))

    report = semantics.leaves_invariant(blind, flagged)()
    assert not report.holds and report.error > 0.2
    assert semantics.leaves_invariant(inference.mh(flagged, ppl.select("flag")), flagged)().holds


# ------------------------------------------------------------------ of gradients


def three_in_a_loop(p):
    step = lambda total, _: (total + ppl.sample("x", dist.Bernoulli(p), grad="score"), None)  # noqa: E731
    return 1.0 * lax.scan(step, 0, None, length=3)[0]


def three_in_a_function(p):
    return 3.0 * jax.jit(lambda p: ppl.sample("x", dist.Bernoulli(p), grad="score"))(p)


@pytest.mark.parametrize("objective", [three_in_a_loop, three_in_a_function], ids=["scan", "jit"])
def test_a_gradient_that_is_zero_inside_a_loop_or_a_compiled_function(objective):
    exact = lambda p: jnp.full_like(p, 3.0)  # noqa: E731
    p = jnp.array(0.25)
    assert semantics.unbiased(inference.expectation_grad(objective), exact)(p).holds
    report = semantics.unbiased(lambda p: 0.0 * p, exact)(p)
    assert not report.holds and report.error == pytest.approx(1.0)


def test_a_history_of_losses_that_are_zero():
    def model():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)

    guide = lambda p: ppl.sample("x", dist.Bernoulli(p))  # noqa: E731
    p = jnp.array(0.5)
    bound = 0.5 * (np.log(0.25) + np.log(0.75))
    assert semantics.unbiased(inference.elbo(model, guide), bound)(p).holds
    losses = lambda p: 0.0 * inference.elbo(model, guide)(p)  # noqa: E731
    assert not semantics.unbiased(losses, bound)(p).holds


def test_a_guide_over_all_numbers_for_a_positive_one():
    """The formula of the density has values below zero, too, and what is computed from them bounds nothing."""
    waiting = lambda: ppl.sample("x", dist.Exponential(1.0))  # noqa: E731
    guide = lambda d: lambda: ppl.sample("x", d)  # noqa: E731
    anywhere, positive = guide(dist.Normal(0.0, 1.0)), guide(dist.LogNormal(0.0, 1.0))
    assert semantics.absolute_continuity(anywhere, waiting)().guide_by_model.verdict == "no"
    assert semantics.absolute_continuity(positive, waiting)().guide_by_model.verdict == "yes"


# ------------------------------------------------------------------ of sequential Monte Carlo and of choices


def coupled():
    x = ppl.sample("x", dist.Bernoulli(0.25))
    ppl.factor(0.75 * x)
    y = ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    ppl.factor(0.5 * y)
    return x, y


@pytest.mark.parametrize("takes_out", [True, False])
def test_a_change_of_the_target_from_one_to_the_same(takes_out):
    """The evidence must not move where the target does not. Without the old density it is counted twice."""

    def changed():
        population = inference.smc(coupled, 2)()
        old = jax.vmap(lambda x, y: 0.75 * x + 0.5 * y)(*population.value)
        increment = old - old if takes_out else old
        return jnp.exp(jax.nn.logsumexp(population.log_weight + increment) - jnp.log(2.0))

    assert semantics.unbiased(changed, semantics.meaning(coupled)().total)().holds == takes_out


def test_a_mistyped_address_that_is_ignored():
    conditioned = lambda program: ppl.condition(program, {"y": 1})  # noqa: E731
    ignored = lambda program: program  # noqa: E731 -- a site "yy" that nobody has
    expected = lambda: (lambda pair: (ppl.factor(jnp.where(pair[1] == 1, 0.0, -jnp.inf)), pair)[1])(coupled())  # noqa: E731
    assert semantics.preserves(lambda _: conditioned(coupled), expected)().holds
    assert not semantics.preserves(lambda _: ignored(coupled), expected)().holds
    with pytest.raises(ppl.AddressError, match="did you mean"):
        semantics.meaning(ppl.condition(coupled, {"yy": 1}))()


def nested():
    with ppl.scope("a"):
        x = ppl.sample("x", dist.Bernoulli(0.25))
        y = ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    return x, y, ppl.sample("z", dist.Bernoulli(0.5 + 0.25 * y))


def test_all_but_a_nested_site_that_is_all_but_its_siblings_too():
    """Given everything else, the site has its full conditional; with siblings dropped, something wider."""

    def full_conditional():
        x = ppl.sample("x", dist.Bernoulli(0.25))
        ppl.factor(jnp.log(0.25 + 0.5 * x) + jnp.log(0.75))
        return x, 1, 1

    def keeps(choices):
        return semantics.preserves(lambda _: ppl.condition(nested, choices), full_conditional)().holds

    assert keeps((~ppl.select("a/x")).of({"a": {"x": 0, "y": 1}, "z": 1}))
    assert not keeps({"z": 1})


# ------------------------------------------------------------------ of batches


def test_a_batch_whose_parameters_belong_to_different_levels():
    def model():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        return jax.vmap(lambda x: ppl.sample("y", dist.Normal(a + x, 0.5)))(jnp.array([-1.0, 0.0, 2.0]))

    def one_at_a_time(key):
        return ppl.seed(model)(key)

    def batched(key):
        return jax.vmap(ppl.seed(model))(jax.random.split(key, 3))[0]

    def crossed(key):
        """The run's own parameter taken along the axis of the elements."""
        start, *keys = jax.random.split(key, 4)
        a = jax.random.normal(start, (3,))
        return a + jnp.array([-1.0, 0.0, 2.0]) + 0.5 * jax.vmap(jax.random.normal)(jnp.stack(keys))

    one = semantics.keyed(one_at_a_time)
    assert semantics.same_distribution(one, semantics.keyed(batched))().holds
    assert not semantics.same_distribution(one, semantics.keyed(crossed))().holds


def test_the_score_of_a_batch_that_is_summed_over_it():
    traces = jax.vmap(ppl.simulate(coupled))(jax.random.split(KEY, 4))
    each = jax.vmap(ppl.log_density(coupled))(traces.choices)
    assert each.shape == (4,)
    assert semantics.unbiased(lambda: traces.log_density, each)().holds
    summed = lambda: jnp.broadcast_to(traces.log_density.sum(), (4,))  # noqa: E731
    assert not semantics.unbiased(summed, each)().holds


# ------------------------------------------------------------------ of text

PROMPTS = np.array([[0, 1, 0], [1, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def lm():
    """Tokens a, b and the end of text."""
    return models.random("ab", seed=0, layers=1, context_length=16)


def by_itself(lm, name, prompt):
    """A text of two tokens, each from a whole forward pass: nothing is cached."""
    past, ended = jnp.asarray(prompt), jnp.array(False)
    for t in range(2):
        forced = jnp.where(ended, lm.eos, -1)
        model = models.TokenDistribution(lm.decoder.forward(past)[-1], forced=forced)
        token = ppl.sample(f"{name}, token {t}", model)
        past, ended = jnp.append(past, token.astype(past.dtype)), ended | (token == lm.eos)
    return past[-2:]


@pytest.mark.parametrize(("prompts", "is_right"), [([0, 1], True), ([0, 0], False)], ids=["own", "first"])
def test_queries_of_a_batch_that_are_answered_from_the_first_prompt(lm, prompts, is_right):
    def batch(lm):
        return jax.vmap(lambda prompt: lm.generate("text", prompt, 2))(jnp.asarray(PROMPTS[prompts]))

    def one_at_a_time(lm):
        return jnp.stack([by_itself(lm, f"query {i}", prompt) for i, prompt in enumerate(PROMPTS)])

    assert semantics.properly_weighted(batch, one_at_a_time)(lm).holds == is_right


def constrained(lm):
    """Two tokens that match ``a?b+`` as a whole: neither can be anything."""
    constraint = models.regex("a?b+", lm, truncation="reachable")
    return constraint, lambda lm: lm.generate("text", PROMPTS[0], 2, constraint=constraint)


@pytest.mark.parametrize(
    ("weighed", "is_right"),
    [((True, True), True), ((False, False), False), ((True, False), False)],
    ids=["each token", "no token: local masking", "all but a forced ending"],
)
def test_tokens_that_are_masked_but_not_weighed(lm, weighed, is_right):
    """Drawn from what is allowed, as if that were all that the constraint says."""
    constraint, target = constrained(lm)

    def masked(lm):
        state, matched, tokens = lm.prefill(PROMPTS[0], 2), jnp.array(0), []
        for t, is_weighed in enumerate(weighed):  # no match ends before its second token
            logits, bias = lm.decoder.logits(state.hidden), constraint.bias(matched, 1 - t)
            token = ppl.sample(f"token {t}", constraint.proposal(logits, bias, jnp.array(-1)))
            if is_weighed:
                allowed = jax.nn.log_softmax(logits) + bias[constraint.automaton.column]
                ppl.factor(jax.nn.logsumexp(allowed))
            state, matched = lm.advance(state, token), constraint.automaton.advance(matched, token)
            tokens.append(token)
        return jnp.stack(tokens)

    assert semantics.properly_weighted(masked, target)(lm).holds == is_right


def test_text_that_is_steered_by_smc_is_weighed(lm):
    _, target = constrained(lm)
    assert semantics.properly_weighted(inference.smc(target, 2, ess_threshold=2.0), target)(lm).holds


# ------------------------------------------------------------------ of particles that die


def risky():
    x = ppl.sample("x", dist.Bernoulli(0.5))
    ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf))
    return x + ppl.sample("y", dist.Bernoulli(0.5))


def test_particles_that_are_all_dead():
    """Seen before anything runs where it can be, and said where it is met."""

    def hopeless():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x > 1, 0.0, -jnp.inf), "never")
        return x

    assert semantics.check(risky)().ok and not semantics.check(hopeless)().ok
    population = ppl.seed(inference.smc(hopeless, 4, check=False))(KEY)
    with pytest.warns(UserWarning, match="all 4 members have weight zero after factor 'never'"):
        assert population.log_evidence == -jnp.inf


def test_a_dead_particle_that_ends_the_run():
    def given_up():
        population = inference.importance(risky, 2)()
        any_dead = jnp.any(population.log_weight == -jnp.inf)
        return replace(population, log_weight=jnp.where(any_dead, -jnp.inf, population.log_weight))

    assert not semantics.properly_weighted(given_up, risky)().holds
    assert semantics.properly_weighted(inference.importance(risky, 2), risky)().holds
    assert semantics.properly_weighted(inference.smc(risky, 2), risky)().holds


# ------------------------------------------------------------------ of seeds


def reproduces(run, *args) -> bool:
    one, other = (jax.tree.leaves(run(KEY, *args)) for _ in range(2))
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_a_generator_behind_the_key():
    """The law is right, so that no check of laws can see it; two runs with one key do."""
    generator = np.random.default_rng(0)

    def hidden(key):
        draw = lambda bits: generator.normal(size=bits.shape).astype(np.float32)  # noqa: E731
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(draw, scalar, jax.random.bits(key), vmap_method="broadcast_all")

    normal = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    budget = semantics.Budget(draws=8_192)
    assert semantics.same_distribution(semantics.keyed(hidden), normal, budget)().holds
    assert reproduces(ppl.seed(normal)) and not reproduces(hidden)


def test_the_same_key_gives_the_same_text():
    run = jax.jit(ppl.seed(inference.smc(lambda lm: lm.generate("text", PROMPTS[0], 4), 3)))
    assert reproduces(run, tiny_model())
