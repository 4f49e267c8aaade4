"""A decoder of the Llama family, in Flax nnx, written for one sequence.

RMSNorm, rotary embeddings, grouped-query attention and SwiGLU feed-forward layers (Touvron et al., *LLaMA*,
2023; Ainslie et al., *GQA*, 2023). Nothing here has a batch axis: ``jax.vmap`` adds particles. What does
not depend on a particle's draws (the weights, the prompt's keys and values) then stays unbatched, and all
particles share it.

A sequence is a prompt followed by generated tokens. ``prefill`` runs over the prompt once. ``step`` runs
over one generated token; the keys and values of those before it live in an append-only ``history``, one
record ``float32[L, 2, K, D]`` per token, so that resampling particles permutes a table and copies no cache.

Shape letters: S positions, E ``embed_dim``, M ``mlp_dim``, L layers, H query heads, K key-value heads,
G = H / K queries per key-value head, D ``head_dim``, V ``vocab_size``.

Matrices are stored ``[out, in]`` in the compute dtype (float32 or bfloat16); they multiply operands of that
dtype and accumulate in float32, which is the fast path on CPUs, GPUs and TPUs alike. The residual stream,
the norms, the caches and attention are always float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from ..ppl.history import recall
from .configuration import DecoderConfig


class PromptCache(NamedTuple):
    """Keys and values of a prompt, one array per layer, laid out for one matrix product per head.

    Attributes:
      keys: for each layer, rotated keys ``float32[K, S, D]``.
      values: for each layer, ``float32[K, S, D]``.

    Positions at and beyond the prompt's length hold padding, which ``Decoder.step`` masks out.
    """

    keys: tuple[Float[Array, "K S D"], ...]
    values: tuple[Float[Array, "K S D"], ...]


class Linear(nnx.Module):
    """``x -> W x + b`` with W stored ``[out, in]``; the result is float32."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = False, dtype, rngs: nnx.Rngs):
        self.weight = nnx.Param(_random(rngs, (out_dim, in_dim), dtype))
        self.bias = nnx.Param(jnp.zeros(out_dim, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "*S in"]) -> Float[Array, "*S out"]:
        product = _multiply(x, self.weight[...])
        return product if self.bias is None else product + self.bias[...]


class RMSNorm(nnx.Module):
    """``x -> w * x / sqrt(mean(x^2) + eps)`` (Zhang and Sennrich, 2019)."""

    def __init__(self, dim: int, *, eps: float):
        self.weight = nnx.Param(jnp.ones(dim, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "*S E"]) -> Float[Array, "*S E"]:
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.eps) * self.weight[...]


class FeedForward(nnx.Module):
    """SwiGLU: ``x -> down(silu(gate(x)) * up(x))`` (Shazeer, 2020)."""

    def __init__(self, config: DecoderConfig, *, dtype, rngs: nnx.Rngs):
        self.gate = Linear(config.embed_dim, config.mlp_dim, dtype=dtype, rngs=rngs)
        self.up = Linear(config.embed_dim, config.mlp_dim, dtype=dtype, rngs=rngs)
        self.down = Linear(config.mlp_dim, config.embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*S E"]) -> Float[Array, "*S E"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions: G = H / K query heads share a key-value head."""

    def __init__(self, config: DecoderConfig, *, dtype, rngs: nnx.Rngs):
        query_dim, kv_dim = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        bias = config.qkv_bias
        self.query = Linear(config.embed_dim, query_dim, bias=bias, dtype=dtype, rngs=rngs)
        self.key = Linear(config.embed_dim, kv_dim, bias=bias, dtype=dtype, rngs=rngs)
        self.value = Linear(config.embed_dim, kv_dim, bias=bias, dtype=dtype, rngs=rngs)
        self.output = Linear(query_dim, config.embed_dim, dtype=dtype, rngs=rngs)
        self.config = config

    def over_prompt(self, x, rotation, mask):
        """Attention of a whole sequence to itself.

        Args:
          x: ``float32[S, E]``.
          rotation: cosines and sines for the S positions.
          mask: ``bool[S, S]``, whether a position (row) may attend to another (column).

        Returns:
          The output ``float32[S, E]``, and the keys and values, each ``float32[K, S, D]``.
        """
        query, key, value = self._project(x, rotation)
        key, value = key.swapaxes(0, 1), value.swapaxes(0, 1)
        scores = jnp.einsum("skgd,ktd->kgst", query, key)
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        heads = jnp.einsum("kgst,ktd->skgd", weights, value)
        return self.output(heads.reshape(len(x), -1)), key, value

    def over_caches(self, x, rotation, prompt, suffix, prompt_mask, suffix_mask):
        """Attention of one token to the prompt, to the tokens generated before it, and to itself.

        Args:
          x: ``float32[E]``.
          rotation: cosines and sines for the token's position.
          prompt: keys and values, each ``float32[K, S_prompt, D]``.
          suffix: keys and values, each ``float32[S_suffix, K, D]``.
          prompt_mask: ``bool[S_prompt]``, which prompt positions count.
          suffix_mask: ``bool[S_suffix]``, which suffix slots count.

        Returns:
          The output ``float32[E]``, and the token's own key and value ``float32[2, K, D]``.
        """
        query, key, value = self._project(x, rotation)
        (prompt_keys, prompt_values), (suffix_keys, suffix_values) = prompt, suffix
        # The prompt has no particle axis: under vmap each of these two is one matrix product per
        # key-value head, over particles and query groups together.
        to_prompt = jnp.einsum("kgd,ksd->kgs", query, prompt_keys)
        to_suffix = jnp.einsum("kgd,skd->kgs", query, suffix_keys)
        to_itself = jnp.sum(query * key[:, None], axis=-1, keepdims=True)
        scores = jnp.concatenate(
            [
                jnp.where(prompt_mask, to_prompt, -jnp.inf),
                jnp.where(suffix_mask, to_suffix, -jnp.inf),
                to_itself,
            ],
            axis=-1,
        )
        weights = jax.nn.softmax(scores, axis=-1)
        at_prompt, at_suffix, at_itself = jnp.split(
            weights, [len(prompt_mask), len(prompt_mask) + len(suffix_mask)], axis=-1
        )
        heads = (
            jnp.einsum("kgs,ksd->kgd", at_prompt, prompt_values)
            + jnp.einsum("kgs,skd->kgd", at_suffix, suffix_values)
            + at_itself * value[:, None]
        )
        return self.output(heads.reshape(-1)), jnp.stack([key, value])

    def _project(self, x, rotation):
        """Scaled and rotated queries ``[*S, K, G, D]``, rotated keys and plain values ``[*S, K, D]``."""
        c = self.config
        query = self.query(x).reshape(*x.shape[:-1], c.num_heads, c.head_dim)
        key = self.key(x).reshape(*x.shape[:-1], c.num_kv_heads, c.head_dim)
        value = self.value(x).reshape(*x.shape[:-1], c.num_kv_heads, c.head_dim)
        query = _rotate(query, rotation) * c.head_dim**-0.5
        return query.reshape(*x.shape[:-1], c.num_kv_heads, -1, c.head_dim), _rotate(key, rotation), value


class Block(nnx.Module):
    """One layer: attention, then the feed-forward layer, each normalised before and added after."""

    def __init__(self, config: DecoderConfig, *, dtype, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.embed_dim, eps=config.rms_norm_eps)
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = RMSNorm(config.embed_dim, eps=config.rms_norm_eps)
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)

    def over_prompt(self, x, rotation, mask):
        attended, key, value = self.attention.over_prompt(self.attention_norm(x), rotation, mask)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), key, value

    def over_caches(self, x, *context):
        attended, record = self.attention.over_caches(self.attention_norm(x), *context)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), record


class Decoder(nnx.Module):
    """A causal language model: token ids in, logits over the next token out.

    Args:
      config: sizes and constants.
      dtype: of the matrices, float32 or bfloat16.
      rngs: keys for the random initial weights.
    """

    def __init__(self, config: DecoderConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        table = (config.vocab_size, config.embed_dim)
        self.embedding = nnx.Param(_random(rngs, table, dtype))
        self.layers = nnx.List([Block(config, dtype=dtype, rngs=rngs) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.embed_dim, eps=config.rms_norm_eps)
        if not config.tie_embeddings:
            self.unembedding = nnx.Param(_random(rngs, table, dtype))

    def forward(self, tokens: Int[Array, " S"]) -> Float[Array, "S V"]:
        """Logits after every prefix of ``tokens``: row s scores the token at position s + 1."""
        return self.logits(self._over_prompt(tokens)[0])

    def prefill(
        self, tokens: Int[Array, " S"], length: Int[Array, ""] | int
    ) -> tuple[Float[Array, " E"], PromptCache]:
        """Runs over a prompt, of which the first ``length`` tokens count and the rest are padding.

        Args:
          tokens: int32 token ids; padding may be any valid id.
          length: number of real tokens, in ``[1, S]``.

        Returns:
          The final hidden state of the last real token, whose ``logits`` score the first generated token;
          and the cache that ``step`` attends to.
        """
        hidden, cache = self._over_prompt(tokens)
        return lax.dynamic_index_in_dim(hidden, length - 1, 0, keepdims=False), cache

    def step(
        self,
        token: Int[Array, ""],
        step: Int[Array, ""] | int,
        length: Int[Array, ""] | int,
        prompt: PromptCache,
        suffix: Float[Array, "S L 2 K D"],
    ) -> tuple[Float[Array, " E"], Float[Array, "L 2 K D"]]:
        """Runs over one generated token, which stands at position ``length + step``.

        Args:
          token: its id.
          step: its index among the generated tokens, from 0.
          length: number of real tokens in the prompt.
          prompt: what ``prefill`` returned.
          suffix: a history of the records of the generated tokens before this one, in slots ``[0, step)``.

        Returns:
          The token's final hidden state, and its record, which the caller appends at slot ``step``.
        """
        position = length + step
        rotation = self._rotation(position)
        prompt_positions = jnp.arange(prompt.keys[0].shape[1])
        suffix_positions = length + jnp.arange(suffix.shape[0])
        prompt_mask = (prompt_positions < length) & self._in_window(position, prompt_positions)
        suffix_mask = (suffix_positions < position) & self._in_window(position, suffix_positions)
        x = self.embedding[token].astype(jnp.float32)
        records = []
        for index, layer in enumerate(self.layers):
            prompt_layer = prompt.keys[index], prompt.values[index]
            # In a population a recall is a gather: of one layer at a time, when that layer is reached.
            layer_index = _after(index, x[0])
            suffix_layer = recall(suffix, layer_index, 0), recall(suffix, layer_index, 1)
            x, record = layer.over_caches(x, rotation, prompt_layer, suffix_layer, prompt_mask, suffix_mask)
            records.append(record)
        # The record is appended once every layer has recalled: then XLA writes it in place.
        return self.norm(x), _after(jnp.stack(records), x[0])

    def logits(self, hidden: Float[Array, "*S E"]) -> Float[Array, "*S V"]:
        """Unnormalised log probabilities of the next token, float32, from final hidden states."""
        table = self.embedding if self.config.tie_embeddings else self.unembedding
        return _multiply(hidden, table[...])

    def _over_prompt(self, tokens):
        positions = jnp.arange(len(tokens))
        rotation = self._rotation(positions)
        earlier = positions[:, None] >= positions
        mask = earlier & self._in_window(positions[:, None], positions)
        x = self.embedding[tokens].astype(jnp.float32)
        keys, values = [], []
        for layer in self.layers:
            x, key, value = layer.over_prompt(x, rotation, mask)
            keys.append(key)
            values.append(value)
        return self.norm(x), PromptCache(tuple(keys), tuple(values))

    def _rotation(self, positions):
        """Cosines and sines ``[*S, 1, D / 2]``; the 1 is broadcast over heads."""
        angles = jnp.asarray(positions, jnp.float32)[..., None, None] * self.config.rope_frequencies
        return jnp.cos(angles), jnp.sin(angles)

    def _in_window(self, query_position, key_position):
        window = self.config.sliding_window
        return True if window is None else query_position - key_position < window


def split(decoder: Decoder) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """The decoder's structure, and its parameters as nested plain dicts of arrays.

    The structure is hashable: static data under ``jit``. Plain dicts are flattened at every call of a jitted
    function some twenty times faster than a module is, and four times faster than an ``nnx.State``.
    ``nnx.merge(graphdef, parameters)`` gives the decoder back; under ``jit`` it costs nothing at run time.
    """
    graphdef, state = nnx.split(decoder)
    return graphdef, nnx.to_pure_dict(state)


def _after(value, done):
    """``value``, by a computation that XLA cannot start before it has the float scalar ``done``.

    XLA sees that no recall depends on the layers before it, and that the last layer's record does not depend
    on its recall. Left free, it gathers all layers' histories first and copies the whole history twice per
    step, to keep what it overwrites (a quarter of the time at 32 particles). ``lax.optimization_barrier``
    is gone by the time XLA decides this; a data dependency is not. If ``done`` is NaN, ``value`` is zero,
    but then the token's hidden state is NaN as well.
    """
    return value * ~jnp.isnan(done)


def _random(rngs: nnx.Rngs, shape: tuple[int, int], dtype):
    """An initial matrix ``[out, in]`` that keeps the scale of what it multiplies: variance 1 / in."""
    return jax.random.normal(rngs.params(), shape, dtype) * jnp.asarray(shape[1] ** -0.5, dtype)


def _multiply(x, weight):
    """``x[*S, in]`` times ``weight[out, in]`` transposed, accumulated in float32."""
    return lax.dot_general(
        x.astype(weight.dtype),
        weight,
        (((x.ndim - 1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _rotate(x, rotation):
    """Rotates pair (i, i + D/2) of each head's vector ``[*S, heads, D]`` by its position's angle."""
    cos, sin = rotation
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
