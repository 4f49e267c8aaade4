"""Who descends from whom in a run of sequential Monte Carlo, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


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


def genealogy(tokens, ancestors, increments, ess_threshold: float, weight) -> Genealogy:
    """Puts a run's records together.

    Args:
      tokens: int ``[T, n]``, drawn by each slot at each step.
      ancestors: int ``[T, n]``: slot j continues slot ``ancestors[t, j]`` after step t.
      increments: float ``[T, n]``, the log weights that each step's resampler was given.
      ess_threshold: in units of n.
      weight: float ``[n]``, the final normalised weights; NaN if no particle has weight.
    """
    tokens, ancestors = np.asarray(tokens), np.asarray(ancestors)
    increments = np.asarray(increments, np.float64)
    steps, n = tokens.shape
    own = np.arange(n)
    parents = np.vstack([own[None], ancestors[:-1]])

    top = increments.max(axis=1, keepdims=True)
    scaled = np.exp(increments - np.where(np.isfinite(top), top, 0.0))
    total, squares = scaled.sum(axis=1), (scaled**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ess = np.where(total > 0, total**2 / squares, 0.0)
        log_mean = np.log(total / n) + np.where(np.isfinite(top), top, 0.0)[:, 0]
    resampled = (ess < ess_threshold * n) & (total > 0) | np.any(ancestors != own, axis=1)
    resampled[-1] = False
    scale = np.append(0.0, np.cumsum(np.where(resampled, log_mean, 0.0))[:-1])

    share = np.zeros((steps, n))
    share[-1] = np.nan_to_num(np.asarray(weight, np.float64))
    for t in range(steps - 1, 0, -1):
        share[t - 1] = np.bincount(parents[t], share[t], n)
    return Genealogy(tokens, parents, resampled, increments + scale[:, None], ess, log_mean + scale, share)
