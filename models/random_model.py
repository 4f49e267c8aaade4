"""A small language model with random weights: for examples and tests that need one, but not a real one."""

from __future__ import annotations

import tokenizers
from flax import nnx
from tokenizers import decoders, pre_tokenizers

from .configuration import DecoderConfig
from .decoder import Decoder
from .language_model import LanguageModel
from .tokens import Tokenizer


def random(
    letters: str = "abc", *, seed: int = 0, layers: int = 2, context_length: int = 64
) -> LanguageModel:
    """A model whose tokens are single letters and one end-of-text token, which comes last.

    Args:
      letters: ASCII characters, one token each.
      seed: of the weights.
      layers: number of layers.
      context_length: how many tokens a text may have.

    >>> lm = random("abc")
    >>> lm.encode("cab").tolist(), lm.eos
    ([2, 0, 1], 3)
    """
    vocabulary = {letter: i for i, letter in enumerate([*letters, "<end>"])}
    if len(vocabulary) != len(letters) + 1 or not letters.isascii() or not letters.isprintable():
        raise ValueError(f"letters must be different printable ASCII characters, got {letters!r}")
    config = DecoderConfig(
        num_layers=layers,
        embed_dim=8,
        mlp_dim=16,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        vocab_size=len(vocabulary),
        context_length=context_length,
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken("<end>", special=True, normalized=False)])
    decoder = Decoder(config, rngs=nnx.Rngs(seed))
    return LanguageModel.of(decoder, Tokenizer(tokenizer, [len(letters)]))
