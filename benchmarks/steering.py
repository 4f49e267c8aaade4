"""Steering a language model: borelax beside a hand-written decode loop without constraint, and beside peers.

SmolLM2-135M, 32 particles of 32 tokens, every word of at most five letters. The hand-written loop does the same
forward passes over a private cache per particle and draws with the same two-level sampler, but has no constraint,
no weights and no resampling. Both run in one process, taking turns.

    python benchmarks/steering.py                    # borelax and the hand-written loop
    python benchmarks/steering.py --growth           # also: time per token for longer texts
    python benchmarks/steering.py --peers FILE ...   # also: what the scripts in benchmarks/peers printed
"""

from __future__ import annotations

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import compile_seconds, interleaved, ratio

from borelax import inference, models, ppl

PROMPT = "The Federal Reserve said on Tuesday that"
SHORT_WORDS = r"( [A-Za-z]{1,5}[,.]?)+"


def steered(particles: int, length: int):
    def story(lm, prompt, constraint):
        return lm.generate("text", prompt, max_tokens=length, constraint=constraint)

    return ppl.seed(inference.smc(story, particles))


def hand_written(particles: int, length: int):
    """Plain ancestral sampling: prefill once, then a scan of batched decoder steps over a cache per particle."""

    def sample(key, logits):
        blocks = jnp.exp(logits - jnp.max(logits, -1, keepdims=True)).reshape(particles, -1, 256)
        cumulated = jnp.cumsum(blocks.sum(-1), -1)
        point = jax.random.uniform(key, (particles, 1)) * cumulated[:, -1:]
        block = jnp.argmax(cumulated > point, -1)[:, None]
        before = jnp.where(block > 0, jnp.take_along_axis(cumulated, jnp.maximum(block - 1, 0), -1), 0.0)
        row = jnp.take_along_axis(blocks, block[..., None], 1)[:, 0]
        within = jnp.argmax(jnp.cumsum(row, -1) > point - before, -1)
        return (block[:, 0] * 256 + within).astype(jnp.int32)

    def generate(key, lm, prompt, constraint):
        decoder, c = lm.decoder, lm.config
        hidden, cache = decoder.prefill(prompt.tokens, prompt.length)
        suffix = jnp.zeros((particles, length, c.num_layers, 2, c.num_kv_heads, c.head_dim))

        def step(carry, inputs):
            hidden, suffix = carry
            key, t = inputs
            token = sample(key, decoder.logits(hidden))
            advance = jax.vmap(lambda token, own: decoder.step(token, t, prompt.length, cache, own))
            hidden, record = advance(token, suffix)
            suffix = jax.lax.dynamic_update_index_in_dim(suffix, record, t, 1)
            return (hidden, suffix), token

        start = (jnp.broadcast_to(hidden, (particles, c.embed_dim)), suffix)
        inputs = (jax.random.split(key, length), jnp.arange(length))
        return jax.lax.scan(step, start, inputs)[1]

    return generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--particles", type=int, nargs="+", default=[32])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--peers", nargs="*", default=[], help="files of JSON lines")
    options = parser.parse_args()
    best = {}
    for dtype in options.dtype:
        lm = models.load(options.model, dtype)
        constraint = models.regex(SHORT_WORDS, lm)
        prompt = lm.pad(lm.encode(PROMPT))
        arguments = (lm, prompt, constraint)
        for particles in options.particles:
            lengths = [options.tokens] if not options.growth else [options.tokens * k for k in (1, 2, 4)]
            for length in lengths:
                speeds = compare(particles, length, arguments, options.repeats)
                print(f"{dtype:9s} n={particles:4d} tokens={length:4d}  " + speeds["line"], flush=True)
                best[dtype, particles, length] = speeds["borelax"]
    rows = [json.loads(line) for file in options.peers for line in open(file) if line.startswith("{")]
    for row in rows:
        ours = best.get(("float32", row["particles"], row["tokens"]))
        against = "" if ours is None else f"  borelax float32 is {ours / row['tokens_per_second']:.1f}x"
        print(f"{row['name']:40s} {row['tokens_per_second']:8.1f} tokens/s{against}")


def compare(particles: int, length: int, arguments: tuple, repeats: int) -> dict:
    key = jax.random.key(0)
    makers = {"borelax": steered, "hand": hand_written}
    compiled, seconds = {}, {}
    for name, make in makers.items():
        seconds[name], compiled[name] = compile_seconds(make(particles, length), key, *arguments)
    keys = iter(jax.random.split(key, 1000))
    runs = {name: partial(lambda run: run(next(keys), *arguments), run) for name, run in compiled.items()}
    times = interleaved(runs, repeats)
    speed = {name: particles * length / np.median(t) for name, t in times.items()}
    relative = 1 / ratio(times["borelax"], times["hand"])
    line = (
        f"borelax {speed['borelax']:6.0f} tokens/s, hand {speed['hand']:6.0f}: {relative:.0%} "
        f"({np.median(times['borelax']) / length * 1e3:.1f} ms per step; compile "
        f"{seconds['borelax']:.1f} s, hand {seconds['hand']:.1f} s)"
    )
    return {"line": line, "borelax": speed["borelax"]}


if __name__ == "__main__":
    main()
