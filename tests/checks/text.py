"""Checks of programs that write text, with a language model small enough to enumerate all that it can write."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .check import check

PROMPT = np.array([0, 1, 0], np.int32)
LENGTH, END = 3, 2
PATTERN = "(ab|b)*"


def _model(lib):
    """Tokens a, b and the end of text, with random weights: no text is much more probable than all others."""
    return lib.models.random("ab", seed=0, layers=1, context_length=16)


def _all_texts(lm, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Every sequence of tokens, and the log probabilities of its tokens: by whole forward passes, without a cache."""
    texts = np.array(list(itertools.product(range(3), repeat=length)), np.int32)

    def log_probs(text):
        logits = lm.decoder.forward(jnp.concatenate([jnp.asarray(PROMPT), text]))
        return jax.nn.log_softmax(logits)[len(PROMPT) - 1 : -1]

    rows = np.asarray(jax.jit(jax.vmap(log_probs))(jnp.asarray(texts)), np.float64)
    return texts, rows[np.arange(len(texts))[:, None], np.arange(length), texts]


def _ended(text) -> list[bool]:
    """Before which tokens the text had ended."""
    return [END in text[:t] for t in range(len(text))]


def _reference(lib, lm, weigh):
    """The program that draws a text by its weight: ``weigh(text, log_probs) -> log weight``."""
    texts, log_probs = _all_texts(lm)
    weights = np.array([weigh(text, row) for text, row in zip(texts.tolist(), log_probs)])
    texts, log_weight = texts[weights > -np.inf], jnp.asarray(weights[weights > -np.inf])

    def program(*args):
        index = lib.ppl.sample("text", dist.Categorical(logits=log_weight))
        lib.ppl.factor(jax.nn.logsumexp(log_weight))
        return jnp.asarray(texts)[index]

    return program


def _plain(text, row) -> float:
    """After the end there is nothing but the end."""
    ended = _ended(text)
    if any(e and token != END for e, token in zip(ended, text)):
        return -np.inf
    return float(sum(x for x, e in zip(row, ended) if not e))


def _letters(text) -> str:
    return "".join("ab"[token] for token in text if token != END)


def _viable(text: str) -> bool:
    return any(re.fullmatch(PATTERN, text + more) for more in ("", "b"))


def _constrained(must_end: bool):
    def weigh(text, row) -> float:
        if END in text:
            ended = bool(re.fullmatch(PATTERN, _letters(text[: text.index(END)])))
        else:
            ended = bool(re.fullmatch(PATTERN, _letters(text))) if must_end else _viable(_letters(text))
        return _plain(text, row) if ended else -np.inf

    return weigh


def _writes(lib, weigh, algorithm=None, **options):
    """That members drawn from the program's proposals, or those of an algorithm, stand for the measure of ``weigh``."""
    lm = _model(lib)
    if pattern := options.pop("pattern", None):
        keywords = {key: options.pop(key) for key in ("truncation", "use") if key in options}
        options["constraint"] = lib.models.regex(pattern, lm, **keywords)

    def program(parameters):
        own = lib.models.LanguageModel(parameters, lm.structure, lm.tokenizer)
        return own.generate("text", PROMPT, LENGTH, **options)

    written = algorithm(program) if algorithm else lib.inference.importance(program, 1)
    return lib.semantics.properly_weighted(written, _reference(lib, lm, weigh))(lm.parameters)


@check("models.LanguageModel.generate")
def text_has_the_models_probability(lib):
    return _writes(lib, _plain)


@check("models.LanguageModel.generate")
def text_at_a_temperature(lib):
    """Of the tempered model each token's law is normalised anew."""
    lm = _model(lib)

    def program(parameters):
        own = lib.models.LanguageModel(parameters, lm.structure, lm.tokenizer)
        return own.generate("text", PROMPT, LENGTH, temperature=0.5)

    def by_hand(parameters):
        own = lib.models.LanguageModel(parameters, lm.structure, lm.tokenizer)
        tokens, past, ended = [], jnp.asarray(PROMPT), jnp.array(False)
        for t in range(LENGTH):
            logits = own.decoder.forward(past)[-1] / 0.5
            sure = jnp.where(jnp.arange(3) == END, 0.0, -jnp.inf)
            law = dist.Categorical(logits=jnp.where(ended, sure, logits))
            token = lib.ppl.sample(f"token{t}", law)
            ended = ended | (token == END)
            past = jnp.concatenate([past, token[None].astype(past.dtype)])
            tokens.append(token)
        return jnp.stack(tokens).astype(jnp.int32)

    return lib.semantics.properly_weighted(program, by_hand)(lm.parameters)


@check("models.regex", "models.Constraint")
def constrained_text(lib):
    return _writes(lib, _constrained(must_end=False), pattern=PATTERN)


@check("models.regex", "models.Constraint")
def constrained_text_that_must_end(lib):
    weigh = _constrained(must_end=True)
    return _writes(lib, weigh, pattern=PATTERN, truncation="condition_on_ending")


@check("models.regex", "models.Constraint")
def constrained_text_that_can_end(lib):
    return _writes(lib, _constrained(must_end=True), pattern=PATTERN, truncation="reachable")


@check("models.regex", "models.Constraint")
def constrained_text_by_factors_alone(lib):
    return _writes(lib, _constrained(must_end=False), pattern=PATTERN, use="factor")


@check("models.regex", "models.Constraint")
def text_that_is_proposed_by_a_constraint(lib):
    return _writes(lib, _plain, pattern=PATTERN, use="proposal")


@check("models.LanguageModel.generate", "inference.smc")
def steered_text(lib):
    def smc(program):
        return lib.inference.smc(program, 2, ess_threshold=2.0)

    return _writes(lib, _constrained(must_end=False), smc, pattern=PATTERN)


@check("models.TokenDistribution")
def tokens_have_probabilities_that_add_up_to_one(lib):
    column, bias = jnp.array([0, 1, 2, 0, 1]), jnp.array([0.0, -jnp.inf, 0.5])

    def scored():
        law = lib.models.TokenDistribution(jnp.array([0.5, 1.0, -1.0, 0.0, 2.0]), column, bias)
        token = lib.ppl.sample("token", dist.Categorical(jnp.ones(5) / 5))
        lib.ppl.factor(law.log_prob(token) + jnp.log(5.0))
        return 0

    return lib.semantics.preserves(lambda _: scored, lambda: 0)()


@check("models.TokenDistribution")
def tokens_are_drawn_as_they_are_scored(lib):
    logits = jnp.log(jnp.arange(1.0, 601.0) % 7 + 0.5)
    column = jnp.arange(600) % 3
    bias = jnp.array([0.0, -jnp.inf, 0.5])
    law = lambda: lib.models.TokenDistribution(logits, column, bias)  # noqa: E731

    def drawn(key):
        return law().sample(key) % 21

    def scored():
        log_probs = jax.vmap(law().log_prob)(jnp.arange(600))
        return (lib.ppl.sample("token", dist.Categorical(logits=log_probs)) % 21).astype(jnp.int32)

    return lib.semantics.same_distribution(scored, lib.semantics.keyed(drawn))()
