"""Figures of what checks found. Matplotlib is loaded when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_WITHIN, _OUTSIDE, _BAND, _GRID = "#1f4e79", "#c2410c", "#dbe4ee", "#9ca3af"
_MOST = 24  # panels of a figure


def plot_ranks(
    difference: Mapping[str, np.ndarray], bands: tuple[np.ndarray, np.ndarray], probability: float
):
    """A figure with a panel for each component: how far its ranks are from uniform, and the band that they should keep.

    Args:
      difference: of each component, the distribution function of its ranks less that of uniform ones, ``[K]``.
      bands: lower and upper bounds on them, ``[K]``.
      probability: with which uniform ranks keep them.

    What leaves its band is orange. The components that come nearest to their bands, or go farthest beyond, are first;
    of more than 24, the others are left out.
    """
    from matplotlib import pyplot

    lower, upper = (_from_zero(edge) for edge in bands)
    curves = {name: _from_zero(curve) for name, curve in difference.items()}
    reach = np.where(upper > lower, upper - lower, 1.0) / 2
    excess = {
        name: float(np.max(np.abs(curve - (upper + lower) / 2) / reach)) for name, curve in curves.items()
    }
    shown = sorted(curves, key=excess.get, reverse=True)[:_MOST]
    columns = 3 if len(shown) in (5, 6) else min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    size = (2.9 * columns + 0.6, 2.1 * rows + 0.9)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    pyplot.close(figure)  # a notebook would show it twice
    panels = grid.ravel()
    place = np.linspace(0.0, 1.0, len(lower))
    for panel, name in zip(panels, shown):
        outside = bool(np.any((curves[name] < lower) | (curves[name] > upper)))
        _draw(panel, place, lower, upper, curves[name], name, _OUTSIDE if outside else _WITHIN)
    for panel in panels[len(shown) :]:
        panel.remove()
    figure.supxlabel("rank of the true value, as a fraction", fontsize=9)
    figure.supylabel("ECDF − uniform", fontsize=9)
    note = "" if len(shown) == len(curves) else f", the worst {len(shown)} of {len(curves)} components"
    figure.suptitle(f"Ranks and simultaneous {probability:.0%} bands{note}", fontsize=10)
    return figure


def _draw(panel, place, lower, upper, curve, name: str, colour: str) -> None:
    panel.fill_between(place, lower, upper, color=_BAND, linewidth=0, step="post")
    panel.axhline(0.0, color=_GRID, linewidth=0.8)
    panel.step(place, curve, where="post", color=colour, linewidth=1.3)
    panel.set_title(name, fontsize=9, color=colour, loc="left")
    panel.set_xlim(0.0, 1.0)
    panel.set_xticks([0.0, 0.5, 1.0], ["0", "½", "1"])
    panel.tick_params(labelsize=8, length=2, color=_GRID)
    panel.margins(y=0.1)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(_GRID)


def _from_zero(curve: np.ndarray) -> np.ndarray:
    return np.append(0.0, curve)
