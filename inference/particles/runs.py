"""Runs: what independent runs of an algorithm have found together, and whether to trust it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from ...ppl.population import Population
from ...ppl.summary import count
from ...ppl.table import Table
from ..predicting.psis import psis
from ..warned import warned, warned_html

FEWEST_MEMBERS = 10  # that members of unequal weight are worth
MOST_ROWS = 20


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Runs:
    """Independent runs of a program that returns a population. Its repr is a table with warnings under it.

    Attributes:
      population: the members of all runs, pooled; see :func:`pool`. Its evidence is the mean of theirs, and its
        standard error comes from how they differ.
      log_evidence: float ``[run]``, that of each; minus infinity if no member had weight in the end.
      ess: float ``[run]``, the effective sample size of each, by its last weights.
      died: int32 ``[run]``, the factor (of ``population.factors``) after which no member had weight left, or -1.
    """

    population: Population
    log_evidence: jax.Array
    ess: jax.Array
    died: jax.Array

    @property
    def khat(self) -> float:
        """How heavy the tail of the weights of all members is, see :func:`psis`; NaN if none has weight.

        If the algorithm resamples, that is of the weights since the last time.

        Raises:
          ValueError: there are several sets of runs (of ``vmap``): pick one.
        """
        self._refuse_several()
        return float(psis(self.population.log_weight).khat) if self._has_weight() else np.nan

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust averages or the evidence, in words; none if there is none to be seen.

        Raises:
          ValueError: there are several sets of runs (of ``vmap``): pick one.
        """
        self._refuse_several()
        found = tuple(lost(self))
        return (*found, *_uneven(self), *_heavy(self)) if self._has_weight() else found

    def __repr__(self) -> str:
        return warned(repr(self._table()), self.warnings if self._is_one_known() else ())

    def _repr_html_(self) -> str:
        return warned_html(self._table()._repr_html_(), self.warnings if self._is_one_known() else ())

    def _refuse_several(self) -> None:
        if np.ndim(self.log_evidence) != 1:
            raise ValueError(
                f"these are several sets of runs, of which the log evidences have the shape "
                f"{np.shape(self.log_evidence)}: pick one, as in jax.tree.map(lambda x: x[0], runs)"
            )

    def _has_weight(self) -> bool:
        log_evidence = np.asarray(self.log_evidence)
        return bool(np.all(log_evidence < np.inf) and np.any(log_evidence > -np.inf))

    def _is_one_known(self) -> bool:
        return not isinstance(self.log_evidence, jax.core.Tracer) and np.ndim(self.log_evidence) == 1

    def _table(self) -> Table:
        *sets, num_runs = np.shape(self.log_evidence)
        title = f"{count(num_runs, 'run')} of {count(self.population.size // num_runs, 'member')}"
        if not self._is_one_known():
            return Table((), (), f"{title}, {tuple(sets)} times" if sets else title)
        rows = [
            (run, f"{self.log_evidence[run]:.4g}", f"{self.ess[run]:.1f}", self._factor(self.died[run]))
            for run in range(min(num_runs, MOST_ROWS))
        ]
        if num_runs > MOST_ROWS:
            rows.append(("…", "", "", ""))
        if self._has_weight():
            pooled = self.population
            title += (
                f": log evidence {float(pooled.log_evidence):.4g} ± {float(pooled.log_evidence_se):.2g}, "
                f"ESS {float(pooled.ess):.1f}, k-hat {self.khat:.2f}"
            )
        return Table(("run", "log evidence", "ESS", "died after"), tuple(rows), title)

    def _factor(self, died) -> str:
        return self.population.factors[int(died)] if died >= 0 else ""


def lost(runs: Runs) -> Iterator[str]:
    """Words on the runs in which no member has weight, or weights are not numbers."""
    log_evidence = np.asarray(runs.log_evidence)
    bad, dead = int(np.sum(~(log_evidence < np.inf))), log_evidence == -np.inf
    if bad:
        yield (
            f"Log weights are NaN or infinite in {bad} of {count(log_evidence.size, 'run')}: averages and evidence "
            "mean nothing. Look for a density or a factor that is not finite."
        )
    if dead.any():
        factors = sorted({runs._factor(died) for died in np.asarray(runs.died)[dead]} - {""})
        where = f" after factor {' or '.join(factors)}" if factors else ""
        yield (
            f"No member has weight in {np.sum(dead)} of {count(dead.size, 'run')}{where}; they count as evidence zero. "
            "Use more particles, a proposal that looks ahead to that factor, or a factor that is not zero everywhere "
            "the program goes."
        )


def _uneven(runs: Runs) -> Iterator[str]:
    """Words on evidences that differ so much that their mean is that of a few."""
    log_evidence = np.asarray(runs.log_evidence, np.float64)
    share = np.exp(log_evidence - log_evidence.max())
    share /= share.sum()
    worth, number = 1 / np.sum(share**2), len(share)
    if number > 1 and worth < max(number / 2, 1.25) and not runs.population.exact:
        yield (
            f"One run has {share.max():.0%} of the evidence of {number}: the mean, and the error that is given for it, "
            "hang on the luckiest runs, and what is missing is likely to be on the side of more. Use more particles in "
            "each run, or a proposal nearer to the target."
        )


def _heavy(runs: Runs) -> Iterator[str]:
    """Words on members of which few have most of the weight."""
    population = runs.population
    if population.exact:
        return
    if population.ess < min(FEWEST_MEMBERS, population.size / 2):
        yield (
            f"{count(population.size, 'member')} are worth only {float(population.ess):.1f} of equal weight: averages "
            "are those of a few. Use more particles, or a proposal nearer to the target."
        )
    else:
        yield from psis(population.log_weight).warnings
