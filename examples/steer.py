"""Continues a prompt with words of at most five letters, by sequential Monte Carlo."""

import jax
import numpy as np

from borelax import inference, models, ppl

PROMPT = "The Federal Reserve said on Tuesday that"


def story(lm, prompt, constraint):
    return lm.generate("text", prompt, max_tokens=32, constraint=constraint)


lm = models.load("smollm2-135m")
short_words = models.regex(r"( [A-Za-z]{1,5}[,.]?)+", lm)
steer = jax.jit(ppl.seed(inference.smc(story, 32)))
population = steer(jax.random.key(0), lm, lm.pad(lm.encode(PROMPT)), short_words)

texts = lm.decode(population.value)
for i in np.argsort(-population.log_weight):
    print(f"{population.weight[i]:6.1%} {texts[i]}")
print(f"log evidence {population.log_evidence:.2f} ± {population.log_evidence_se:.2f}")
