"""Errors that libraries have made without a word, made again: each is caught by a check that the right one passes.

Those that are of diagnostics and not of inference (an effective sample size from the first autocorrelation alone, an
R-hat that does not split its chains) are tested with the diagnostics. Those of the language alone are in
``tests/ppl/test_silent_errors.py``.
"""

from __future__ import annotations

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
    assert semantics.leaves_invariant(langevin((2,)), correlated, semantics.Budget(draws=16_384))().holds
    assert not semantics.leaves_invariant(langevin(()), correlated)().holds


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

    assert not semantics.leaves_invariant(semantics.keyed(as_it_is), waiting)().holds
    budget = semantics.Budget(draws=8_192)
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


def test_a_gradient_that_is_zero_inside_a_loop():
    def objective(p):
        step = lambda total, _: (total + ppl.sample("x", dist.Bernoulli(p), grad="score"), None)  # noqa: E731
        return 1.0 * lax.scan(step, 0, None, length=3)[0]

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


# ------------------------------------------------------------------ of sequential Monte Carlo


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

PROMPT, OTHER = np.array([0, 1, 0], np.int32), np.array([2, 2, 1], np.int32)


def writes(lm, prompt, **options):
    return lambda parameters: models.LanguageModel(parameters, lm.structure, lm.tokenizer).generate(
        "text", prompt, 2, **options
    )


def test_a_query_that_is_answered_from_another_prompt():
    lm = tiny_model()
    right = semantics.properly_weighted(writes(lm, PROMPT), writes(lm, PROMPT))(lm.parameters)
    report = semantics.properly_weighted(writes(lm, OTHER), writes(lm, PROMPT))(lm.parameters)
    assert right.holds and not report.holds and report.error > 0.01


def test_tokens_that_are_masked_but_not_weighed():
    """Local masking: each token is drawn from what is allowed, as if that were all that the constraint says."""
    lm = models.random("ab", seed=0, layers=1, context_length=16)
    constraint = models.regex("(ab|b)*", lm, truncation="condition_on_ending")

    def masked(parameters):
        own = models.LanguageModel(parameters, lm.structure, lm.tokenizer)
        state, matched, tokens = own.prefill(PROMPT, 2), jnp.zeros((), jnp.int32), []
        for t in range(2):
            bias = constraint.bias(matched, 1 - t)
            logits = own.decoder.logits(state.hidden)
            token = ppl.sample(f"token{t}", constraint.proposal(logits, bias, jnp.array(-1)))
            matched = constraint.automaton.advance(matched, token)
            state = own.advance(state, token)
            tokens.append(token)
        return jnp.stack(tokens)

    target = writes(lm, PROMPT, constraint=constraint)
    steered = inference.smc(target, 2, ess_threshold=2.0)
    assert semantics.properly_weighted(steered, target)(lm.parameters).holds
    assert not semantics.properly_weighted(masked, target)(lm.parameters).holds


def test_particles_that_are_all_dead():
    """Seen before anything runs where it can be, and said where it is met."""

    def hopeless():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x > 1, 0.0, -jnp.inf), "never")
        return x

    assert not semantics.check(hopeless)().ok
    population = ppl.seed(inference.smc(hopeless, 4, check=False))(KEY)
    with pytest.warns(UserWarning, match="all 4 members have weight zero after factor 'never'"):
        assert population.log_evidence == -jnp.inf


def test_one_dead_particle_ends_nothing():
    def risky():
        x = ppl.sample("x", dist.Bernoulli(0.5))
        ppl.factor(jnp.where(x == 1, 0.0, -jnp.inf))
        return x + ppl.sample("y", dist.Bernoulli(0.5))

    assert semantics.properly_weighted(inference.smc(risky, 2), risky)().holds


def test_the_same_seed_gives_the_same_text():
    lm = tiny_model()
    run = jax.jit(ppl.seed(inference.smc(lambda lm: lm.generate("text", PROMPT, 4), 3)))
    one, other = run(KEY, lm), run(KEY, lm)
    np.testing.assert_array_equal(one.value, other.value)
    np.testing.assert_array_equal(one.log_weight, other.log_weight)
