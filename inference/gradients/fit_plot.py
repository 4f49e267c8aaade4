"""A figure of a fit. Matplotlib is loaded when it is drawn."""

from __future__ import annotations

import numpy as np


def plot_values(values: np.ndarray):
    """The estimates of an objective, step by step, and their mean over a twentieth of the steps before each.

    Args:
      values: float ``[num_steps]``; NaN after the fit has stopped, which a line marks.
    """
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    pyplot.close(figure)  # a notebook would show it twice
    taken = values[: len(values) - np.cumprod(np.isnan(values[::-1])).sum()]
    panel.plot(np.arange(len(taken)), taken, color="#9ca3af", linewidth=0.6, label="estimate")
    width = max(len(values) // 20, 1)
    means = np.convolve(taken, np.full(width, 1 / width), "valid") if len(taken) >= width else taken
    panel.plot(
        np.arange(len(means)) + len(taken) - len(means), means, color="#1f4e79", label=f"mean of {width}"
    )
    if len(taken) < len(values):
        panel.axvline(len(taken), color="#c2410c", linewidth=1.0, label="stopped")
    panel.set_xlabel("step")
    panel.set_ylabel("objective")
    panel.legend(frameon=False, fontsize=9)
    return figure
