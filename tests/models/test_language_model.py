"""Generation as a program, against the enumeration of everything that a tiny model can write."""

from __future__ import annotations

import re
from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import family
from thresholds import assert_mean
from tiny import END, all_strings, tiny_model

from borelax import inference, models, ppl

LENGTH, PROMPT, PATTERN = 4, np.array([0, 1, 0], np.int32), "(ab|b)*c?"
STRINGS = all_strings(LENGTH)


@pytest.fixture(scope="module")
def lm():
    return tiny_model()


# ------------------------------------------------------------------ the reference: Python's re, all strings


def letters(tokens) -> str:
    return "".join("abc"[token] for token in tokens if token != END)


@cache
def viable(text: str) -> bool:
    """Whether some match begins with ``text``."""
    continuations = ("", "b", "a", "ab", "c", "bc", "abc")
    return any(re.fullmatch(PATTERN, text + more) for more in continuations)


@cache
def final(text: str) -> bool:
    """Whether ``text`` matches and no longer text does."""
    return bool(re.fullmatch(PATTERN, text)) and not any(viable(text + letter) for letter in "abc")


@cache
def next_token_log_probs() -> np.ndarray:
    """``[4**LENGTH, LENGTH, 4]``: of each string's next token after each of its prefixes."""

    def one(string):
        logits = tiny_model().decoder.forward(jnp.concatenate([jnp.asarray(PROMPT), string]))
        return jax.nn.log_softmax(logits)[len(PROMPT) - 1 : -1]

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(STRINGS)), np.float64)


def measure(*, constrained: bool, factor: bool = True, must_end: bool = False) -> np.ndarray:
    """The weight of every string, ``[4**LENGTH]``."""
    weights = []
    for string, log_probs in zip(STRINGS, next_token_log_probs(), strict=True):
        weight, text, ended = 1.0, "", False
        for token, row in zip(string, log_probs, strict=True):
            if ended:
                weight *= token == END
                continue
            weight *= np.exp(row[token])
            text += "" if token == END else "abc"[token]
            matches = bool(re.fullmatch(PATTERN, text))
            if constrained and factor:
                weight *= matches if token == END else viable(text)
            ended = token == END or (constrained and viable(text) and final(text))
        if must_end:
            weight *= bool(re.fullmatch(PATTERN, text))
        weights.append(weight)
    return np.array(weights)


def code(tokens):
    """A string's row in STRINGS."""
    return jnp.sum(tokens * 4 ** jnp.arange(LENGTH - 1, -1, -1), axis=-1)


def estimates(program, algorithm, replications: int, *args) -> np.ndarray:
    """Independent estimates of the measure of every string, ``[replications, 4**LENGTH]``."""

    def one(key):
        population = ppl.seed(algorithm(program))(key, *args)
        weights = jnp.exp(population.log_weight) / population.size
        return jnp.zeros(len(STRINGS)).at[code(population.value)].add(weights)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), replications)))


# ------------------------------------------------------------------ the program's measure


def test_generation_denotes_the_models_distribution(lm):
    program = lambda: lm.generate("text", PROMPT, LENGTH)  # noqa: E731
    density = jax.jit(jax.vmap(lambda tokens: ppl.log_density(program)({"text": tokens})))
    expected = measure(constrained=False)
    assert abs(expected.sum() - 1) < 1e-5
    np.testing.assert_allclose(np.exp(density(STRINGS)), expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("truncation", ["truncate", "condition_on_ending", "reachable"])
def test_a_constrained_density_is_the_models_where_the_text_matches(lm, truncation):
    constraint = models.regex(PATTERN, lm, truncation=truncation)
    program = lambda: lm.generate("text", PROMPT, LENGTH, constraint=constraint)  # noqa: E731
    density = jax.jit(jax.vmap(lambda tokens: ppl.log_density(program)({"text": tokens})))
    expected = measure(constrained=True, must_end=truncation != "truncate")
    assert 0 < expected.sum() < 1
    np.testing.assert_allclose(np.exp(density(STRINGS)), expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("algorithm", "truncation", "use"),
    family(
        product(
            [partial(inference.importance, n=8), partial(inference.smc, n=8, ess_threshold=0.9)],
            ["truncate", "condition_on_ending", "reachable"],
            ["both", "factor", "proposal"],
        ),
        every=4,
    ),
)
def test_every_estimate_of_the_measure_is_unbiased(lm, algorithm, truncation, use):
    constraint = models.regex(PATTERN, lm, truncation=truncation, use=use)
    program = lambda: lm.generate("text", PROMPT, LENGTH, constraint=constraint)  # noqa: E731
    factor = use != "proposal"
    expected = measure(constrained=True, factor=factor, must_end=factor and truncation != "truncate")
    estimated = estimates(program, algorithm, 4000)
    common = expected > 2e-3 * expected.sum()  # often enough for a z-test; the others together
    assert_mean(estimated[:, common], expected[common])
    assert_mean(estimated[:, ~common].sum(1), expected[~common].sum())


def test_reachable_and_condition_on_ending_are_one_measure(lm):
    one, other = (
        models.regex(PATTERN, lm, truncation=truncation)
        for truncation in ("reachable", "condition_on_ending")
    )
    density = lambda constraint: jax.vmap(  # noqa: E731
        lambda tokens: ppl.log_density(lambda: lm.generate("text", PROMPT, LENGTH, constraint=constraint))(
            {"text": tokens}
        )
    )(STRINGS)
    np.testing.assert_array_equal(density(one), density(other))


def test_reachable_never_proposes_a_dead_end(lm):
    constraint = models.regex("(ab)*c", lm, truncation="reachable")
    program = lambda: lm.generate("text", PROMPT, LENGTH + 1, constraint=constraint)  # noqa: E731
    population = jax.jit(ppl.seed(inference.importance(program, 200)))(jax.random.key(0))
    assert np.all(np.isfinite(population.log_weight))
    assert all(re.fullmatch("(ab)*c", text) for text in lm.decode(population.value))


def test_a_stop_string_ends_the_text(lm):
    program = lambda: lm.generate("text", PROMPT, 12, stop=["bc", "aa"])  # noqa: E731
    runs = jax.jit(jax.vmap(ppl.seed(program)))(jax.random.split(jax.random.key(0), 1000))
    texts = lm.decode(runs)
    assert any("bc" in text for text in texts) and any("aa" in text for text in texts)
    for text in texts:
        found = re.search("bc|aa", text)
        assert found is None or found.end() == len(text)


def test_temperature_divides_the_logits(lm):
    program = lambda: lm.generate("text", PROMPT, 1, temperature=0.5)  # noqa: E731
    density = jax.vmap(lambda tokens: ppl.log_density(program)({"text": tokens}))(np.arange(4)[:, None])
    tempered = jax.nn.log_softmax(2.0 * next_token_log_probs()[0, 0])
    np.testing.assert_allclose(density, tempered, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ caches


def scored(lm, length: int):
    """Writes by hand, returning the text and the log probability that its own steps gave it."""

    def step(carry, _):
        state, total = carry
        distribution = lm.next_token(state)
        token = ppl.sample("token", distribution)
        ppl.factor(0.7 * jnp.sin(token * 2.0 + state.step))
        return (lm.advance(state, token), total + distribution.log_prob(token)), token

    (_, total), tokens = jax.lax.scan(step, (lm.prefill(PROMPT, length), 0.0), None, length=length)
    return tokens, total


def test_after_resampling_every_particle_continues_its_own_text(lm):
    """A stale cache would show: what the steps scored is what a full forward pass scores, for each final text."""
    run = ppl.seed(inference.smc(lambda: scored(lm, 12), 16, ess_threshold=2.0))
    population = jax.jit(run)(jax.random.key(3))
    tokens, totals = population.value
    assert len({tuple(row) for row in np.asarray(tokens)}) > 4
    assert int(population.generations) == 11

    def full(tokens):
        logits = lm.decoder.forward(jnp.concatenate([jnp.asarray(PROMPT), tokens]))
        return jax.nn.log_softmax(logits)[jnp.arange(12) + len(PROMPT) - 1, tokens].sum()

    np.testing.assert_allclose(totals, jax.vmap(full)(tokens), rtol=1e-4)


def test_padding_changes_nothing(lm):
    run = lambda prompt: ppl.seed(  # noqa: E731
        inference.smc(lambda prompt: lm.generate("text", prompt, 6), 8)
    )(jax.random.key(1), prompt)
    np.testing.assert_array_equal(run(PROMPT).value, run(lm.pad(PROMPT, 8)).value)


def test_prompts_of_one_padded_length_share_a_compilation(lm):
    traced = []

    def story(lm, prompt):
        traced.append(prompt)
        return lm.generate("text", prompt, 3)

    run = jax.jit(ppl.seed(inference.smc(story, 4)))
    for prompt in ([0], [1, 2], [0, 1, 2, 0, 1]):
        run(jax.random.key(0), lm, lm.pad(np.array(prompt), 8))
    assert len(traced) == 1


def test_one_batch_of_runs_is_the_runs_one_by_one(lm):
    run = ppl.seed(inference.smc(lambda: lm.generate("text", PROMPT, 5), 4))
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(run))(keys)
    alone = [jax.jit(run)(key) for key in keys]
    np.testing.assert_array_equal(together.value, np.stack([p.value for p in alone]))


def test_a_model_is_unchanged_by_a_round_trip_through_a_pytree(lm):
    leaves, tree = jax.tree.flatten(lm)
    again = jax.tree.unflatten(tree, leaves)
    assert again.config == lm.config and hash(tree) == hash(jax.tree.structure(tiny_model()))


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prompt=np.array([], np.int32), max_tokens=3), "prompt is empty"),
        (dict(prompt=PROMPT, max_tokens=30), "exceeds the model's context of 32"),
        (dict(prompt=PROMPT, max_tokens=0), "max_tokens must be a positive integer"),
        (dict(prompt=PROMPT, max_tokens=3, temperature=0.0), "temperature must be positive"),
        (dict(prompt=PROMPT, max_tokens=3, stop=[""]), "stop string must not be empty"),
    ],
)
def test_bad_arguments_are_refused(lm, arguments, message):
    with pytest.raises(ValueError, match=message):
        ppl.seed(lambda: lm.generate("text", **arguments))(jax.random.key(0))


def test_a_constraint_out_of_reach_is_refused(lm):
    constraint = models.regex("a{5}", lm, truncation="reachable")
    with pytest.raises(ValueError, match="shortest text that meets the constraint has 5 tokens"):
        ppl.seed(ppl.weigh(lambda: lm.generate("text", PROMPT, 4, constraint=constraint)))(jax.random.key(0))


def test_an_unknown_policy_is_refused(lm):
    with pytest.raises(ValueError, match="truncation is one of truncate"):
        models.regex("a", lm, truncation="cut")


def test_a_state_without_room_turns_into_nan(lm):
    state = lm.prefill(PROMPT, 1)
    full = lm.advance(state, 0)
    assert np.all(np.isfinite(full.hidden)) and np.all(np.isnan(lm.advance(full, 0).hidden))
