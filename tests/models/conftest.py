"""Small random checkpoints, written by transformers, that the tests of this folder read back."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 320  # of the models; the tokenizer below has fewer, as is common
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 128,
}
CORPUS = ["the cat sat on the mat", "one two three four five", "is it? it is! (yes)", "a, b; c: d"]


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer with two control tokens (ids 0 and 1)."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 10,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


@pytest.fixture
def random_model():
    """A factory of transformers models with random weights, norms and biases, so that every one matters."""

    def build(model_type: str, seed: int = 0, **options):
        config = transformers.AutoConfig.for_model(model_type, **(SIZES | {"eos_token_id": 1} | options))
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = 1 + 0.3 * noise if "norm" in name else 0.3 * noise
        return model

    return build


@pytest.fixture
def checkpoint(tmp_path, random_model, byte_level_tokenizer):
    """A factory of Hugging Face folders: returns the path and the model written there."""

    def write(model_type: str, *, max_shard_size: str = "1GB", **options):
        model = random_model(model_type, **options)
        model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
        byte_level_tokenizer.save(str(tmp_path / "tokenizer.json"))
        return tmp_path, model

    return write


@pytest.fixture
def torch_logits():
    """Logits ``[S, V]`` of a transformers model, in float32."""

    def logits(model, tokens) -> np.ndarray:
        with torch.no_grad():
            return model(torch.as_tensor(np.asarray(tokens))[None].long()).logits[0].numpy()

    return logits


@pytest.fixture(scope="session")
def logits():
    """Logits ``[S, V]`` of one of our decoders; compiled once per configuration."""
    return jax.jit(lambda decoder, tokens: decoder.forward(tokens))


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB_SIZE, 24).astype(np.int32)
