"""A language model as a state-space model: its state is a cache, its step draws one token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from .. import ppl
from .automaton import TokenAutomaton, compile_regex
from .configuration import DecoderConfig
from .constraint import Constraint
from .decoder import Decoder, PromptCache, split
from .token_distribution import TokenDistribution
from .tokens import Tokenizer


class PromptError(ppl.BorelaxError, ValueError):
    """A prompt that is empty, or too long for the model's context."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompt:
    """A prompt padded to a common length, so that prompts of different lengths share one compiled program.

    Attributes:
      tokens: int32 ``[S]``, of which the first ``length`` count.
      length: int32 scalar.
    """

    tokens: Int[Array, " S"]
    length: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where a generation stands.

    Attributes:
      hidden: ``[E]``, the final hidden state after the last token.
      prompt: the prompt's keys and values, shared by all particles.
      length: int32, how many tokens the prompt has.
      suffix: the keys and values of the generated tokens: an append-only history, resampled by reference.
      step: int32, how many tokens were generated.
    """

    hidden: Float[Array, " E"]
    prompt: PromptCache
    length: Int[Array, ""]
    suffix: Float[Array, "S L 2 K D"]
    step: Int[Array, ""]


class Structure:
    """What a decoder's parameters are the parameters of. Equal for equal configurations, so that reloading a model
    compiles nothing anew."""

    def __init__(self, graphdef: nnx.GraphDef, config: DecoderConfig):
        self.graphdef = graphdef
        self.config = config

    def __eq__(self, other) -> bool:
        return isinstance(other, Structure) and self.config == other.config

    def __hash__(self) -> int:
        return hash(self.config)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer: a pytree, to be passed to programs as an argument.

    Never close over one: closed-over weights become compile-time constants.

    Attributes:
      parameters: nested dicts of arrays.
      structure: what they are the parameters of.
      tokenizer: text to tokens and back.
    """

    parameters: Any
    structure: Structure = field(metadata={"static": True})
    tokenizer: Tokenizer = field(metadata={"static": True})

    @classmethod
    def of(cls, decoder: Decoder, tokenizer: Tokenizer) -> LanguageModel:
        """A decoder and its tokenizer as a language model."""
        graphdef, parameters = split(decoder)
        return cls(parameters, Structure(graphdef, decoder.config), tokenizer)

    @property
    def config(self) -> DecoderConfig:
        return self.structure.config

    @property
    def decoder(self) -> Decoder:
        """The Flax module."""
        return nnx.merge(self.structure.graphdef, self.parameters)

    @property
    def eos(self) -> int:
        """The token that ends a text; also what fills a text after its end."""
        if not self.tokenizer.eos:
            raise ppl.UnsupportedError("this model's tokenizer names no end-of-text token")
        return self.tokenizer.eos[0]

    # ------------------------------------------------------------------ text and tokens

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, ``int32[n]``."""
        return self.tokenizer.encode(text)

    def decode(self, tokens) -> str | list:
        """The text of ``int[n]`` tokens, a list of texts for ``int[m, n]``, and so on. Control tokens are left out."""
        tokens = np.asarray(tokens)
        if tokens.ndim > 1:
            return [self.decode(row) for row in tokens]
        return self.tokenizer.decode(tokens)

    def pad(self, prompt, multiple: int = 64) -> Prompt:
        """A prompt padded to the next multiple: prompts of one padded length share one compiled program.

        Args:
          prompt: ``int[n]``.
          multiple: what to pad to.
        """
        prompt = np.asarray(prompt, np.int32)
        self._check_prompt(len(prompt), 1)
        room = min(-(-len(prompt) // multiple) * multiple, self.config.context_length)
        padded = np.zeros(room, np.int32)
        padded[: len(prompt)] = prompt
        return Prompt(jnp.asarray(padded), jnp.asarray(len(prompt), jnp.int32))

    # ------------------------------------------------------------------ the state-space model

    def prefill(self, prompt, max_tokens: int = 64) -> State:
        """Reads a prompt. There is no randomness in it, so that all particles share the result.

        Args:
          prompt: ``int32[n]`` tokens, or a padded :class:`Prompt`.
          max_tokens: how many tokens the state has room for after the prompt (static).

        Raises:
          PromptError: the prompt is empty, or prompt and new tokens exceed the model's context.
        """
        if not isinstance(prompt, Prompt):
            tokens = jnp.asarray(prompt, jnp.int32)
            prompt = Prompt(tokens, np.int32(tokens.shape[0]))
        if isinstance(prompt.length, jax.core.Tracer):
            # How long a padded prompt is, is not known here: at least there must be room for one token before.
            self._check_prompt(1, max_tokens)
        else:
            self._check_prompt(int(prompt.length), max_tokens)
        hidden, cache = self.decoder.prefill(prompt.tokens, prompt.length)
        c = self.config
        record = jax.ShapeDtypeStruct((c.num_layers, 2, c.num_kv_heads, c.head_dim), jnp.float32)
        suffix = ppl.history(max(max_tokens, 1), record)
        return State(hidden, cache, prompt.length, suffix, jnp.zeros((), jnp.int32))

    def next_token(self, state: State, temperature: float = 1.0) -> TokenDistribution:
        """The distribution of the next token."""
        return TokenDistribution(self.decoder.logits(state.hidden) / temperature)

    def advance(self, state: State, token) -> State:
        """The state after one more token.

        A state without room for the token (see ``prefill``), or beyond the model's context, becomes NaN, so that
        whatever depends on it is too.
        """
        hidden, record = self.decoder.step(token, state.step, state.length, state.prompt, state.suffix)
        has_room = (state.step < state.suffix.shape[0]) & (
            state.length + state.step < self.config.context_length
        )
        return replace(
            state,
            hidden=jnp.where(has_room, hidden, jnp.nan),
            suffix=ppl.append(state.suffix, state.step, record),
            step=state.step + 1,
        )

    # ------------------------------------------------------------------ generation

    def generate(
        self,
        name: str,
        prompt,
        max_tokens: int,
        *,
        temperature: float = 1.0,
        stop: str | Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> Int[Array, " max_tokens"]:
        """The program that writes ``max_tokens`` tokens after a prompt.

        A scan of ``sample(name, next_token)``: condition it, put factors around it, run any inference on it.
        The text ends with the end-of-text token, once it contains a ``stop`` string, or once it is a match of
        the constraint that nothing can extend; the rest is filled with end-of-text tokens, not at random.

        >>> from borelax import inference, models, ppl
        >>> lm = models.random()
        >>> story = lambda lm, prompt: lm.generate("text", prompt, max_tokens=5)
        >>> run = jax.jit(ppl.seed(inference.smc(story, 3)))
        >>> run(jax.random.key(0), lm, lm.encode("ab")).value.shape
        (3, 5)

        Args:
          name: the address of the tokens, ``int32[max_tokens]``.
          prompt: ``int32[n]``, or a padded :class:`Prompt`.
          max_tokens: static.
          temperature: of the model; positive. The tempered model is the program's prior.
          stop: strings after which the text ends.
          constraint: see ``constraint.py``; its factors are named after ``name``.

        Raises:
          PromptError: see ``prefill``.
          ValueError: ``max_tokens`` or ``temperature`` is not positive, or no text of ``max_tokens`` tokens
            can meet the constraint.
        """
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise ValueError(f"max_tokens must be a positive integer, got {max_tokens!r}")
        if isinstance(temperature, int | float) and not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}")
        if constraint is not None:
            constraint.check_reachable(max_tokens)
        stopper = self._stopper(stop)
        eos = jnp.asarray(self.tokenizer.eos, jnp.int32)

        def step(carry, index):
            state, ended, matched, stopping = carry
            logits = self.decoder.logits(state.hidden) / temperature
            forced = jnp.where(ended, self.eos, -1)
            model = TokenDistribution(logits, forced=forced)
            if constraint is None:
                token = ppl.sample(name, model)
            else:
                bias = constraint.bias(matched, max_tokens - 1 - index)
                proposal = constraint.proposal(logits, bias, forced)
                token = ppl.sample(name, model, proposal=proposal)
                if constraint.is_factor:
                    kept = ended | (bias[constraint.automaton.column[token]] == 0)
                    ppl.factor(jnp.where(kept, 0.0, -jnp.inf), f"{name}.constraint")
                matched = jnp.where(ended, matched, constraint.automaton.advance(matched, token))
                ended = ended | constraint.automaton.finished(matched)
            ended = ended | jnp.any(token == eos)
            if stopper is not None:
                spelled = ~ended & stopper.spells(token)  # control tokens add nothing to the text
                stopping = jnp.where(spelled, stopper.advance(stopping, token), stopping)
                ended = ended | stopper.accepts(stopping)
            return (self.advance(state, token), ended, matched, stopping), token

        nothing = jnp.zeros((), jnp.int32)
        start = (self.prefill(prompt, max_tokens), jnp.zeros((), bool), nothing, nothing)
        (_, _, matched, _), tokens = jax.lax.scan(step, start, jnp.arange(max_tokens))
        if constraint is not None and constraint.must_end:
            accepted = constraint.automaton.accepts(matched)
            ppl.factor(jnp.where(accepted, 0.0, -jnp.inf), f"{name}.ending")
        return tokens

    def _stopper(self, stop: str | Sequence[str]) -> TokenAutomaton | None:
        """An automaton that accepts once a text contains one of the strings."""
        strings = [stop] if isinstance(stop, str) else list(stop)
        if not strings:
            return None
        if not all(strings):
            raise ValueError("a stop string must not be empty")
        pattern = f"(?s:.*?(?:{'|'.join(map(re.escape, strings))}).*)"
        return compile_regex(pattern, self.tokenizer.token_bytes, self.eos)

    def _check_prompt(self, length: int, max_tokens: int) -> None:
        if length < 1:
            raise PromptError("the prompt is empty; a language model needs at least one token to start from")
        if length + max_tokens > self.config.context_length:
            raise PromptError(
                f"the prompt has {length} tokens; with {max_tokens} more that exceeds the model's context of "
                f"{self.config.context_length}"
            )
