"""Text to token ids and back, and the bytes that each token stands for.

Constraints are automata over bytes, so they need to know exactly which bytes each token contributes to the
text. A tokenizer's vocabulary does not say so directly. Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) writes
each byte as one printable character; SentencePiece (Llama 2, Mistral) writes a space as U+2581 and falls back
to tokens named ``<0x0A>`` for single bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ..ppl.errors import BorelaxError

SPACE_MARK = "\u2581"


class TokenizerError(BorelaxError, ValueError):
    """A tokenizer that is not there, or whose tokens' bytes cannot be told."""


class Tokenizer:
    """A Hugging Face tokenizer with its end-of-text tokens and its tokens' bytes.

    Equality and hash go by content, so that a tokenizer can be static data in a pytree: loading a model twice
    does not compile anything twice.

    Args:
      tokenizer: the tokenizer proper.
      eos: ids of the tokens that end a text.
      vocab_size: the model's number of token ids, which may exceed the tokenizer's (padding); by default
        the tokenizer's own.

    Raises:
      TokenizerError: if the tokenizer has ids, or ``eos`` has, that the model has not.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, eos: Iterable[int] = (), vocab_size: int | None = None
    ):
        own_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self.vocab_size = own_size if vocab_size is None else vocab_size
        self.eos = tuple(dict.fromkeys(eos))
        self._tokenizer = tokenizer
        largest = max(own_size - 1, *self.eos, 0)
        if largest >= self.vocab_size:
            raise TokenizerError(
                f"the tokenizer uses id {largest}, but the model has {self.vocab_size} tokens"
            )

    @classmethod
    def from_folder(cls, path: str | Path, vocab_size: int | None = None) -> Tokenizer:
        """Reads ``tokenizer.json``, and the end-of-text ids from the model's configuration.

        Raises:
          TokenizerError: if the folder has no ``tokenizer.json``, or one that cannot be read.
        """
        path = Path(path)
        if not (path / "tokenizer.json").is_file():
            raise TokenizerError(
                f"{path} has no tokenizer.json; older models ship only tokenizer.model or vocab.json, "
                "which transformers' AutoTokenizer can convert with save_pretrained"
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise TokenizerError(f"{path / 'tokenizer.json'} cannot be read: {error}") from error
        return cls(tokenizer, _read_eos(path), vocab_size)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> np.ndarray:
        """Token ids ``int32[n]``; with ``add_special_tokens``, those of the tokenizer's template too."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return np.asarray(encoding.ids, np.int32)

    def decode(self, tokens: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = True) -> str:
        """The text of ``tokens`` (``int[n]``); bytes that are not UTF-8 become U+FFFD."""
        ids = np.asarray(tokens, np.int64).tolist()
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary, such as ``"<|im_end|>"``; None if there is none."""
        return self._tokenizer.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        """The name of a token in the vocabulary; None if there is none."""
        return self._tokenizer.id_to_token(token_id)

    @cached_property
    def token_bytes(self) -> list[bytes | None]:
        """For each id, the bytes it adds to a text; None for control tokens and for ids without a token.

        Joined over ``encode(text)`` they give ``text`` in UTF-8. A SentencePiece tokenizer that starts every
        text with a space gives that space too.

        Raises:
          TokenizerError: if the tokenizer is neither byte-level BPE nor of SentencePiece's kind.
        """
        to_bytes = _spelling(json.loads(self._serialised))
        table: list[bytes | None] = [None] * self.vocab_size
        for token, index in self._tokenizer.get_vocab(with_added_tokens=False).items():
            table[index] = to_bytes(token)
        for index, added in self._tokenizer.get_added_tokens_decoder().items():
            table[index] = None if added.special else added.content.encode()
        unknown = self._unknown_id
        if unknown is not None:
            table[unknown] = None
        return table

    @property
    def _unknown_id(self) -> int | None:
        name = getattr(self._tokenizer.model, "unk_token", None)
        return None if name is None else self._tokenizer.token_to_id(name)

    @cached_property
    def _serialised(self) -> str:
        return self._tokenizer.to_str()

    @cached_property
    def _identity(self) -> tuple[str, tuple[int, ...], int]:
        return hashlib.sha256(self._serialised.encode()).hexdigest(), self.eos, self.vocab_size

    def save(self, path: str | Path) -> None:
        """Writes ``tokenizer.json`` into the folder ``path``."""
        self._tokenizer.save(str(Path(path) / "tokenizer.json"))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Tokenizer) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, eos={self.eos})"


def _read_eos(path: Path) -> list[int]:
    """End-of-text ids: generation_config.json may name several, where config.json names one."""
    for name in ("generation_config.json", "config.json"):
        if (path / name).is_file():
            eos = json.loads((path / name).read_text()).get("eos_token_id")
            if eos is not None:
                return eos if isinstance(eos, list) else [eos]
    return []


def _spelling(described: dict[str, Any]):
    """The function from a token's name to its bytes, told by how the tokenizer decodes."""
    kinds = {part.get("type") for part in _parts(described.get("decoder"), "decoders")}
    if "ByteLevel" in kinds:
        return _byte_level_bytes
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return _sentencepiece_bytes
    found = ", ".join(sorted(map(str, kinds))) or "none"
    raise TokenizerError(f"cannot tell which bytes tokens stand for; decoders of this tokenizer: {found}")


def _parts(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The members of a Sequence component, or the component alone."""
    if component is None:
        return []
    return component[key] if component.get("type") == "Sequence" else [component]


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's map from characters to bytes: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _byte_level_bytes(token: str) -> bytes | None:
    """The bytes of a byte-level token; None if a character of it is outside the alphabet."""
    if not all(character in _ALPHABET for character in token):
        return None
    return bytes(_ALPHABET[character] for character in token)


def _sentencepiece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace(SPACE_MARK, " ").encode()
