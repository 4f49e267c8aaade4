"""The genealogy of a run as an SVG: one column per token, one row per particle slot, the ESS above.

Lineages are drawn in one of six classes, ``.level0`` to ``.level5``, by how much of the final weight descends
from them, or in ``.dead`` if that is nothing to speak of; the page knows their colours. Within a step, rows
are ordered by their parents' rows, so that lineages never cross.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .report import negligible_share

if TYPE_CHECKING:
    from .steer import Steered

_BOUNDS = np.array([0.02, 0.06, 0.15, 0.35, 0.7])  # of the share, between the levels
_WIDTHS = [1.6, 2.0, 2.5, 3.1, 3.8, 4.6]
_CHARACTER = 6.65  # the width of a monospaced character at 11px
_LONGEST = 14  # label, in characters
_LEFT, _RIGHT, _TOP, _CHART, _BOTTOM = 46, 14, 10, 64, 24


@dataclass(frozen=True)
class Layout:
    """Where things are: step t's cells reach from ``left[t]`` to ``right[t]``, at heights ``y[t, slot]``."""

    left: np.ndarray
    right: np.ndarray
    y: np.ndarray
    width: float
    height: float


def draw(steered: Steered, *, with_words: bool) -> str:
    """The SVG.

    Args:
      with_words: each token as a word in a cell as wide as it needs; otherwise, as narrow as fits the page.
    """
    labels = _labels(steered) if with_words else None
    layout = _layout(steered, labels)
    parts = [
        _chart(steered, layout),
        _grid(steered, layout),
        *_lineages(steered, layout),
        _ends(steered, layout),
    ]
    if labels is not None:
        parts.append(_words(steered, layout, labels))
    xs = np.stack([layout.left, layout.right]).round(1).tolist()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{"words" if with_words else "overview"}" '
        f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" width="{layout.width:.0f}" '
        f'height="{layout.height:.0f}" data-x="{xs}" data-y="{layout.y.round(1).tolist()}" role="img" '
        f'aria-label="Genealogy of the particles">{"".join(parts)}<g class="chosen"></g></svg>'
    )


def _layout(steered: Steered, labels) -> Layout:
    parents = steered.ancestry.parents
    steps, n = parents.shape
    if labels is None:
        row = float(np.clip(620 / n, 5, 26))
        gap = float(np.clip(1080 / max(steps - 1, 1), 8, 90))
        left = _LEFT + 8 + gap * np.arange(steps)
        right = left
    else:
        row = 20.0
        widths = _CHARACTER * np.array([max(map(len, labels[t]), default=1) for t in range(steps)]) + 4
        gap = 18.0 if np.any(parents != np.arange(n)) else 6.0
        left = _LEFT + 8 + np.cumsum(widths + gap) - widths - gap
        right = left + widths
    order = np.zeros((steps, n))
    order[0] = np.arange(n)
    for t in range(1, steps):
        order[t, np.argsort(order[t - 1][parents[t]], kind="stable")] = np.arange(n)
    y = _TOP + _CHART + 26 + row * (order + 0.5)
    return Layout(left, right, y, right[-1] + _RIGHT + 12, _TOP + _CHART + 26 + row * n + _BOTTOM)


# ------------------------------------------------------------------ lineages


def _lineages(steered: Steered, layout: Layout) -> list[str]:
    """One path for each class of strands; each strand is drawn once, from its parent's cell on."""
    ancestry, drawn = steered.ancestry, steered.drawn
    steps, n = ancestry.parents.shape
    level = np.where(ancestry.share >= negligible_share(n), np.searchsorted(_BOUNDS, ancestry.share), -1)
    paths: dict[tuple[int, bool], list[str]] = {}
    begun = np.zeros((steps, n), bool)
    for t in range(steps - 1, -1, -1):
        for slot in range(n):
            if begun[t, slot]:
                continue
            # from the youngest member of a strand back to where it meets one that is drawn already
            at, j, chain = t, slot, []
            while at >= 0 and not begun[at, j]:
                begun[at, j] = True
                chain.append((at, j))
                at, j = at - 1, ancestry.parents[at, j]
            if at >= 0:
                chain.append((at, j))
            for kind, strand in _split(chain[::-1], level, drawn, whole=at < 0):
                paths.setdefault(kind, []).append(_strand(strand, layout))
    pieces = []
    for (kind, is_drawn), strands in sorted(paths.items()):
        name = "dead" if kind < 0 else f"level{kind}"
        width = (1 if kind < 0 else _WIDTHS[kind]) * (1 if is_drawn else 0.6)
        ended = "" if is_drawn else " ended"
        pieces.append(f'<path class="{name}{ended}" stroke-width="{width:.2g}" d="{"".join(strands)}"/>')
    return pieces


def _split(chain, level, drawn, *, whole: bool):
    """A chain of cells, cut where the class changes: pairs (class, cells), that begin at the cell before."""
    strand, kind = [chain[0]], None
    for cell in chain if whole else chain[1:]:
        new = (int(level[cell]), bool(drawn[cell]))
        if kind not in (None, new):
            yield kind, strand
            strand = [strand[-1]]
        kind = new
        if cell != strand[-1]:
            strand.append(cell)
    if kind is not None:
        yield kind, strand


def _strand(cells, layout: Layout) -> str:
    """The path through cells of successive steps; it begins at the end of the first unless that is a root."""
    t, j = cells[0]
    y = layout.y[t, j]
    path = f"M{layout.left[t] - 6 if t == 0 else layout.right[t]:.0f} {y:.1f}"
    if t == 0:
        path += f"H{layout.right[t]:.0f}"
    for t, j in cells[1:]:
        x0, x1, new = layout.right[t - 1], layout.left[t], layout.y[t, j]
        if new != y:
            middle = (x0 + x1) / 2
            path += f"C{middle:.1f} {y:.1f} {middle:.1f} {new:.1f} {x1:.1f} {new:.1f}"
        y = new
        path += f"H{layout.right[t]:.1f}"
    return path


def _ends(steered: Steered, layout: Layout) -> str:
    """A dot at the end of each lineage that has weight."""
    share = steered.ancestry.share[-1]
    x, level = layout.right[-1], np.searchsorted(_BOUNDS, share)
    return "".join(
        f'<circle class="level{k}" cx="{x:.1f}" cy="{y:.1f}" r="{1.5 + 4 * s**0.5:.1f}"/>'
        for k, s, y in zip(level, share, layout.y[-1])
        if s >= negligible_share(len(share))
    )


# ------------------------------------------------------------------ words


def _labels(steered: Steered) -> list[list[str]]:
    """What to write in each cell, ``[t][slot]``."""
    shown = {i: _label(spelling) for i, spelling in steered.spellings.items()}
    return [
        [shown[i] if is_drawn else "" for i, is_drawn in zip(row, drawn_row)]
        for row, drawn_row in zip(steered.ancestry.tokens.tolist(), steered.drawn.tolist())
    ]


def _label(spelling: bytes) -> str:
    """A token's text; a control token, which has none, as a square."""
    if not spelling:
        return "∎"
    text = spelling.decode(errors="replace").replace("\n", "↵")
    text = "".join(c if c.isprintable() else "·" for c in text)
    text = (text.strip(" ") and text) or "␣" * len(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _words(steered: Steered, layout: Layout, labels) -> str:
    share = steered.ancestry.share
    with_dead = share.size <= 6000
    pieces = []
    for t, row in enumerate(labels):
        for slot, label in enumerate(row):
            alive = share[t, slot] >= negligible_share(share.shape[1])
            if label and (alive or with_dead):
                name = "kept" if alive else "dead"
                x, y = layout.left[t] + 1, layout.y[t, slot] - 4
                pieces.append(f'<text class="{name}" x="{x:.0f}" y="{y:.0f}">{escape(label)}</text>')
    return "".join(pieces)


# ------------------------------------------------------------------ axes and the chart above


def _grid(steered: Steered, layout: Layout) -> str:
    """Column numbers, and a line where the population was resampled."""
    pieces = []
    steps = len(layout.left)
    top, bottom = _TOP + _CHART + 18, layout.height - _BOTTOM
    for t in np.flatnonzero(steered.ancestry.resampled):
        x = (layout.right[t] + layout.left[t + 1]) / 2
        pieces.append(f'<path class="resampled" d="M{x:.1f} {_TOP}V{bottom:.0f}"/>')
    spacing = (layout.right[-1] - layout.left[0]) / max(steps - 1, 1)
    every = next(k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1 << 30) if k * spacing >= 26)
    for t in range(steps):
        if t == 0 or (t + 1) % every == 0:
            x = (layout.left[t] + layout.right[t]) / 2
            pieces.append(f'<text class="axis" x="{x:.1f}" y="{layout.height - 6:.0f}">{t + 1}</text>')
    pieces.append(f'<text class="axis side" x="{_LEFT - 8}" y="{top + 12}">slots</text>')
    return "".join(pieces)


def _chart(steered: Steered, layout: Layout) -> str:
    """The effective sample size before each step's resampling, and the threshold."""
    n = len(steered.particles)
    x = (layout.left + layout.right) / 2
    y = _TOP + _CHART * (1 - steered.ancestry.ess / n)
    line = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y))
    base = _TOP + _CHART
    pieces = [
        f'<path class="area" d="M{x[0]:.1f} {base}L{line}L{x[-1]:.1f} {base}Z"/>',
        f'<path class="ess" d="M{line}"/>',
        f'<path class="rule" d="M{_LEFT} {base}H{x[-1]:.1f}"/>',
        f'<text class="axis side" x="{_LEFT - 8}" y="{_TOP + 9}">{n}</text>',
        f'<text class="axis side" x="{_LEFT - 8}" y="{_TOP + 9 + _CHART / 2 - 4:.0f}">ESS</text>',
        f'<text class="axis side" x="{_LEFT - 8}" y="{base}">0</text>',
    ]
    threshold = steered.options.ess_threshold
    if 0 < threshold <= 1:
        pieces.append(f'<path class="threshold" d="M{_LEFT} {base - _CHART * threshold:.1f}H{x[-1]:.1f}"/>')
    return "".join(pieces)
