"""A graph in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from .plates import Box, boxes

if TYPE_CHECKING:
    from .graph import Edge, Node

_STYLES = {
    "sample": "shape=ellipse",
    "observe": 'shape=ellipse, style=filled, fillcolor="#d0d0d0"',
    "factor": "shape=square, style=filled, fillcolor=black, width=0.15, fixedsize=true",
    "deterministic": "shape=ellipse, peripheries=2",
}


def dot(nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """The source of a digraph, with a cluster for each plate."""
    body = [*_members(boxes(nodes), count())]
    for edge in edges:
        style = " [style=dashed, constraint=false]" if edge.earlier else ""
        body.append(f"{_quote(edge.source)} -> {_quote(edge.target)}{style};")
    return "\n".join(["digraph {", *(f"  {line}" for line in body), "}"]) + "\n"


def _members(members: list[Node | Box], numbers: Iterator[int]) -> Iterator[str]:
    for member in members:
        if isinstance(member, Box):
            label = _quote(str(member.plate))
            yield f"subgraph cluster_{next(numbers)} {{"
            yield f"  label={label}; labelloc=b; labeljust=r; style=rounded;"
            yield from (f"  {line}" for line in _members(member.members, numbers))
            yield "}"
        else:
            yield f"{_quote(member.name)} [{_attributes(member)}];"


def _attributes(node: Node) -> str:
    words = f"{node.name}\n{node.distribution}" if node.distribution else node.name
    style = _STYLES[node.kind]
    if node.optional:
        style = (
            style.replace("style=filled", 'style="filled,dashed"')
            if "style" in style
            else f"{style}, style=dashed"
        )
    what = "xlabel" if node.kind == "factor" else "label"
    empty = ', label=""' if node.kind == "factor" else ""
    return f"{what}={_quote(words)}{empty}, {style}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
