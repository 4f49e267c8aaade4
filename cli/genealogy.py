"""Who descends from whom in a run of sequential Monte Carlo, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from .. import inference


@dataclass(frozen=True)
class Genealogy:
    """The slots of a population over time: at each step each draws a token and continues a slot of the last.

    Attributes:
      tokens: what each slot drew at each step.
      parents: the slot of step t - 1 that each slot of step t continues; row 0 is the identity.
      resampled: whether the population was resampled at the end of each step.
      log_weight: the log weight of each slot's text so far, before the step's resampling.
      ess: the effective sample size before the step's resampling.
      log_evidence: the estimate from the first t + 1 steps.
      share: the part of the final weight that descends from each slot; 0 for lineages that died out.
    """

    tokens: Int[np.ndarray, "T n"]
    parents: Int[np.ndarray, "T n"]
    resampled: Bool[np.ndarray, " T"]
    log_weight: Float[np.ndarray, "T n"]
    ess: Float[np.ndarray, " T"]
    log_evidence: Float[np.ndarray, " T"]
    share: Float[np.ndarray, "T n"]

    def lineage(self, slot: int) -> Int[np.ndarray, " T"]:
        """The slots that the final slot ``slot`` was in, first step first."""
        slots = [slot]
        for parents in self.parents[:0:-1]:
            slots.append(parents[slots[-1]])
        return np.array(slots[::-1])


def genealogy(tokens, run: inference.Genealogy | None, weight) -> Genealogy:
    """Puts what is known of a run together.

    Args:
      tokens: int ``[T, n]``, drawn by each slot at each step.
      run: its genealogy, with a suspension after each step; None if nothing was weighed.
      weight: float ``[n]``, the final normalised weights; NaN if no particle has weight.
    """
    tokens = np.asarray(tokens)
    steps, n = tokens.shape
    run = run or _unweighed(steps, n)
    parents = np.vstack([np.arange(n), run.ancestors[:-1]])
    share = np.zeros((steps, n))
    share[-1] = np.nan_to_num(np.asarray(weight, np.float64))
    for t in range(steps - 1, 0, -1):
        share[t - 1] = np.bincount(parents[t], share[t], n)
    log_weight = np.asarray(run.log_weight, np.float64)
    log_evidence = np.logaddexp.reduce(log_weight, axis=1) - np.log(n)
    return Genealogy(tokens, parents, run.resampled, log_weight, run.ess, log_evidence, share)


def _unweighed(steps: int, n: int) -> inference.Genealogy:
    return inference.Genealogy(
        ancestors=np.tile(np.arange(n), (steps, 1)),
        ess=np.full(steps, float(n)),
        resampled=np.zeros(steps, bool),
        log_weight=np.zeros((steps, n)),
        time=np.arange(steps),
    )
