"""A language model small enough to start in a moment: random weights, and bytes for tokens, in a folder."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import tokenizers
from jax.experimental.compilation_cache import compilation_cache
from safetensors.numpy import save_file
from tokenizers import decoders, pre_tokenizers
from tokenizers import models as kinds

CONTEXT = 96
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny Llama that writes random bytes, as a Hugging Face folder."""
    path = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0} | {letter: i for i, letter in enumerate(alphabet, 1)}
    tokenizer = tokenizers.Tokenizer(kinds.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(path / "tokenizer.json"))

    described = {"model_type": "llama", "vocab_size": len(vocabulary), "tie_word_embeddings": True}
    described |= {"eos_token_id": 0, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "hidden_act": "silu"}
    (path / "config.json").write_text(json.dumps(described | SIZES))
    save_file(_weights(len(vocabulary)), path / "model.safetensors", metadata={"format": "pt"})
    return path


def _weights(vocab_size: int) -> dict[str, np.ndarray]:
    width, hidden, head = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["head_dim"]
    layer = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (vocab_size, width),
        "model.norm.weight": (width,),
        layer + "input_layernorm.weight": (width,),
        layer + "post_attention_layernorm.weight": (width,),
        layer + "self_attn.q_proj.weight": (2 * head, width),
        layer + "self_attn.k_proj.weight": (head, width),
        layer + "self_attn.v_proj.weight": (head, width),
        layer + "self_attn.o_proj.weight": (width, 2 * head),
        layer + "mlp.gate_proj.weight": (hidden, width),
        layer + "mlp.up_proj.weight": (hidden, width),
        layer + "mlp.down_proj.weight": (width, hidden),
    }
    random = np.random.default_rng(0)
    return {name: 0.5 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keeps what the command caches out of the user's cache, and puts JAX's settings back."""
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BORELAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()
