"""transformers' generate: ancestral sampling of one batch, without constraint."""

import time

import common

chosen = common.options(__doc__)

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

model = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype)).eval()
tokenizer = AutoTokenizer.from_pretrained(chosen.model)
prompt = tokenizer(common.PROMPT, return_tensors="pt").input_ids


def run() -> tuple[int, float]:
    start = time.perf_counter()
    with torch.no_grad():
        texts = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            num_return_sequences=chosen.particles,
            min_new_tokens=chosen.tokens,
            max_new_tokens=chosen.tokens,
            pad_token_id=0,
        )
    return texts[:, prompt.shape[1] :].numel(), time.perf_counter() - start


run()
common.report("transformers generate", chosen, run)
