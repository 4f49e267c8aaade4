"""Figures of draws: what is in them, without looking."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot

from borelax.inference import Draws, State

# ArviZ's, with matplotlib 3.11 and pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 50)), RNG.normal(size=(4, 50, 2))
DRAWS = Draws(None, {"x": X, "block": {"y": Y}}, {}, np.zeros((4, 50)), (), np.ones(4, bool), State(None))


def titles(figure) -> set:
    return {panel.get_title().replace("\n", " ") for panel in figure.axes}


def test_a_trace_has_the_draws_of_each_chain():
    figure = DRAWS.plot("trace", ["x"])
    density, trace = figure.axes
    assert titles(figure) == {"x"} and len(trace.lines) == 4
    np.testing.assert_array_equal([line.get_ydata() for line in trace.lines], X)


def test_ranks_have_a_panel_for_each_number():
    figure = DRAWS.plot("rank")
    assert titles(figure) == {"x", "block.y 0", "block.y 1"}


def test_a_forest_has_a_row_for_each_number_and_chain():
    (panel,) = DRAWS.plot("forest", ["block/y"]).axes
    assert {label.get_text() for label in panel.get_yticklabels()} == {"block.y[0]", "[1]"}
    middles = [line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(np.sort(middles), np.sort(np.median(Y, axis=1), axis=None), rtol=1e-6)


def test_the_effective_size_is_that_of_more_and_more_draws():
    (panel,) = DRAWS.plot("ess", ["x"]).axes
    sizes = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) > 2]
    assert sizes and all(np.all(np.diff(x) > 0) and x[-1] == 200 for x in sizes)


@pytest.mark.parametrize("kind", ["trace", "rank", "forest", "ess"])
def test_it_can_be_drawn_and_is_not_left_open(kind):
    figure = DRAWS.plot(kind)
    figure.canvas.draw()
    assert pyplot.get_fignums() == []


def test_the_names_of_later_versions_are_known(monkeypatch):
    calls = []

    def plot_ess_evolution(data, *, var_names, backend):
        calls.append((data, var_names, backend))
        pyplot.figure()

    module = SimpleNamespace(
        __version__="1.3.0", from_dict=lambda groups: groups, plot_ess_evolution=plot_ess_evolution
    )
    monkeypatch.setitem(sys.modules, "arviz", module)
    DRAWS.plot("ess", ["block/y"])
    ((data, names, backend),) = calls
    assert data["posterior"].keys() == {"x", "block.y"} and names == ["block.y"] and backend == "matplotlib"


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="'trace', 'rank', 'forest', 'ess', not 'pie'"):
        DRAWS.plot("pie")
