"""LLaMPPL: standard SMC, every word of at most five letters."""

import asyncio
import string
import time

import common

chosen = common.options(__doc__)

from llamppl import CachedCausalLM, LMContext, Model, smc_standard  # noqa: E402

lm = CachedCausalLM.from_pretrained(chosen.model, backend="hf")


def allowed(token: int, piece: str, letters: int) -> bool:
    """Whether a piece may follow ``letters`` letters of a word."""
    if token == lm.tokenizer.eos_token_id or not piece or "\n" in piece:
        return False
    if not any(c.isalpha() or c in string.punctuation for c in piece):
        return False
    return len(piece.strip()) <= 5 and (not piece[0].isalpha() or letters + len(piece) <= 5)


MASKS = {n: {i for i, piece in enumerate(lm.str_vocab) if allowed(i, piece, n)} for n in range(6)}


class ShortWords(Model):
    def __init__(self):
        super().__init__()
        self.context = LMContext(lm, common.PROMPT)
        self.left = chosen.tokens

    def mask(self):
        words = str(self.context).split()
        return MASKS[min(5, len(words[-1]) if words else 0)]

    async def start(self):
        await self.observe(self.context.mask_dist(self.mask()), True)

    async def step(self):
        await self.sample(self.context.next_token())
        self.left -= 1
        if self.left == 0:
            self.finish()
        else:
            await self.observe(self.context.mask_dist(self.mask()), True)


def run() -> tuple[int, float]:
    lm.clear_cache()
    lm.cache_kv(lm.tokenizer.encode(common.PROMPT))
    start = time.perf_counter()
    particles = asyncio.run(smc_standard(ShortWords(), chosen.particles, 0.5))
    seconds = time.perf_counter() - start
    return sum(particle.context.token_count for particle in particles), seconds


common.report("llamppl smc_standard", chosen, run)
