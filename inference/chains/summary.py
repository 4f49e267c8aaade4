"""summarize: a table of what was drawn, with warnings in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...ppl.summary import count
from ...ppl.table import Table
from ..warned import warned, warned_html
from .concerns import concerns
from .draws import Draws
from .site_statistics import Statistics, spell_number, statistics


@dataclass(frozen=True, repr=False)
class Summary:
    """What was drawn, and what is to be said against it. Its repr is a table with the warnings under it.

    Attributes:
      statistics: address -> its means, quantiles, effective sample sizes and R-hat, as arrays.
      warnings: reasons not to trust the draws, in words; empty if there is none to be seen.
      table: what is shown.
    """

    statistics: Mapping[str, Statistics]
    warnings: tuple[str, ...]
    table: Table

    def __repr__(self) -> str:
        return warned(repr(self.table), self.warnings)

    def _repr_html_(self) -> str:
        return warned_html(self.table._repr_html_(), self.warnings)


def summarize(draws: Draws, most: int = 20) -> Summary:
    """A row for each number of each site: mean, standard deviation, quantiles, effective sample sizes and R-hat.

    Warns of chains that started where the density is zero, never moved or do not agree (R-hat above 1.01), of draws
    that are worth too few independent ones (below 100 for each chain), of numbers that go together, of rounding in
    single precision, of divergent trajectories, of energies that change slowly, and of numbers that are always the
    same. See :mod:`~borelax.inference.diagnostics`.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Bernoulli(0.5).expand([2]))
    >>> run = inference.mcmc(inference.gibbs(model, ["x"]), num_samples=400, num_warmup=0)
    >>> summary = run(jax.random.key(0)).summary()
    >>> summary.statistics["x"].mean.shape, summary.warnings
    ((2,), ())
    """
    found = statistics(draws)
    num_chains, num_draws = np.shape(draws.log_density)
    rows = [row for name, of in found.items() for row in _rows(name, of)]
    title = f"{count(num_chains, 'chain')} of {count(num_draws, 'draw')}"
    if len(rows) > most:
        rank = np.argsort([-np.nan_to_num(rhat, nan=0.0) for rhat, _ in rows], kind="stable")
        title += f"; the {most} of {len(rows)} numbers with the largest R-hat"
        rows = [rows[i] for i in sorted(rank[:most])]
    columns = ("address", "mean", "sd", "5%", "median", "95%", "ESS bulk", "ESS tail", "R-hat", "present")
    return Summary(found, concerns(draws, found), Table(columns, tuple(row for _, row in rows), title))


def _rows(name: str, of: Statistics) -> list[tuple[float, tuple]]:
    """The R-hat and the cells of each number of a site."""
    rows = []
    for i in np.ndindex(of.mean.shape):
        moments = [f"{x[i]:.3g}" for x in (of.mean, of.sd, of.low, of.median, of.high)]
        sizes = ["–" if np.isnan(x[i]) else f"{x[i]:.0f}" for x in (of.ess_bulk, of.ess_tail)]
        rhat = "–" if np.isnan(of.rhat[i]) else f"{of.rhat[i]:.2f}"
        present = "" if of.present[i] == 1 else f"{of.present[i]:.0%}"
        rows.append((float(of.rhat[i]), (spell_number(name, i), *moments, *sizes, rhat, present)))
    return rows
