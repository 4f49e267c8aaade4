"""The figure of a genealogy. Matplotlib is loaded when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .genealogy import uncrossed

if TYPE_CHECKING:
    from .genealogy import Genealogy

_LINE, _DEAD, _ALIVE, _MARK = "#1f4e79", "#d5dbe3", "#1f4e79", "#c2410c"


def plot(genealogy: Genealogy):
    """A figure with two panels over time: the effective sample size, and the lineages; see :meth:`Genealogy.plot`."""
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection

    n, steps = genealogy.size, len(genealogy.ess)
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7.0, 4.6), height_ratios=(1, 2), layout="constrained", sharex=True
    )
    pyplot.close(figure)  # a notebook would show it twice

    time = np.arange(steps)
    above.plot(time, genealogy.ess, color=_LINE, linewidth=1.3)
    at = np.flatnonzero(genealogy.resampled)
    above.plot(
        at, genealogy.ess[at], linestyle="none", marker="o", color=_MARK, markersize=4, label="resampled here"
    )
    above.set_ylim(0, 1.05 * n)
    above.set_ylabel("ESS", fontsize=9)
    above.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)

    rows, lineages = uncrossed(genealogy.ancestors), genealogy.lineages()
    dead = np.ones((steps + 1, n), bool)
    np.put_along_axis(dead, lineages, False, axis=1)
    starts, ends = np.take_along_axis(rows[:-1], genealogy.ancestors, axis=1), rows[1:]
    left, right = np.meshgrid(time, np.arange(n), indexing="ij")[0], time[:, None] + np.ones(n, int)
    segments = np.stack([np.stack([left, starts], -1), np.stack([right, ends], -1)], 2)
    for kind, colour, width in ((dead[1:], _DEAD, 0.8), (~dead[1:], _ALIVE, 1.0)):
        below.add_collection(LineCollection(segments[kind], colors=colour, linewidths=width))
    below.set_xlim(0, max(steps, 1))
    below.set_ylim(n - 0.5, -0.5)
    below.set_ylabel("slots", fontsize=9)
    below.set_xlabel("suspension", fontsize=9)
    return figure
