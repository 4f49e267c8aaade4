"""Weights from files: a Hugging Face folder as a decoder and its tokenizer.

Hugging Face's tensor names are the one vocabulary here; other formats translate theirs to it. ``fill`` puts
named tensors into a decoder and sees to it that they fit exactly: none unknown, none of another shape, none
missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from ..ppl.errors import BorelaxError
from .configuration import DecoderConfig
from .decoder import Decoder, split
from .tokens import Tokenizer

_EMBEDDING = "model.embed_tokens.weight"
_UNEMBEDDING = "lm_head.weight"

_BLOCK = {
    "input_layernorm.weight": ("attention_norm", "weight"),
    "self_attn.q_proj.weight": ("attention", "query", "weight"),
    "self_attn.k_proj.weight": ("attention", "key", "weight"),
    "self_attn.v_proj.weight": ("attention", "value", "weight"),
    "self_attn.o_proj.weight": ("attention", "output", "weight"),
    "post_attention_layernorm.weight": ("feed_forward_norm", "weight"),
    "mlp.gate_proj.weight": ("feed_forward", "gate", "weight"),
    "mlp.up_proj.weight": ("feed_forward", "up", "weight"),
    "mlp.down_proj.weight": ("feed_forward", "down", "weight"),
}
_BLOCK_BIASES = {
    "self_attn.q_proj.bias": ("attention", "query", "bias"),
    "self_attn.k_proj.bias": ("attention", "key", "bias"),
    "self_attn.v_proj.bias": ("attention", "value", "bias"),
}


class WeightsError(BorelaxError, ValueError):
    """Tensors that do not fit the decoder they are meant for."""


class ModelFileError(BorelaxError, OSError):
    """A model file that is not there or cannot be read."""


class Pretrained(NamedTuple):
    """A model read from files."""

    config: DecoderConfig
    decoder: Decoder
    tokenizer: Tokenizer


def load_folder(path: str | Path, dtype=jnp.float32) -> Pretrained:
    """Reads a Hugging Face model folder: ``config.json``, ``*.safetensors`` and ``tokenizer.json``.

    Args:
      path: the folder.
      dtype: of the decoder's matrices, float32 or bfloat16; norms and biases are float32 in any case.

    Raises:
      ModelFileError: if the folder or one of its files is not there or cannot be read.
      ConfigurationError: if the model is of an unsupported kind.
      WeightsError: if the tensors do not fit the configuration.
      TokenizerError: if the tokenizer cannot be read or does not fit.
    """
    path = Path(path)
    config = DecoderConfig.from_hugging_face(_read_json(path / "config.json"))
    decoder = fill(config, _read_tensors(path), dtype)
    return Pretrained(config, decoder, Tokenizer.from_folder(path, config.vocab_size))


def fill(config: DecoderConfig, tensors: Iterable[tuple[str, np.ndarray]], dtype=jnp.float32) -> Decoder:
    """A decoder with these weights, which are taken and converted one at a time.

    Args:
      config: what the decoder looks like.
      tensors: pairs of a Hugging Face name and an array, in any order.
      dtype: of the decoder's matrices.

    Raises:
      WeightsError: naming the tensor that is unknown, given twice, of another shape, or missing.
    """
    graphdef, parameters = split(nnx.eval_shape(lambda: Decoder(config, dtype=dtype, rngs=nnx.Rngs(0))))
    unfilled = _places(config)
    known, tied_copy = frozenset(unfilled), None
    for name, tensor in tensors:
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a constant that old checkpoints carry along
        if name == _UNEMBEDDING and config.tie_embeddings:
            tied_copy = tensor
            continue
        if name not in unfilled:
            raise WeightsError(
                f"tensor {name!r} is given twice" if name in known else f"this decoder has no tensor {name!r}"
            )
        _put(parameters, unfilled.pop(name), name, tensor)
    if unfilled:
        raise WeightsError(f"{len(unfilled)} tensors are missing, the first is {next(iter(unfilled))!r}")
    if tied_copy is not None:
        _check_tied(parameters["embedding"], tied_copy)
    return nnx.merge(graphdef, parameters)


def _places(config: DecoderConfig) -> dict[str, tuple[str | int, ...]]:
    """Where in the decoder's parameters each Hugging Face tensor goes."""
    block = _BLOCK | (_BLOCK_BIASES if config.qkv_bias else {})
    places: dict[str, tuple[str | int, ...]] = {
        _EMBEDDING: ("embedding",),
        "model.norm.weight": ("norm", "weight"),
    }
    if not config.tie_embeddings:
        places[_UNEMBEDDING] = ("unembedding",)
    for index in range(config.num_layers):
        for name, place in block.items():
            places[f"model.layers.{index}.{name}"] = ("layers", index, *place)
    return places


def _put(parameters: dict, place: tuple[str | int, ...], name: str, tensor: np.ndarray) -> None:
    *holders, last = place
    for holder in holders:
        parameters = parameters[holder]
    expected = parameters[last]
    if tensor.shape != expected.shape:
        raise WeightsError(f"tensor {name!r} has shape {tensor.shape}, the decoder needs {expected.shape}")
    parameters[last] = jnp.asarray(tensor, expected.dtype)


def _check_tied(embedding: jax.Array, unembedding: np.ndarray) -> None:
    same_shape = embedding.shape == unembedding.shape
    if not (same_shape and bool((embedding == jnp.asarray(unembedding, embedding.dtype)).all())):
        raise WeightsError(
            f"the configuration ties the embeddings, yet {_UNEMBEDDING!r} differs from {_EMBEDDING!r}"
        )


def _read_tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the folder's safetensors files, read when its turn comes."""
    for file in _shards(path):
        with _open_safetensors(file) as tensors:
            for name in tensors.offset_keys():
                yield name, tensors.get_tensor(name)


def _shards(path: Path) -> list[Path]:
    """The index says which files belong to the model; without one, it is ``model.safetensors`` alone."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return [path / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    if not (path / "model.safetensors").is_file():
        raise ModelFileError(f"{path} has neither model.safetensors nor model.safetensors.index.json")
    return [path / "model.safetensors"]


@contextmanager
def _open_safetensors(file: Path):
    try:
        opened = safe_open(file, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot read {file}: {error}") from error
    with opened as tensors:
        yield tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise ModelFileError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ModelFileError(f"{file} is not valid JSON: {error}") from error
