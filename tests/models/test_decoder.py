from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from borelax.models.configuration import DecoderConfig
from borelax.models.decoder import Decoder, split
from borelax.models.weights import load_folder
from borelax.ppl.history import append, history

CONFIG = DecoderConfig(
    num_layers=2,
    embed_dim=16,
    mlp_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=50,
    context_length=64,
)
WINDOWED = DecoderConfig(**(vars(CONFIG) | {"sliding_window": 5}))
PROMPT, GENERATED, PADDED = 6, 7, 9  # lengths: of the prompt, of what follows, of the prompt with padding


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        pytest.param("llama", {}, id="grouped-queries"),
        pytest.param("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}, id="tied"),
        pytest.param("llama", {"head_dim": 12, "num_key_value_heads": 1}, id="head_dim"),
        pytest.param(
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e3,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                }
            },
            id="llama3-rope",
        ),
        pytest.param(
            "llama",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
            id="linear-rope",
        ),
        pytest.param("qwen2", {"tie_word_embeddings": True}, id="qwen2-tied"),
        pytest.param("qwen2", {}, id="qwen2-untied"),
        pytest.param("mistral", {"sliding_window": None}, id="mistral"),
        pytest.param("mistral", {"sliding_window": 5}, id="mistral-window"),
    ],
)
def test_logits_are_those_of_transformers(checkpoint, torch_logits, logits, tokens, model_type, options):
    path, reference = checkpoint(model_type, **options)
    decoder = load_folder(path).decoder
    expected = torch_logits(reference, tokens)
    assert np.ptp(expected) > 5  # otherwise agreement would say little
    np.testing.assert_allclose(logits(decoder, tokens), expected, atol=1e-3)


@pytest.fixture(params=[CONFIG, WINDOWED], ids=["full", "window"])
def decoder(request):
    return Decoder(request.param, rngs=nnx.Rngs(1))


@pytest.fixture
def text():
    """A prompt, and what three particles generate after it."""
    rng = np.random.default_rng(2)
    prompt, generated = rng.integers(0, 50, PROMPT), rng.integers(0, 50, (3, GENERATED))
    return jnp.asarray(prompt, jnp.int32), jnp.asarray(generated, jnp.int32)


def generate(decoder, prompt, length, generated, slots=GENERATED):
    """Logits after the prompt and after each generated token: ``[1 + n, V]``."""
    hidden, cache = decoder.prefill(prompt, length)
    c = decoder.config
    record = jax.ShapeDtypeStruct((c.num_layers, 2, c.num_kv_heads, c.head_dim), jnp.float32)

    def body(suffix, step):
        hidden, record = decoder.step(generated[step], step, length, cache, suffix)
        return append(suffix, step, record), decoder.logits(hidden)

    _, logits = jax.lax.scan(body, history(slots, record), jnp.arange(len(generated)))
    return jnp.concatenate([decoder.logits(hidden)[None], logits])


def padded(prompt, with_token=0):
    return jnp.pad(prompt, (0, PADDED - len(prompt)), constant_values=with_token)


forward, prefill, step = map(jax.jit, (Decoder.forward, Decoder.prefill, Decoder.step))


def expected_logits(decoder, prompt, generated):
    """What ``generate`` should give. The pass is causal, so that filling up to one common length is harmless."""
    tokens = jnp.zeros(PROMPT + GENERATED, jnp.int32).at[: len(prompt) + len(generated)]
    logits = forward(decoder, tokens.set(jnp.concatenate([prompt, generated])))
    return logits[len(prompt) - 1 : len(prompt) + len(generated)]


def test_steps_agree_with_one_pass_over_the_whole_sequence(decoder, text):
    prompt, generated = text[0], text[1][0]
    logits = jax.jit(generate)(decoder, prompt, PROMPT, generated)
    np.testing.assert_allclose(logits, expected_logits(decoder, prompt, generated), atol=1e-5)


@pytest.mark.parametrize("with_token", [0, 17])
def test_padding_and_spare_slots_change_nothing(decoder, text, with_token):
    prompt, generated = text[0], text[1][0]
    run = jax.jit(partial(generate, slots=GENERATED + 4))
    logits = run(decoder, padded(prompt, with_token), PROMPT, generated)
    np.testing.assert_allclose(logits, expected_logits(decoder, prompt, generated), atol=1e-5)


def test_slots_not_yet_written_are_not_read(decoder, text):
    prompt, generated = text[0], text[1][0]
    _, cache = prefill(decoder, prompt, PROMPT)
    empty = jnp.zeros((GENERATED, 2, 2, 2, 8))
    first, record = step(decoder, generated[0], 0, PROMPT, cache, empty)
    again, _ = step(decoder, generated[0], 0, PROMPT, cache, empty + 100.0)
    np.testing.assert_array_equal(first, again)
    assert record.shape == empty.shape[1:]
    assert record.dtype == jnp.float32


def test_particles_share_a_prompt_under_vmap(decoder, text):
    prompt, generated = text
    run = jax.jit(jax.vmap(generate, in_axes=(None, None, None, 0)))
    logits = run(decoder, padded(prompt), PROMPT, generated)
    for particle, continuation in enumerate(generated):
        expected = expected_logits(decoder, prompt, continuation)
        np.testing.assert_allclose(logits[particle], expected, atol=1e-5)


def test_prompts_of_different_lengths_under_vmap(decoder, text):
    prompt, generated = text
    lengths = np.array([2, 4, 6], np.int32)
    run = jax.jit(jax.vmap(generate, in_axes=(None, None, 0, 0)))
    logits = run(decoder, padded(prompt), lengths, generated)
    for particle, (length, continuation) in enumerate(zip(lengths, generated, strict=True)):
        expected = expected_logits(decoder, prompt[:length], continuation)
        np.testing.assert_allclose(logits[particle], expected, atol=1e-5)


def test_gradients_of_steps_are_those_of_the_whole_sequence(text):
    decoder = Decoder(CONFIG, rngs=nnx.Rngs(1))
    prompt, generated = text[0], text[1][0]
    graphdef, parameters = split(decoder)

    def score(logits):
        return jax.nn.log_softmax(logits[:-1])[jnp.arange(GENERATED), generated].sum()

    def stepped(parameters):
        return score(generate(nnx.merge(graphdef, parameters), prompt, PROMPT, generated))

    def whole(parameters):
        return score(expected_logits(nnx.merge(graphdef, parameters), prompt, generated))

    gradients = (jax.jit(jax.grad(function))(parameters) for function in (stepped, whole))
    for ours, expected in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_bfloat16_rounds_operands_and_nothing_else(text):
    exact = Decoder(CONFIG, rngs=nnx.Rngs(1))
    graphdef, parameters = split(Decoder(CONFIG, dtype=jnp.bfloat16, rngs=nnx.Rngs(1)))
    rounded = jax.tree.map(lambda new, like: new.astype(like.dtype), split(exact)[1], parameters)
    decoder = nnx.merge(graphdef, rounded)
    assert decoder.embedding[...].dtype == jnp.bfloat16
    assert decoder.norm.weight[...].dtype == jnp.float32
    hidden, cache = prefill(decoder, text[0], PROMPT)
    assert {leaf.dtype for leaf in jax.tree.leaves((hidden, cache))} == {jnp.dtype(jnp.float32)}
    logits, expected = forward(decoder, text[0]), forward(exact, text[0])
    assert logits.dtype == jnp.float32
    error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
    assert 0 < error < 4 * 2**-8  # a few roundings to 8 bits


def test_split_gives_hashable_structure_and_plain_dicts(text):
    decoder = Decoder(CONFIG, rngs=nnx.Rngs(1))
    graphdef, parameters = split(decoder)
    assert graphdef == split(Decoder(CONFIG, rngs=nnx.Rngs(2)))[0]
    assert hash(graphdef) == hash(split(Decoder(CONFIG, rngs=nnx.Rngs(2)))[0])
    assert type(parameters) is dict
    assert parameters["layers"][1]["attention"]["query"]["weight"].shape == (32, 16)
    merged = nnx.merge(graphdef, parameters)
    np.testing.assert_array_equal(forward(merged, text[0]), forward(decoder, text[0]))
