"""Figures of draws, drawn by ArviZ with matplotlib; both are loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from .draws import Draws
from .to_arviz import is_before_1, load_arviz, to_arviz

KINDS = ("trace", "rank", "forest", "ess")


def plot(draws: Draws, kind: str = "trace", sites: Sequence[str] | None = None, **options):
    """A figure of draws; see :meth:`Draws.plot`."""
    if kind not in KINDS:
        raise ValueError(f"there are figures of the kinds {', '.join(map(repr, KINDS))}, not {kind!r}")
    arviz = load_arviz()
    from matplotlib import pyplot

    name = f"plot_{kind}"
    if kind == "ess" and is_before_1(arviz):
        options = {"kind": "evolution"} | options
    elif kind == "ess":
        name = "plot_ess_evolution"
    names = None if sites is None else [address.replace("/", ".") for address in sites]
    getattr(arviz, name)(to_arviz(draws), var_names=names, backend="matplotlib", **options)
    figure = pyplot.gcf()  # ArviZ returns axes before version 1, and a collection of plots since
    figure.set_layout_engine("constrained")
    pyplot.close(figure)  # a notebook would show it twice
    return figure
