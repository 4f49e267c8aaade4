import dataclasses

import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from borelax.models.configuration import (
    ConfigurationError,
    DecoderConfig,
    FrequencyDivisors,
    LinearScaling,
    Llama3Scaling,
)
from borelax.ppl.errors import BorelaxError

LLAMA = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def test_reads_every_size():
    config = DecoderConfig.from_hugging_face(LLAMA)
    assert config == DecoderConfig(
        num_layers=3,
        embed_dim=64,
        mlp_dim=96,
        num_heads=8,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=100,
        context_length=512,
        rope_theta=5e5,
        rms_norm_eps=1e-5,
    )


def test_absent_or_null_entries_take_the_model_types_own_defaults():
    sparse = {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "rope_theta")}
    config = DecoderConfig.from_hugging_face(sparse | {"head_dim": None, "rope_scaling": None})
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (8, 8, 10_000.0)
    assert not config.tie_embeddings
    assert DecoderConfig.from_hugging_face(LLAMA | {"model_type": "qwen2"}).qkv_bias
    assert DecoderConfig.from_hugging_face(LLAMA | {"model_type": "mistral"}).sliding_window == 4096
    mistral = LLAMA | {"model_type": "mistral", "sliding_window": None}
    assert DecoderConfig.from_hugging_face(mistral).sliding_window is None


def test_rope_is_read_nested_and_from_the_top_level():
    old = LLAMA | {"rope_scaling": LLAMA3_ROPE}
    new = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
        "rope_parameters": LLAMA3_ROPE | {"rope_theta": 5e5}
    }
    config = DecoderConfig.from_hugging_face(old)
    assert config == DecoderConfig.from_hugging_face(new)
    assert config.rope_scaling == Llama3Scaling(8.0, 1.0, 4.0, 128)
    older = LLAMA | {"rope_scaling": {"type": "linear", "factor": 2}}
    assert DecoderConfig.from_hugging_face(older).rope_scaling == LinearScaling(2.0)


@pytest.mark.parametrize("scaling", [LLAMA3_ROPE, {"rope_type": "linear", "factor": 4.0}])
def test_scaled_frequencies_are_those_of_transformers(scaling):
    options = LLAMA | {"head_dim": 64, "rope_parameters": scaling | {"rope_theta": 5e5}}
    reference = transformers.LlamaConfig(**{k: v for k, v in options.items() if k != "model_type"})
    expected, _ = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](reference, "cpu")
    ours = DecoderConfig.from_hugging_face(options).rope_frequencies
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)
    assert ours.dtype == np.float32


def test_frequency_divisors_divide():
    config = DecoderConfig.from_hugging_face(LLAMA)
    scaled = dataclasses.replace(config, rope_scaling=FrequencyDivisors((1.0, 2.0, 4.0, 8.0)))
    np.testing.assert_allclose(config.rope_frequencies / scaled.rope_frequencies, [1, 2, 4, 8], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie_word_embeddings": True, "head_dim": 16},
        {"rope_scaling": LLAMA3_ROPE},
        {"model_type": "qwen2"},
        {"model_type": "mistral", "sliding_window": 32},
    ],
)
def test_round_trip_through_config_json(options):
    config = DecoderConfig.from_hugging_face(LLAMA | options)
    assert DecoderConfig.from_hugging_face(config.to_hugging_face()) == config
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported; supported are: llama, qwen2, mistral"),
        ({"model_type": None}, "supported are"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'factor'"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"num_key_value_heads": 3}, "8 query heads cannot share 3"),
        ({"head_dim": 7}, "even head_dim"),
        ({"num_hidden_layers": 0}, "num_layers"),
    ],
)
def test_what_would_be_computed_differently_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        DecoderConfig.from_hugging_face(LLAMA | options)
    assert isinstance(caught.value, BorelaxError)
    assert isinstance(caught.value, ValueError)
