"""GGUF files, llama.cpp's single-file format: weights, configuration and tokenizer out of one file.

Quantised tensors are expanded to float32 as they are read. Two conventions differ from Hugging Face's: the
tensor names, and, for the architecture ``llama``, the order of the rows of the query and key projections
(llama.cpp rotates adjacent pairs where Hugging Face rotates halves).

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import jax.numpy as jnp
import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors

from .configuration import ConfigurationError, DecoderConfig, FrequencyDivisors, LinearScaling, RopeScaling
from .tokens import Tokenizer, TokenizerError
from .weights import ModelFileError, Pretrained, WeightsError, fill

SUPPORTED_ARCHITECTURES = ("llama", "qwen2")

_WHOLE_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FREQUENCY_DIVISORS = "rope_freqs.weight"

# Options that some files of these architectures carry, and that would change what the model computes.
_UNSUPPORTED_OPTIONS = ("expert_count", "embedding_scale", "residual_scale", "logit_scale", "attention.scale")

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5

# How text is cut into words before byte-pair merging, by the file's ``tokenizer.ggml.pre``.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(Regex(_WORDS % "{1,3}"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "qwen2": [
        pre_tokenizers.Split(Regex(_WORDS % ""), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}


class GGUFFile:
    """An opened GGUF file: its metadata, its configuration, its tensors and its tokenizer.

    Args:
      path: the file.

    Raises:
      ModelFileError: if it is not there or not a GGUF file.
      ConfigurationError: if it holds an unsupported architecture or option, or lacks an entry.
    """

    def __init__(self, path: str | Path):
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {path} as a GGUF file: {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.metadata = _Metadata(self._reader)
        self.config = _read_config(self.metadata, self._tensors)

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor as float32 under its Hugging Face name, expanded when its turn comes.

        Raises:
          WeightsError: for a tensor that this architecture does not have.
        """
        for name, tensor in self._tensors.items():
            if name != _FREQUENCY_DIVISORS:
                yield _hugging_face_name(name), self._row_order(name, _expand(tensor))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the metadata describes.

        Raises:
          TokenizerError: if it is not byte-level BPE, or cuts text into words in an unknown way.
        """
        return Tokenizer(_read_tokenizer(self.metadata), _read_eos(self.metadata), self.config.vocab_size)

    def _row_order(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Undoes llama.cpp's permutation: rows (head, D/2, 2) back to (head, 2, D/2)."""
        heads = {"attn_q": self.config.num_heads, "attn_k": self.config.num_kv_heads}
        projection = name.split(".")[-2]
        if self.metadata.architecture != "llama" or projection not in heads:
            return tensor
        pairs = tensor.reshape(heads[projection], -1, 2, *tensor.shape[1:])
        return pairs.swapaxes(1, 2).reshape(tensor.shape)


def load_gguf(path: str | Path, dtype=jnp.float32) -> Pretrained:
    """Reads a GGUF file of architecture ``llama`` (Mistral and SmolLM included) or ``qwen2``.

    Args:
      path: the file.
      dtype: of the decoder's matrices, float32 or bfloat16; norms and biases are float32 in any case.

    Raises:
      ModelFileError: if the file is not there or not a GGUF file.
      ConfigurationError: if the model is of an unsupported kind.
      WeightsError: if the tensors do not fit the configuration.
      TokenizerError: if the tokenizer is of an unsupported kind.
    """
    file = GGUFFile(path)
    return Pretrained(file.config, fill(file.config, file.tensors(), dtype), file.tokenizer())


class _Metadata:
    """A GGUF file's key-value pairs; ``model`` looks a key up under the architecture's name."""

    def __init__(self, reader: gguf.GGUFReader):
        self._fields = reader.fields
        self.architecture = self.get("general.architecture")

    def get(self, key: str, default: Any = None) -> Any:
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def model(self, key: str, default: Any = None) -> Any:
        return self.get(f"{self.architecture}.{key}", default)

    def required(self, key: str) -> Any:
        value = self.model(key)
        if value is None:
            raise ConfigurationError(f"the GGUF file has no metadata entry {self.architecture}.{key}")
        return value


def _read_config(metadata: _Metadata, tensors: Mapping[str, gguf.ReaderTensor]) -> DecoderConfig:
    if metadata.architecture not in SUPPORTED_ARCHITECTURES:
        supported = ", ".join(SUPPORTED_ARCHITECTURES)
        raise ConfigurationError(
            f"GGUF architecture {metadata.architecture!r} is not supported; supported are: {supported}"
        )
    for option in _UNSUPPORTED_OPTIONS:
        if metadata.model(option):
            raise ConfigurationError(f"the GGUF option {option}={metadata.model(option)} is not supported")
    heads, embed_dim = metadata.required("attention.head_count"), metadata.required("embedding_length")
    head_dim = metadata.model("attention.key_length", embed_dim // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.model(key, head_dim) != head_dim:
            raise ConfigurationError(
                f"{key}={metadata.model(key)} is not supported; only head_dim={head_dim} is"
            )
    return DecoderConfig(
        num_layers=metadata.required("block_count"),
        embed_dim=embed_dim,
        mlp_dim=metadata.required("feed_forward_length"),
        num_heads=heads,
        num_kv_heads=metadata.model("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),
        context_length=metadata.required("context_length"),
        rope_theta=metadata.model("rope.freq_base", 10_000.0),
        rope_scaling=_read_scaling(metadata, tensors),
        rms_norm_eps=metadata.required("attention.layer_norm_rms_epsilon"),
        tie_embeddings="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        sliding_window=metadata.model("attention.sliding_window") or None,
    )


def _read_scaling(metadata: _Metadata, tensors: Mapping[str, gguf.ReaderTensor]) -> RopeScaling | None:
    kind = metadata.model("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise ConfigurationError(f"rope scaling {kind!r} is not supported; supported are: none, linear")
    if kind == "linear":
        return LinearScaling(metadata.required("rope.scaling.factor"))
    if _FREQUENCY_DIVISORS in tensors:
        return FrequencyDivisors(tuple(_expand(tensors[_FREQUENCY_DIVISORS]).tolist()))
    return None


def _expand(tensor: gguf.ReaderTensor) -> np.ndarray:
    try:
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
        raise WeightsError(
            f"tensor {tensor.name!r} has the unsupported type {tensor.tensor_type.name}"
        ) from error


def _hugging_face_name(name: str) -> str:
    if name in _WHOLE_NAMES:
        return _WHOLE_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _BLOCK_NAMES:
        raise WeightsError(f"the GGUF tensor {name!r} has no place in a decoder of the Llama family")
    return f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.{match[3]}"


def _read_tokenizer(metadata: _Metadata) -> tokenizers.Tokenizer:
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2":
        raise TokenizerError(
            f"a GGUF tokenizer of kind {kind!r} is not supported, only byte-level BPE ('gpt2') is; "
            "load the model from its Hugging Face folder"
        )
    if split not in _SPLITS:
        supported = ", ".join(_SPLITS)
        raise TokenizerError(f"the GGUF pre-tokenizer {split!r} is not supported; supported are: {supported}")
    names = metadata.get("tokenizer.ggml.tokens")
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(names))
    model = tokenizers.models.BPE(
        vocab={n: index for index, (n, t) in enumerate(zip(names, types, strict=True)) if t != _UNUSED},
        merges=[tuple(merge.split(" ")) for merge in metadata.get("tokenizer.ggml.merges", [])],
        ignore_merges=split == "llama-bpe",
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_SPLITS[split])
    tokenizer.decoder = decoders.ByteLevel()
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    special = [
        AddedToken(n, special=True, normalized=False)
        for n, t in zip(names, types, strict=True)
        if t == _CONTROL
    ]
    added = [AddedToken(n, normalized=False) for n, t in zip(names, types, strict=True) if t == _USER_DEFINED]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(added)
    begin = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token") and begin is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{names[begin]} $A", special_tokens=[(names[begin], begin)]
        )
    return tokenizer


def _read_eos(metadata: _Metadata) -> list[int]:
    ids = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    return [index for index in ids if index is not None]
