"""Draws: what chains have drawn, and whether to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from ...ppl import Masked
from ...ppl.choices import flatten, spell
from ...ppl.summary import count, type_of, values_of
from ...ppl.table import Table
from ..kernels.kernel import State

if TYPE_CHECKING:
    from .summary import Summary


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Draws:
    """The draws of some chains. All arrays have leading axes ``[chain, draw]`` unless said otherwise.

    Attributes:
      value: what the program returned.
      choices: nested dicts of the values of its sites; :class:`ppl.Masked` for those that only some branches have.
      deterministic: the values of its ``deterministic`` sites.
      log_density: that of the whole program, factors included.
      info: what the step that led to each draw says of itself; see the kernel.
      started: bool ``[chain]``, whether the chain started at a density that is finite and not zero.
      state: the last state of each chain, ``[chain]``, with its memory (the step size). ``mcmc(...)(key, *args,
        init=draws.state.trace)`` goes on from there.
    """

    value: Any
    choices: dict
    deterministic: dict
    log_density: jax.Array
    info: Any
    started: jax.Array
    state: State

    def summary(self, most: int = 20) -> Summary:
        """A table of means, quantiles and diagnostics, with warnings in words; see :func:`summarize`.

        Args:
          most: how many rows there are at most; if there are more numbers, those with the largest R-hat are shown.
        """
        from .summary import summarize

        return summarize(self, most)

    def to_arviz(self, **groups):
        """The draws for ArviZ, to plot and compare, with other groups; see :func:`to_arviz`.

        It takes the extra ``borelax[arviz]``.
        """
        from .to_arviz import to_arviz

        return to_arviz(self, **groups)

    def plot(self, kind: str = "trace", sites: Sequence[str] | None = None, **options):
        """A matplotlib figure by ArviZ. It takes the extra ``borelax[arviz]``.

        Args:
          kind: "trace", the draws of each chain in their order, which lie over each other once chains have forgotten
            their start; "rank", the ranks of each chain's draws among all, which are uniform then; "forest", the
            intervals that hold most draws; "ess", the effective sample size of the first so many draws, which grows in
            proportion to them if chains mix.
          sites: the addresses to show, ``"block/x"``; all if None.
          options: for ArviZ's function of that name.

        Raises:
          ValueError: there is no such kind.
          MissingExtraError: ArviZ is not installed.
        """
        from .plots import plot

        return plot(self, kind, sites, **options)

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = []
        for kind, tree in (("sample", self.choices), ("deterministic", self.deterministic)):
            for address, x in flatten(tree).items():
                value, present = (x.value, x.present) if isinstance(x, Masked) else (x, None)
                for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
                    name = spell(address) + jax.tree_util.keystr(path)
                    rows.append((name, kind, type_of(leaf), values_of(leaf, present)))
        *_, num_chains, num_draws = getattr(self.log_density, "shape", (0, 0))
        title = f"Draws: {count(num_chains, 'chain')} of {count(num_draws, 'draw')}; summary() checks them"
        return Table(("address", "kind", "type", "values"), tuple(rows), title)
