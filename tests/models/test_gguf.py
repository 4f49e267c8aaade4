import dataclasses
import json

import gguf
import numpy as np
import pytest
import torch

from borelax.models.configuration import ConfigurationError, FrequencyDivisors
from borelax.models.gguf import load_gguf
from borelax.models.tokens import TokenizerError
from borelax.models.weights import ModelFileError, WeightsError, load_folder

TEXTS = ["the cat sat on the mat", "it's 12345 déjà vu \U0001f642\n\n  done<|end|>"]


def gguf_name(name: str) -> str:
    """A Hugging Face tensor name as llama.cpp writes it."""
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    stem, kind = name.rsplit(".", 1)
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{parts[part]}.{kind}"


def permuted(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Query and key rows in llama.cpp's order, as its converter permutes them."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


@pytest.fixture
def write_gguf(tmp_path, byte_level_tokenizer):
    """A factory of GGUF files holding a transformers model; ``change`` gets the writer before it is closed."""

    def write(model, quantised=None, change=lambda writer: None, pre="gpt-2", kind="gpt2"):
        config, path = model.config, tmp_path / "model.gguf"
        architecture = "llama" if config.model_type == "mistral" else config.model_type
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        add_tokenizer(writer, kind, pre)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for name, parameter in model.named_parameters():
            tensor = parameter.detach().numpy()
            projection = name.split(".")[-2]
            if architecture == "llama" and projection in heads:
                tensor = permuted(tensor, heads[projection])
            if quantised is not None and tensor.ndim == 2:
                data = gguf.quantize(np.ascontiguousarray(tensor), quantised)
                writer.add_tensor(gguf_name(name), data, raw_dtype=quantised)
            else:
                writer.add_tensor(gguf_name(name), np.ascontiguousarray(tensor))
        change(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def add_tokenizer(writer, kind, pre):
        described = byte_level_tokenizer.get_vocab()
        names = sorted(described, key=described.get)
        merges = [" ".join(pair) for pair in merges_of(byte_level_tokenizer)]
        writer.add_tokenizer_model(kind)
        writer.add_tokenizer_pre(pre)
        # Padded to the model's size with tokens that llama.cpp's converter calls unused.
        unused = [f"[PAD{i}]" for i in range(len(names), 320)]
        writer.add_token_list(names + unused)
        writer.add_token_types([3, 3] + [1] * (len(names) - 2) + [5] * len(unused))
        writer.add_token_merges(merges)
        writer.add_eos_token_id(1)

    return write


def merges_of(tokenizer):
    return json.loads(tokenizer.to_str())["model"]["merges"]


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": None}),
    ],
)
def test_logits_are_those_of_transformers(
    write_gguf, random_model, torch_logits, logits, tokens, model_type, options
):
    reference = random_model(model_type, **options)
    loaded = load_gguf(write_gguf(reference))
    ours = logits(loaded.decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


@pytest.mark.parametrize(
    "quantised", [gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1], ids=lambda q: q.name
)
def test_quantised_tensors_are_expanded(write_gguf, random_model, torch_logits, logits, tokens, quantised):
    reference = random_model("llama")
    path = write_gguf(reference, quantised)
    for parameter in reference.parameters():
        if parameter.ndim == 2:  # rows are quantised one by one, so their order does not matter
            data = gguf.quantize(parameter.detach().numpy(), quantised)
            parameter.data = torch.from_numpy(gguf.dequantize(data, quantised).copy())
    ours = logits(load_gguf(path).decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


def test_agrees_with_the_hugging_face_folder(write_gguf, checkpoint, byte_level_tokenizer):
    folder, reference = checkpoint("llama")
    from_folder, from_gguf = load_folder(folder), load_gguf(write_gguf(reference))
    assert dataclasses.replace(from_gguf.config, rms_norm_eps=1e-6) == from_folder.config
    assert from_gguf.tokenizer.eos == from_folder.tokenizer.eos
    for text in TEXTS:
        np.testing.assert_array_equal(from_gguf.tokenizer.encode(text), from_folder.tokenizer.encode(text))
    assert from_gguf.tokenizer.token_bytes == from_folder.tokenizer.token_bytes


def test_frequency_divisors_of_scaled_rope(write_gguf, random_model, torch_logits, logits, tokens):
    rope = {"rope_type": "llama3", "rope_theta": 1e3, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    reference = random_model("llama", rope_parameters=rope)
    plain = 1e3 ** -(np.arange(0, 8, 2) / 8)
    divisors = (plain / reference.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    path = write_gguf(reference, change=lambda writer: writer.add_tensor("rope_freqs.weight", divisors))
    loaded = load_gguf(path)
    assert isinstance(loaded.config.rope_scaling, FrequencyDivisors)
    ours = logits(loaded.decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w.add_expert_count(8), ConfigurationError, "expert_count=8"),
        (lambda w: w.add_rope_dimension_count(4), ConfigurationError, "dimension_count=4"),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), ConfigurationError, "'yarn'"),
        (lambda w: w.add_tensor("blk.0.attn_odd.weight", np.zeros(4, np.float32)), WeightsError, "attn_odd"),
    ],
    ids=["experts", "rotary", "yarn", "tensor"],
)
def test_what_would_be_computed_differently_is_refused(write_gguf, random_model, change, error, message):
    path = write_gguf(random_model("llama"), change=change)
    with pytest.raises(error, match=message):
        load_gguf(path)


def test_unknown_tokenizers_are_refused(write_gguf, random_model):
    with pytest.raises(TokenizerError, match="kind 'llama'"):
        load_gguf(write_gguf(random_model("llama"), kind="llama"))
    with pytest.raises(TokenizerError, match="pre-tokenizer 'odd'"):
        load_gguf(write_gguf(random_model("llama"), pre="odd"))


def test_other_architectures_and_files_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConfigurationError, match="'gpt2' is not supported; supported are: llama, qwen2"):
        load_gguf(tmp_path / "other.gguf")
    (tmp_path / "text.gguf").write_text("this is not a model, though it is long enough for a header")
    with pytest.raises(ModelFileError, match=r"text\.gguf"):
        load_gguf(tmp_path / "text.gguf")
    with pytest.raises(ModelFileError, match=r"absent\.gguf"):
        load_gguf(tmp_path / "absent.gguf")
