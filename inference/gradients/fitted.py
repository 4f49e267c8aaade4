"""Fit: the parameters that were found, and whether to trust them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ...ppl.summary import count, type_of, values_of
from ...ppl.table import Table
from ..chains.diagnostics import ess_mean
from ..warned import warned, warned_html

FEWEST = 50  # steps by which to judge
SURE = 3.5  # standard errors, which are estimates themselves
NOTEWORTHY = 0.05  # of what was gained since the second quarter: in the first, a bad start outweighs all else


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Fit:
    """Parameters that maximise an objective. Its repr is a table with warnings under it.

    Attributes:
      params: where the last step led.
      average: the mean of where the steps of the second half led. Steps of one size never settle; their mean does.
      values: float ``[num_steps]``, the estimate of the objective before each step; NaN after the fit has stopped.
      steps: int32, how many steps were taken: ``num_steps``, or fewer if something was not finite.
      fault: what was not finite in the step that was not taken, as bools: of the ``"objective"``, and for each of
        params, of its ``"gradient"`` and of where it would have led (``"params"``).
      state: the optimizer's.
    """

    params: Any
    average: Any
    values: jax.Array
    steps: jax.Array
    fault: dict
    state: Any

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the parameters, in words; none if there is none to be seen.

        Raises:
          ValueError: there are several fits (of ``vmap``): pick one.
        """
        self._refuse_several()
        values = np.asarray(self.values, np.float64)[: int(self.steps)]
        return (*stopped(self), *_restless(values))

    def plot(self):
        """A matplotlib figure of the objective, step by step, and of its moving average. It takes matplotlib.

        Raises:
          ValueError: there are several fits (of ``vmap``): pick one.
        """
        from .fit_plot import plot_values

        self._refuse_several()
        return plot_values(np.asarray(self.values, np.float64))

    def __repr__(self) -> str:
        return warned(repr(self._table()), self.warnings if self._is_one_known() else ())

    def _repr_html_(self) -> str:
        return warned_html(self._table()._repr_html_(), self.warnings if self._is_one_known() else ())

    def _refuse_several(self) -> None:
        if np.ndim(self.values) != 1:
            raise ValueError(
                f"these are several fits, of which the values have the shape {np.shape(self.values)}: pick one, as in "
                "jax.tree.map(lambda x: x[0], fits)"
            )

    def _is_one_known(self) -> bool:
        return not isinstance(self.values, jax.core.Tracer) and np.ndim(self.values) == 1

    def _table(self) -> Table:
        found, means = jax.tree_util.tree_leaves_with_path(self.params), jax.tree.leaves(self.average)
        rows = [
            (_name(path), type_of(x), values_of(x), values_of(mean)) for (path, x), mean in zip(found, means)
        ]
        *_, num_steps = self.values.shape
        title = f"Fits, {self.values.shape[:-1]} of them, each of {count(num_steps, 'step')}"
        if self._is_one_known():
            steps = int(self.steps)
            title = f"Fit of {count(steps, 'step')}"
            if steps >= FEWEST:
                mean, error = _level(np.asarray(self.values, np.float64)[:steps][-(steps // 4) :])
                title += f": objective {mean:.4g} ± {error:.2g} in the last quarter of them"
        return Table(("parameter", "type", "at the end", "average"), tuple(rows), title)


def stopped(fit: Fit) -> Iterator[str]:
    """Words on what was not finite, if a fit stopped for that."""
    named = {"objective": "the objective", "gradient": "its gradient along {}", "params": "what comes of {}"}
    faults = [
        named[kind].format(_name(path))
        for kind in named
        for path, is_bad in jax.tree_util.tree_leaves_with_path(fit.fault[kind])
        if is_bad
    ]
    if faults:
        steps, more = int(fit.steps), f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        yield (
            f"The fit stopped after {steps} of {fit.values.shape[-1]} steps. In the next one, not finite: "
            f"{', '.join(faults[:3])}{more}; the objective was {float(fit.values[steps]):.4g}. params are those before "
            "that. Take smaller steps, start elsewhere, or keep parameters from where a density ends: the logarithm of "
            "a scale, in place of the scale."
        )


def _restless(values: np.ndarray) -> Iterator[str]:
    """Words on estimates that still rise, or have fallen."""
    if len(values) < FEWEST:
        return
    # Seldom a draw is far out, above all at the start: what counts is whether most of them go on to rise.
    levels = [_level(_without_tails(quarter)) for quarter in np.array_split(values, 4)]
    _, (start, _), before, (last, error) = levels
    if _is_above((last, error), before, start):
        yield (
            f"The objective is still rising: over the last quarter of the steps it is {last - before[0]:.2g} above "
            "that of the quarter before. Take more steps, or larger ones."
        )
    best = max(levels[:-1])
    if _is_above(best, (last, error), start):
        yield (
            f"The objective fell from {best[0]:.4g}, over a quarter of the steps, to {last:.4g} over the last quarter: "
            "the steps are too large. Take smaller ones, or let their size decay."
        )


def _is_above(high: tuple[float, float], low: tuple[float, float], start: float) -> bool:
    """Whether one mean is above another by more than chance, and by something that counts beside what was gained."""
    difference = high[0] - low[0]
    return difference > max(SURE * np.hypot(high[1], low[1]), NOTEWORTHY * (high[0] - start), 0.0)


def _without_tails(values: np.ndarray) -> np.ndarray:
    """Those below the lowest and above the highest twentieth become its limits."""
    return np.clip(values, *np.quantile(values, [0.05, 0.95]))


def _level(values: np.ndarray) -> tuple[float, float]:
    """The mean, and its standard error about a line through the values."""
    place = np.arange(len(values)) - (len(values) - 1) / 2
    rest = values - values.mean()
    rest = rest - place * (place @ rest) / (place @ place)
    size = np.clip(ess_mean(rest[None]), 1.0, len(values))  # of so few, that they are worth more is chance
    return float(values.mean()), float(rest.std() / np.sqrt(size))


def _name(path) -> str:
    return f"params{jax.tree_util.keystr(path)}"
