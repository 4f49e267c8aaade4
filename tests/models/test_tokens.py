import json

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from borelax.models.tokens import Tokenizer, TokenizerError
from borelax.ppl.errors import BorelaxError

TEXTS = [
    "",
    " ",
    "the cat sat on the mat",
    "  two  spaces\tand\ttabs\r\n\n",
    "it's 12345.67 (yes!)",
    "naïve déjà vu ¡¬®ÿ",
    "日本語 と 한국어",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\0\x01\x7f\x80\u00a0\u00ad",
]


@pytest.fixture
def tokenizer(byte_level_tokenizer):
    return Tokenizer(byte_level_tokenizer, eos=[1], vocab_size=320)


@pytest.fixture
def sentencepiece():
    """A tokenizer of Llama 2's kind: a space before the text, U+2581 for spaces, bytes as a last resort."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*"\u2581abcdet", "\u2581a", "ab"]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [("\u2581", "a"), ("a", "b")]
    model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(tokenizer, eos=[2])


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_spell_the_text(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int32
    assert b"".join(tokenizer.token_bytes[token] for token in tokens) == text.encode()
    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("text", TEXTS[1:])
def test_sentencepiece_tokens_spell_the_text_after_a_space(sentencepiece, text):
    tokens = sentencepiece.encode(text)
    assert b"".join(sentencepiece.token_bytes[token] for token in tokens) == b" " + text.encode()
    assert sentencepiece.decode(tokens) == text


def test_control_tokens_and_padding_have_no_bytes(byte_level_tokenizer, tokenizer, sentencepiece):
    own_size = byte_level_tokenizer.get_vocab_size()
    assert len(tokenizer.token_bytes) == 320
    assert tokenizer.token_bytes[:2] == [None, None]
    assert tokenizer.token_bytes[own_size:] == [None] * (320 - own_size)
    assert all(tokenizer.token_bytes[2:own_size])
    assert sentencepiece.token_bytes[:3] == [None] * 3
    assert sentencepiece.token_bytes[3 + 0x0A] == b"\n"


def test_added_tokens_that_are_not_special_are_text(byte_level_tokenizer):
    own = tokenizers.Tokenizer.from_str(byte_level_tokenizer.to_str())
    own.add_tokens([AddedToken("<think>", special=False)])
    tokenizer = Tokenizer(own)
    assert tokenizer.token_bytes[tokenizer.token_id("<think>")] == b"<think>"


def test_special_tokens_are_recognised_and_skipped(tokenizer):
    tokens = tokenizer.encode("cat<|end|>")
    assert tokens[-1] == 1 == tokenizer.token_id("<|end|>")
    assert tokenizer.decode(tokens) == "cat"
    assert tokenizer.decode(tokens, skip_special_tokens=False) == "cat<|end|>"


def test_equality_and_hash_go_by_content(byte_level_tokenizer, tokenizer):
    copy = tokenizers.Tokenizer.from_str(byte_level_tokenizer.to_str())
    same, other_eos = Tokenizer(copy, [1], 320), Tokenizer(copy, [0], 320)
    assert same == tokenizer
    assert hash(same) == hash(tokenizer)
    assert other_eos != tokenizer
    assert tokenizer != "tokenizer"


def test_end_of_text_ids_come_from_the_configuration(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    assert Tokenizer.from_folder(tmp_path).eos == ()
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert Tokenizer.from_folder(tmp_path).eos == (1,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0]}))
    assert Tokenizer.from_folder(tmp_path).eos == (1, 0)
    assert Tokenizer.from_folder(tmp_path, 320).encode("cat").tolist() == tokenizer.encode("cat").tolist()


def test_what_cannot_be_read_is_refused(tmp_path, byte_level_tokenizer):
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json") as caught:
        Tokenizer.from_folder(tmp_path)
    assert isinstance(caught.value, BorelaxError)
    assert isinstance(caught.value, ValueError)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(TokenizerError, match="id 400, but the model has 320"):
        Tokenizer(byte_level_tokenizer, [400], 320)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(TokenizerError, match="which bytes tokens stand for"):
        _ = Tokenizer(words).token_bytes
