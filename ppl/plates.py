"""Plates, nested: which nodes of a graph lie in which boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .flow import Plate

if TYPE_CHECKING:
    from .graph import Node


@dataclass(frozen=True)
class Box:
    """A plate with the nodes, and the plates, that lie in it."""

    plate: Plate
    members: list[Node | Box]

    def nodes(self) -> Iterator[Node]:
        for member in self.members:
            if isinstance(member, Box):
                yield from member.nodes()
            else:
                yield member


def boxes(nodes: Sequence[Node], depth: int = 0) -> list[Node | Box]:
    """Nodes that share their plates from ``depth`` on outwards, grouped by those further in."""
    grouped: dict[Plate | str, list[Node]] = {}
    for node in nodes:
        grouped.setdefault(node.plates[depth] if len(node.plates) > depth else node.name, []).append(node)
    return [
        Box(key, boxes(group, depth + 1)) if isinstance(key, Plate) else group[0]
        for key, group in grouped.items()
    ]
