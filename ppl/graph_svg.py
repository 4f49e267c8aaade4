"""A graph as an SVG, in the colour of the text around it and on no background: right on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from .graph_layout import HEIGHT, Frame, Layout, layout

if TYPE_CHECKING:
    from .graph import Edge, Node

_SQUARE = 12.0  # the side of a factor
_CHARACTER, _SMALL = 7.4, 6.0  # widths, at 13px and at 10.5px
_LOOP, _BULGE = 24.0, 24.0  # where the curve of an edge aims at: beside its node, and beside two nodes
_DASHED = ' stroke-dasharray="4 3"'


def svg(nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """The drawing. Hovering over a node tells what it is."""
    loops = {edge.source for edge in edges if edge.source == edge.target}
    width_of = {node.name: _width(node) + (1.5 * _LOOP if node.name in loops else 0) for node in nodes}
    placed = layout(nodes, edges, width_of)
    by_name = {node.name: node for node in nodes}
    pieces = [
        *map(_frame, placed.frames),
        *(_edge(edge, by_name, edges, placed) for edge in edges),
        *(_node(node, placed.centre[node.name]) for node in nodes),
    ]
    right = max((_right(edge, by_name, placed) for edge in edges if _goes_beside(edge, placed)), default=0.0)
    width, height = max(placed.width, right + _BULGE), placed.height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" style="max-width:100%" role="img" aria-label="Dependence graph" fill="none" '
        f'stroke="currentColor" font-family="system-ui,sans-serif" font-size="13" text-anchor="middle">'
        f"{''.join(pieces)}</svg>"
    )


def _width(node: Node) -> float:
    return max(44.0, 24 + _CHARACTER * len(node.name), 24 + _SMALL * len(node.distribution))


# ------------------------------------------------------------------------- nodes and plates


def _node(node: Node, centre: tuple[float, float]) -> str:
    (x, y), width = centre, _width(node)
    dashes = _DASHED if node.optional else ""
    about = [f"{node.name}: {node.kind}", node.distribution, node.value, node.source]
    title = f"<title>{escape(', '.join(filter(None, about)))}</title>"
    if node.kind == "factor":
        top = y - HEIGHT / 2
        square = f'x="{x - _SQUARE / 2:.1f}" y="{top:.1f}" width="{_SQUARE}" height="{_SQUARE}"'
        shape = f'<rect {square} fill="currentColor" fill-opacity="0.6"{dashes}/>'
        return f"<g>{title}{shape}{_text(node.name, x, y + HEIGHT / 2 - 8)}</g>"
    fill = ' fill="currentColor" fill-opacity="0.16"' if node.kind == "observe" else ""
    shapes = _rounded(x, y, width, HEIGHT, f"{fill}{dashes}")
    if node.kind == "deterministic":
        shapes += _rounded(x, y, width - 6, HEIGHT - 6, dashes)
    if not node.distribution:
        return f"<g>{title}{shapes}{_text(node.name, x, y + 4.5)}</g>"
    small = _text(node.distribution, x, y + 13, ' font-size="10.5" fill-opacity="0.75"')
    return f"<g>{title}{shapes}{_text(node.name, x, y - 1)}{small}</g>"


def _rounded(x: float, y: float, width: float, height: float, more: str) -> str:
    corner = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {corner} rx="{height / 2:.1f}"{more}/>'


def _text(words: str, x: float, y: float, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" stroke="none" fill="currentColor"{more}>{escape(words)}</text>'


def _frame(frame: Frame) -> str:
    size = f'width="{frame.right - frame.left:.1f}" height="{frame.bottom - frame.top:.1f}"'
    box = f'<rect x="{frame.left:.1f}" y="{frame.top:.1f}" {size} rx="8" stroke-opacity="0.5"/>'
    small = ' font-size="10.5" fill-opacity="0.75" style="text-anchor:end"'
    return box + _text(frame.label, frame.right - 8, frame.bottom - 6, small)


# ------------------------------------------------------------------------- edges


def _edge(edge: Edge, by_name: dict[str, Node], edges: Sequence[Edge], placed: Layout) -> str:
    path, arrow = (_beside if _goes_beside(edge, placed) else _down)(edge, by_name, edges, placed)
    dashes = _DASHED if edge.earlier else ""
    head = f'<path d="{arrow}" fill="currentColor" stroke="none"/>'
    return f'<path d="{path}" stroke-opacity="0.8"{dashes}/>{head}'


def _goes_beside(edge: Edge, placed: Layout) -> bool:
    """Whether an edge does not lead downwards, and so must go around."""
    return placed.centre[edge.target][1] <= placed.centre[edge.source][1]


def _down(edge: Edge, by_name: dict[str, Node], edges: Sequence[Edge], placed: Layout) -> tuple[str, str]:
    """From the bottom of one node to the top of another, straight where there are other nodes beside."""
    has_twin = edge.earlier and any(
        (e.source, e.target) == (edge.source, edge.target) for e in edges if not e.earlier
    )
    (x0, y0), (x1, y1) = placed.centre[edge.source], placed.centre[edge.target]
    x0, x1 = (x0 + 10, x1 + 10) if has_twin else (x0, x1)
    y0, y1 = y0 + HEIGHT / 2, y1 - HEIGHT / 2
    path = f"M{x0:.1f} {y0:.1f}"
    for x, top, bottom in placed.lanes.get(edge, ()):
        path += f"{_curve(x0, y0, x, top)}V{bottom:.1f}"
        x0, y0 = x, bottom
    return f"{path}{_curve(x0, y0, x1, y1 - 5)}", f"M{x1:.1f} {y1:.1f}l-3.5 -8h7z"


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    middle = (y0 + y1) / 2
    return f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"


def _beside(edge: Edge, by_name: dict[str, Node], edges: Sequence[Edge], placed: Layout) -> tuple[str, str]:
    """From the right side of one node to that of another; on the left, to the same or to one of its layer."""
    (x0, y0), (x1, y1) = placed.centre[edge.source], placed.centre[edge.target]
    left0 = x0 - _width(by_name[edge.source]) / 2
    right0, right1 = x0 + _width(by_name[edge.source]) / 2, x1 + _width(by_name[edge.target]) / 2
    if edge.source == edge.target:
        path = f"M{left0 + 1:.1f} {y0 + 8:.1f}c{-_LOOP} 0 {-_LOOP} -16 -6 -16"
        return path, f"M{left0 + 1:.1f} {y0 - 8:.1f}l-8 -3.5v7z"
    if y0 == y1 and x0 > x1:
        return f"M{left0:.1f} {y0:.1f}H{right1 + 5:.1f}", f"M{right1:.1f} {y1:.1f}l8 -3.5v7z"
    bulge = _right(edge, by_name, placed) + _BULGE
    path = f"M{right0:.1f} {y0:.1f}C{bulge:.1f} {y0:.1f} {bulge:.1f} {y1:.1f} {right1 + 5:.1f} {y1:.1f}"
    return path, f"M{right1:.1f} {y1:.1f}l8 -3.5v7z"


def _right(edge: Edge, by_name: dict[str, Node], placed: Layout) -> float:
    """Where the ends of an edge have their right side."""
    return max(placed.centre[name][0] + _width(by_name[name]) / 2 for name in (edge.source, edge.target))
