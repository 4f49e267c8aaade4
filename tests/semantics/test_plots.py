"""The figures: what is in them, without looking."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot

from borelax.semantics.plots import plot_ranks
from borelax.semantics.uniform_ranks import ecdf_bands

BINS = 16
BANDS = ecdf_bands(200, BINS)
FLAT = np.zeros(BINS)
HIGH = np.append(np.linspace(0.02, 0.3, BINS - 1), 0.0)


def panels(figure) -> dict:
    return {panel.get_title(loc="left"): panel for panel in figure.axes}


def test_a_panel_for_each_component_the_worst_first():
    figure = plot_ranks({"slope": FLAT, "noise": HIGH}, BANDS, 0.95)
    assert list(panels(figure)) == ["noise", "slope"]
    colours = {name: panel.lines[-1].get_color() for name, panel in panels(figure).items()}
    assert colours["noise"] != colours["slope"]  # only what leaves its band stands out
    assert "95%" in figure.get_suptitle()


def test_curves_start_at_zero_and_are_what_was_given():
    (panel,) = panels(plot_ranks({"x": HIGH}, BANDS, 0.95)).values()
    x, y = panel.lines[-1].get_data()
    assert np.array_equal(y, np.append(0.0, HIGH))
    assert x[0] == 0.0 and x[-1] == 1.0 and len(x) == BINS + 1


@pytest.mark.parametrize("count", [1, 4, 5, 24, 30])
def test_any_number_of_components(count):
    figure = plot_ranks({f"x[{i}]": FLAT for i in range(count)}, BANDS, 0.95)
    assert len(figure.axes) == min(count, 24)
    assert (f"the worst 24 of {count}" in figure.get_suptitle()) == (count > 24)
    figure.canvas.draw()


def test_no_figure_is_left_open():
    plot_ranks({"x": FLAT}, BANDS, 0.95)
    assert pyplot.get_fignums() == []
