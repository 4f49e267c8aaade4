"""A language model of four tokens, small enough to enumerate everything that it can write."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import jax
import numpy as np

from borelax import models

LETTERS = ["a", "b", "c", "<end>"]
END = 3


@cache
def tiny_model() -> models.LanguageModel:
    """Tokens a, b, c and an end-of-text token; random weights, sharp enough to matter."""
    lm = models.random("abc", seed=1, context_length=32)
    return replace(lm, parameters=jax.tree.map(lambda x: 2.0 * x, lm.parameters))


def all_strings(length: int) -> np.ndarray:
    """Every token sequence, ``int32[4**length, length]``."""
    return np.array(list(itertools.product(range(len(LETTERS)), repeat=length)), np.int32)
