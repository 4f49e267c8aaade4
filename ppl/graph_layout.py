"""Where the nodes of a graph go: in layers from top to bottom, each plate a block that nothing else enters.

The layer of a node is the length of the longest path to it. Within a plate, nodes, inner plates and lanes for long
edges are packed from left to right, and ordered by where their neighbours are (the barycentre heuristic).

Source: Sugiyama, Tagawa and Toda, *Methods for visual understanding of hierarchical system structures*, 1981.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from .plates import Box, boxes

if TYPE_CHECKING:
    from .graph import Edge, Node

HEIGHT = 38.0  # of a node
PADDING, LABEL = 10.0, 15.0  # of a plate: on every side, and below for its label
_SPACE, _LANE, _BETWEEN = 20.0, 4.0, 34.0  # between neighbours, of a lane, between layers
_ROUNDS = 8


@dataclass(frozen=True)
class Frame:
    """A plate's rectangle."""

    label: str
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
      centre: of each node, by name.
      lanes: for an edge that passes other nodes, where it goes straight down: x, and y from and to; downwards.
      frames: the plates, outer ones first.
      width, height: of the whole.
    """

    centre: dict[str, tuple[float, float]]
    lanes: dict[Edge, list[tuple[float, float, float]]]
    frames: list[Frame]
    width: float
    height: float


def layout(nodes: Sequence[Node], edges: Sequence[Edge], width_of: dict[str, float]) -> Layout:
    """Lays out a graph.

    Args:
      width_of: the width of each node, by name.
    """
    layer = _layers(nodes, edges)
    members = boxes(nodes)
    block = _pack(members, edges, layer, width_of).shifted(PADDING)
    y, tops, bottoms = _heights(members, layer)
    centre = {node.name: (block.centres[node.name], y[layer[node.name]]) for node in nodes}
    lanes = defaultdict(list)
    for lane in sorted((key for key in block.centres if isinstance(key, _Lane)), key=lambda lane: lane.first):
        top, bottom = tops[lane.first], bottoms[lane.last]
        if not lanes[lane.edge] or top > lanes[lane.edge][-1][2]:
            lanes[lane.edge].append((block.centres[lane], top, bottom))
    frames = [
        Frame(str(box.plate), left, right, *_vertical(box, y, layer)) for box, left, right in block.frames
    ]
    return Layout(centre, lanes, frames, block.width + 2 * PADDING, max(bottoms, default=0.0) + PADDING)


def _layers(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, int]:
    """Parents above children. A node without parents is right above its highest child."""
    parents, children = defaultdict(list), defaultdict(list)
    order = {node.name: number for number, node in enumerate(nodes)}
    for edge in edges:
        if order[edge.source] < order[edge.target] and not edge.earlier:
            parents[edge.target].append(edge.source)
            children[edge.source].append(edge.target)
    layer: dict[str, int] = {}
    for node in nodes:
        layer[node.name] = 1 + max((layer[parent] for parent in parents[node.name]), default=-1)
    for node in nodes:
        if children[node.name] and not parents[node.name]:
            layer[node.name] = min(layer[child] for child in children[node.name]) - 1
    return layer


# ------------------------------------------------------------------------- from left to right


@dataclass(frozen=True)
class _Lane:
    """A part of an edge that goes straight down through some layers."""

    edge: Edge
    first: int
    last: int


@dataclass(frozen=True)
class _Block:
    """A node, a lane or a plate as something of fixed width in some layers.

    Attributes:
      centres: the nodes and lanes in it, from its left edge.
      leaving, entering: where the edges that cross its border have their ends inside.
      frames: the left and the right edge of each plate.
    """

    first: int
    last: int
    width: float
    centres: dict[str | _Lane, float]
    leaving: dict[Edge, float]
    entering: dict[Edge, float]
    frames: tuple[tuple[Box, float, float], ...] = ()

    def shifted(self, by: float) -> _Block:
        move = lambda places: {key: by + x for key, x in places.items()}  # noqa: E731
        return replace(
            self,
            centres=move(self.centres),
            leaving=move(self.leaving),
            entering=move(self.entering),
            frames=tuple((box, by + left, by + right) for box, left, right in self.frames),
        )


def _pack(members, edges: Sequence[Edge], layer: dict[str, int], width_of: dict[str, float]) -> _Block:
    """Packs the members of a plate (or of no plate) next to each other, with lanes for the edges that pass some."""
    blocks = [_block(member, edges, layer, width_of) for member in members]
    first = min((block.first for block in blocks), default=0)
    last = max((block.last for block in blocks), default=0)
    start = {edge: i for i, block in enumerate(blocks) for edge in block.leaving}
    end = {edge: i for i, block in enumerate(blocks) for edge in block.entering}
    joints = []  # pairs of ends, (block, distance from its left edge), best one above the other
    leaving, entering = {}, {}
    for edge in (edge for edge in edges if edge in start or edge in end):
        i, j = start.get(edge), end.get(edge)
        tail = None if i is None else (i, blocks[i].leaving[edge])
        head = None if j is None else (j, blocks[j].entering[edge])
        top = max(first if i is None else blocks[i].last + 1, layer[edge.source] + 1)
        bottom = min(last if j is None else blocks[j].first - 1, layer[edge.target] - 1)
        if top <= bottom:
            lane = len(blocks), _LANE / 2
            blocks.append(_Block(top, bottom, _LANE, {_Lane(edge, top, bottom): _LANE / 2}, {}, {}))
            joints += [(end, lane) for end in (tail, head) if end is not None]
            tail, head = (tail and lane), (head and lane)
        elif tail and head:
            joints.append((tail, head))
        if head is None:
            leaving[edge] = tail
        if tail is None:
            entering[edge] = head

    lefts = _arrange(blocks, joints)
    placed = [block.shifted(left) for left, block in zip(lefts, blocks)]
    return _Block(
        first,
        last,
        max((left + block.width for left, block in zip(lefts, blocks)), default=0.0),
        {key: x for block in placed for key, x in block.centres.items()},
        {edge: lefts[i] + x for edge, (i, x) in leaving.items()},
        {edge: lefts[i] + x for edge, (i, x) in entering.items()},
        tuple(frame for block in placed for frame in block.frames),
    )


def _block(
    member: Node | Box, edges: Sequence[Edge], layer: dict[str, int], width_of: dict[str, float]
) -> _Block:
    if isinstance(member, Box):
        inner = _pack(member.members, edges, layer, width_of)
        margin = max(PADDING, (6.5 * len(str(member.plate)) + PADDING - inner.width) / 2)
        width = inner.width + 2 * margin
        inner = inner.shifted(margin)
        return replace(inner, width=width, frames=((member, 0.0, width), *inner.frames))
    row, middle = layer[member.name], width_of[member.name] / 2
    down = [edge for edge in edges if layer[edge.source] < layer[edge.target]]
    return _Block(
        row,
        row,
        2 * middle,
        {member.name: middle},
        {edge: middle for edge in down if edge.source == member.name},
        {edge: middle for edge in down if edge.target == member.name},
    )


def _arrange(blocks: list[_Block], joints) -> list[float]:
    """The left edge of each block: no two overlap, and joined ones are close to being one above the other."""
    order = list(range(len(blocks)))
    best = float("inf"), [0.0] * len(blocks)
    for _ in range(_ROUNDS):
        lefts = _relax(order, blocks, joints, _side_by_side(order, blocks))
        cost = sum(abs(lefts[i] + a - lefts[j] - b) for (i, a), (j, b) in joints)
        best = min(best, (cost, lefts), key=lambda found: found[0])
        order = sorted(order, key=lambda i: _wanted(i, joints, lefts) + blocks[i].width / 2)
    lefts = best[1]
    return [left - min(lefts) for left in lefts]


def _side_by_side(order: list[int], blocks: list[_Block]) -> list[float]:
    """Each block as far to the left as those before it in its layers let it."""
    lefts, taken = [0.0] * len(blocks), defaultdict(float)
    for i in order:
        rows = range(blocks[i].first, blocks[i].last + 1)
        lefts[i] = max(taken[row] for row in rows)
        taken.update({row: lefts[i] + blocks[i].width + _SPACE for row in rows})
    return lefts


def _relax(order: list[int], blocks: list[_Block], joints, lefts: list[float]) -> list[float]:
    """Moves each block in turn to where its joints want it, as far as its neighbours let it."""
    rank = {i: number for number, i in enumerate(order)}
    for _ in range(3 * _ROUNDS):
        for i in order:
            beside = [j for j in order if j != i and _share_layers(blocks[i], blocks[j])]
            low = max(
                (lefts[j] + blocks[j].width for j in beside if rank[j] < rank[i]), default=-float("inf")
            )
            high = min((lefts[j] for j in beside if rank[j] > rank[i]), default=float("inf"))
            wanted = _wanted(i, joints, lefts)
            lefts[i] = min(max(wanted, low + _SPACE), high - _SPACE - blocks[i].width)
    return lefts


def _wanted(i: int, joints, lefts: list[float]) -> float:
    """The left edge at which block ``i`` is, on average, below and above what it is joined with."""
    both_ways = [*joints, *((other, one) for one, other in joints)]
    wishes = [lefts[k] + b - a for (j, a), (k, b) in both_ways if j == i]
    return sum(wishes) / len(wishes) if wishes else lefts[i]


def _share_layers(one: _Block, other: _Block) -> bool:
    return one.first <= other.last and other.first <= one.last


# ------------------------------------------------------------------------- from top to bottom


def _heights(members, layer: dict[str, int]) -> tuple[list[float], list[float], list[float]]:
    """The centre line of each layer; its top and its bottom, with the edges of plates that begin or end there."""
    count = max(layer.values(), default=-1) + 1
    above, below = [HEIGHT / 2] * count, [HEIGHT / 2] * count
    for box in _all_boxes(members):
        first, last = _span(box, layer)
        above[first] = max(above[first], HEIGHT / 2 + _overhang(box, layer, first, PADDING))
        below[last] = max(below[last], HEIGHT / 2 + _overhang(box, layer, last, PADDING + LABEL))
    gaps = [below[k] + _BETWEEN + above[k + 1] for k in range(count - 1)]
    y = list(accumulate(gaps, initial=PADDING + above[0])) if count else []
    return y, [x - over for x, over in zip(y, above)], [x + under for x, under in zip(y, below)]


def _overhang(box: Box, layer: dict[str, int], at: int, margin: float) -> float:
    """How far a plate's edge is from its outermost nodes, with the plates inside that have an edge there too."""
    inner = [member for member in box.members if isinstance(member, Box) and at in _span(member, layer)]
    return margin + max((_overhang(member, layer, at, margin) for member in inner), default=0.0)


def _vertical(box: Box, y: list[float], layer: dict[str, int]) -> tuple[float, float]:
    """The top and the bottom of a plate."""
    tops, bottoms = [], []
    for member in box.members:
        if isinstance(member, Box):
            top, bottom = _vertical(member, y, layer)
        else:
            top, bottom = y[layer[member.name]] - HEIGHT / 2, y[layer[member.name]] + HEIGHT / 2
        tops.append(top)
        bottoms.append(bottom)
    return min(tops) - PADDING, max(bottoms) + PADDING + LABEL


def _span(box: Box, layer: dict[str, int]) -> tuple[int, int]:
    rows = [layer[node.name] for node in box.nodes()]
    return min(rows), max(rows)


def _all_boxes(members) -> Iterator[Box]:
    for member in members:
        if isinstance(member, Box):
            yield member
            yield from _all_boxes(member.members)
