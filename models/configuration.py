"""What distinguishes one decoder of the Llama family from another: sizes, and the rotary embedding.

Llama, Qwen 2 and Mistral are one architecture with different numbers in it. ``DecoderConfig`` holds the
numbers; ``from_hugging_face`` reads them from a ``config.json`` and refuses, by name, whatever would make
the model compute something else than this architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ppl.errors import BorelaxError

SUPPORTED_MODEL_TYPES = ("llama", "qwen2", "mistral")


class ConfigurationError(BorelaxError, ValueError):
    """A model description that this decoder cannot follow."""


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: positions are divided by ``factor`` (Chen et al., 2023)."""

    factor: float

    def rescale(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's rule: long wavelengths are interpolated, short ones kept, those between blended.

    A frequency whose wavelength is longer than ``original_context_length / low_frequency_factor`` is divided
    by ``factor``; one whose wavelength is shorter than ``original_context_length / high_frequency_factor``
    is kept.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int

    def rescale(self, frequencies: np.ndarray) -> np.ndarray:
        turns = self.original_context_length * frequencies / (2 * np.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


@dataclass(frozen=True)
class FrequencyDivisors:
    """A divisor for each frequency: the form in which a GGUF file stores a scaling rule's result."""

    divisors: tuple[float, ...]

    def rescale(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / np.asarray(self.divisors)


RopeScaling = LinearScaling | Llama3Scaling | FrequencyDivisors


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes and constants of a Llama-family decoder; hashable, so it can be static data under ``jit``.

    Attributes:
      num_layers: transformer blocks L.
      embed_dim: width E of the residual stream.
      mlp_dim: width M of the gated feed-forward layer.
      num_heads: query heads H.
      num_kv_heads: key and value heads K; H is a multiple of K.
      head_dim: width D of a head; H * D need not equal E.
      vocab_size: number of token ids V, padding included.
      context_length: the longest sequence the model was trained for, in tokens.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how those frequencies are stretched for long contexts, if at all.
      rms_norm_eps: added to the mean square in RMSNorm.
      tie_embeddings: whether the unembedding is the embedding table.
      qkv_bias: whether the query, key and value projections have biases.
      sliding_window: if given, a token attends to itself and the ``sliding_window - 1`` tokens before it.

    Raises:
      ConfigurationError: for sizes that do not fit together.
    """

    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    sliding_window: int | None = None

    def __post_init__(self):
        sizes = ("num_layers", "embed_dim", "mlp_dim", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
        for name in (*sizes, "context_length"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigurationError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads evenly"
            )
        if self.head_dim % 2:
            raise ConfigurationError(f"rotary embeddings need an even head_dim, got {self.head_dim}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ConfigurationError(f"sliding_window must be at least 1, got {self.sliding_window}")

    @property
    def rope_frequencies(self) -> np.ndarray:
        """Radians per position of each rotary pair, ``float32[D / 2]``: theta^(-2i/D), rescaled."""
        exponents = np.arange(0, self.head_dim, 2) / self.head_dim
        frequencies = self.rope_theta**-exponents
        if self.rope_scaling is not None:
            frequencies = self.rope_scaling.rescale(frequencies)
        return frequencies.astype(np.float32)

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Reads the contents of a Hugging Face ``config.json``.

        Raises:
          ConfigurationError: for another ``model_type`` than ``SUPPORTED_MODEL_TYPES``, for an option that
            would change what the model computes and is not implemented, or for a missing entry.
        """
        model_type = config.get("model_type")
        if model_type not in SUPPORTED_MODEL_TYPES:
            supported = ", ".join(SUPPORTED_MODEL_TYPES)
            raise ConfigurationError(
                f"model type {model_type!r} is not supported; supported are: {supported}"
            )
        _refuse_unsupported_options(config)
        heads = _required(config, "num_attention_heads")
        embed_dim = _required(config, "hidden_size")
        theta, scaling = _read_rope(config)
        return cls(
            num_layers=_required(config, "num_hidden_layers"),
            embed_dim=embed_dim,
            mlp_dim=_required(config, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=_given(config, "num_key_value_heads", 8 if model_type == "mistral" else heads),
            head_dim=_given(config, "head_dim", embed_dim // heads),
            vocab_size=_required(config, "vocab_size"),
            context_length=_required(config, "max_position_embeddings"),
            rope_theta=theta,
            rope_scaling=scaling,
            rms_norm_eps=_given(config, "rms_norm_eps", 1e-6),
            tie_embeddings=_given(config, "tie_word_embeddings", False),
            qkv_bias=model_type == "qwen2",
            # An absent entry means Mistral's own default; only an explicit null means no window.
            sliding_window=config.get("sliding_window", 4096) if model_type == "mistral" else None,
        )

    def to_hugging_face(self) -> dict[str, Any]:
        """A ``config.json`` that describes this model, and that ``from_hugging_face`` reads back.

        Raises:
          ConfigurationError: for a combination that no supported model type has.
        """
        if self.qkv_bias and self.sliding_window is not None:
            raise ConfigurationError("no supported model type has both qkv biases and a sliding window")
        model_type = "qwen2" if self.qkv_bias else "mistral" if self.sliding_window else "llama"
        described = {
            "model_type": model_type,
            "architectures": [f"{model_type.capitalize()}ForCausalLM"],
            "hidden_act": "silu",
            "num_hidden_layers": self.num_layers,
            "hidden_size": self.embed_dim,
            "intermediate_size": self.mlp_dim,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context_length,
            "rope_theta": self.rope_theta,
            "rope_scaling": _describe_scaling(self.rope_scaling),
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
        }
        return described | ({"sliding_window": self.sliding_window} if model_type == "mistral" else {})


def _required(config: Mapping[str, Any], key: str) -> Any:
    if config.get(key) is None:
        raise ConfigurationError(f"the model's configuration has no entry {key!r}")
    return config[key]


def _given(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """The entry, or ``default`` where it is absent or null."""
    value = config.get(key)
    return default if value is None else value


def _refuse_unsupported_options(config: Mapping[str, Any]) -> None:
    activation = _given(config, "hidden_act", "silu")
    if activation != "silu":
        raise ConfigurationError(f"activation hidden_act={activation!r} is not supported; only 'silu' is")
    for option in ("attention_bias", "mlp_bias", "use_sliding_window", "quantization_config"):
        if config.get(option):
            raise ConfigurationError(f"the option {option}={config[option]!r} is not supported")
    fraction = _given(config, "partial_rotary_factor", 1.0)
    if fraction != 1.0:
        raise ConfigurationError(f"partial_rotary_factor={fraction} is not supported; only 1.0 is")


def _read_rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base and the scaling rule, from ``rope_parameters`` or from the older top-level entries."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = parameters.get("rope_theta") or config.get("rope_theta") or 10_000.0
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    match kind:
        case "default":
            return float(theta), None
        case "linear":
            return float(theta), LinearScaling(float(_required(parameters, "factor")))
        case "llama3":
            scaling = Llama3Scaling(
                factor=float(_required(parameters, "factor")),
                low_frequency_factor=float(_required(parameters, "low_freq_factor")),
                high_frequency_factor=float(_required(parameters, "high_freq_factor")),
                original_context_length=_required(parameters, "original_max_position_embeddings"),
            )
            return float(theta), scaling
        case _:
            raise ConfigurationError(
                f"rope scaling {kind!r} is not supported; supported are: default, linear, llama3"
            )


def _describe_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    match scaling:
        case None:
            return None
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor, low, high, original):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
        case FrequencyDivisors():
            raise ConfigurationError("a config.json cannot hold divisors given for each frequency")
