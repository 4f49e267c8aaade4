"""Where generated texts end: which tokens were drawn, and which only fill the room that is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    from ..models import Constraint, LanguageModel

ENDINGS = ("max_tokens", "end_token", "match", "stop")


def find_endings(
    lm: LanguageModel,
    tokens: Int[np.ndarray, "T n"],
    parents: Int[np.ndarray, "T n"],
    constraint: Constraint | None = None,
    stop: Sequence[str] = (),
) -> tuple[Bool[np.ndarray, "T n"], list[str]]:
    """Follows the lineages of a run, ending texts as ``LanguageModel.generate`` does.

    Args:
      tokens, parents: as in :class:`Genealogy`.

    Returns:
      For each slot and step, whether its token was drawn (an end token is drawn, filler is not); and what
      ended each final slot's text: "end_token", "match" (nothing could extend it), "stop", or "max_tokens".
    """
    steps, n = tokens.shape
    drawn = np.zeros((steps, n), bool)
    ending, text = np.zeros(n, int), [b""] * n
    state = np.zeros(n, int)
    marks = [string.encode() for string in stop]
    longest = max(map(len, marks), default=0)
    if constraint is not None:
        transitions, column = map(np.asarray, (constraint.automaton.transitions, constraint.automaton.column))
        final = np.asarray(constraint.automaton.final)
    for t in range(steps):
        ending, state, text = ending[parents[t]], state[parents[t]], [text[j] for j in parents[t]]
        drawn[t] = going = ending == 0
        new = np.zeros(n, int)
        for j in np.flatnonzero(going) if marks else ():
            recent = text[j][len(text[j]) - longest :] if len(text[j]) > longest else text[j]
            text[j] = recent + (lm.tokenizer.token_bytes[tokens[t, j]] or b"")
            if any(mark in text[j] for mark in marks):
                new[j] = ENDINGS.index("stop")
        if constraint is not None:
            state = np.where(going & (state >= 0), transitions[state, column[tokens[t]]], state)
            new = np.where((state >= 0) & final[state], ENDINGS.index("match"), new)
        new = np.where(np.isin(tokens[t], lm.tokenizer.eos), ENDINGS.index("end_token"), new)
        ending = np.where(going, new, ending)
    return drawn, [ENDINGS[i] for i in ending]
