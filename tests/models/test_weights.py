import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from borelax.models.weights import ModelFileError, Pretrained, WeightsError, load_folder
from borelax.ppl.errors import BorelaxError


def rewrite(path, change):
    """Applies ``change`` to the dict of tensors of a checkpoint."""
    file = path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


def test_gives_configuration_decoder_and_tokenizer(checkpoint):
    path, _ = checkpoint("llama")
    loaded = load_folder(path)
    assert isinstance(loaded, Pretrained)
    assert loaded.decoder.config == loaded.config
    assert loaded.tokenizer.eos == (1,)
    assert loaded.tokenizer.vocab_size == loaded.config.vocab_size


def test_sharded_files(checkpoint, torch_logits, logits, tokens):
    path, reference = checkpoint("llama", max_shard_size="20KB")
    assert len(list(path.glob("model-*.safetensors"))) > 2
    ours = logits(load_folder(path).decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


def test_bfloat16_checkpoints_are_read_exactly(checkpoint, torch_logits, logits, tokens, random_model):
    path, _ = checkpoint("llama")
    random_model("llama").bfloat16().save_pretrained(path)
    reference = random_model("llama")
    for parameter in reference.parameters():
        parameter.data = parameter.data.bfloat16().float()
    ours = logits(load_folder(path).decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)


def test_dtype_is_that_of_the_matrices_alone(checkpoint):
    path, _ = checkpoint("qwen2")
    decoder = load_folder(path, jnp.bfloat16).decoder
    for leaf in jax.tree.leaves(decoder):
        assert leaf.dtype == (jnp.bfloat16 if leaf.ndim == 2 else jnp.float32)


def test_a_tied_model_may_store_its_embeddings_twice(checkpoint, torch_logits, logits, tokens):
    path, reference = checkpoint("llama", tie_word_embeddings=True)
    rewrite(path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    ours = logits(load_folder(path).decoder, tokens)
    np.testing.assert_allclose(ours, torch_logits(reference, tokens), atol=1e-3)
    rewrite(path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(WeightsError, match=r"ties the embeddings, yet 'lm_head\.weight' differs"):
        load_folder(path)


Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q_PROJ), f"missing, the first is '{Q_PROJ}'"),
        (lambda t: t.update({Q_PROJ: t[Q_PROJ][:-1].copy()}), rf"'{Q_PROJ}' has shape \(31, 32\)"),
        (lambda t: t.update(extra=t[Q_PROJ].copy()), "no tensor 'extra'"),
        (lambda t: t.update({Q_PROJ.replace("weight", "bias"): np.zeros(32)}), r"no tensor '.*q_proj\.bias'"),
    ],
    ids=["missing", "shape", "unknown", "bias"],
)
def test_tensors_that_do_not_fit_are_named(checkpoint, change, message):
    path, _ = checkpoint("llama")
    rewrite(path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_folder(path)
    assert isinstance(caught.value, BorelaxError)
    assert isinstance(caught.value, ValueError)


def test_a_tensor_in_two_shards_is_refused(checkpoint):
    path, _ = checkpoint("llama")
    shutil.copy(path / "model.safetensors", path / "again.safetensors")
    index = {"weight_map": {"a": "model.safetensors", "b": "again.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="is given twice"):
        load_folder(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(checkpoint, name):
    path, _ = checkpoint("llama")
    (path / name).unlink()
    with pytest.raises(ModelFileError, match=name) as caught:
        load_folder(path)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_broken_files_are_named(checkpoint, name):
    path, _ = checkpoint("llama")
    (path / name).write_text("{ not what it should be")
    with pytest.raises(ModelFileError, match=name):
        load_folder(path)
