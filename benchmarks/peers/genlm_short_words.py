"""genlm-control: SMC with a regular expression as a potential, every word of at most five letters."""

import asyncio
import time

import common

chosen = common.options(__doc__)

from genlm.control import BoolFSA, PromptedLLM, eager_token_sampler  # noqa: E402

llm = PromptedLLM.from_name(chosen.model, backend="hf")
llm.set_prompt_from_str(common.PROMPT)


async def steer() -> tuple[int, float]:
    sampler = eager_token_sampler(llm, BoolFSA.from_regex(r"( [A-Za-z]{1,5}[,.]?)+"))
    start = time.perf_counter()
    sequences = await sampler.smc(n_particles=chosen.particles, ess_threshold=0.5, max_tokens=chosen.tokens)
    seconds = time.perf_counter() - start
    await sampler.cleanup()
    return sum(map(len, sequences.contexts)), seconds


def run() -> tuple[int, float]:
    llm.model.clear_cache()
    llm.model.cache_kv(llm.prompt_ids)
    return asyncio.run(steer())


common.report("genlm-control eager", chosen, run)
