"""graph: which sites depend on which, read off the program without running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .choices import spell
from .describe import effect_of, family, spell_support, spell_value, support_of
from .flow import Place, Plate, Visit, flow
from .graph_dot import dot
from .graph_svg import svg
from .staging import stage
from .summary import count


@dataclass(frozen=True)
class Node:
    """A site.

    Attributes:
      name: its address, ``"block/x"``. Factors that share one are told apart: ``"factor"``, ``"factor #2"``, ...
      kind: "sample", "observe", "factor" or "deterministic".
      distribution, support, proposal, source: in words; several of them, joined by "or", if branches differ.
      value: dtype and shape of its value, each leading axis with what it comes from: ``float32[scan 10, 3]``.
      optional: whether some branch lacks it.
      plates: what repeats it, outermost first.
    """

    name: str
    kind: str
    distribution: str
    value: str
    support: str
    proposal: str
    optional: bool
    source: str
    plates: tuple[Plate, ...]


@dataclass(frozen=True)
class Edge:
    """A dependence: ``source``'s value flows into ``target``. If ``earlier``, from an earlier step of a loop."""

    source: str
    target: str
    earlier: bool = False

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}{' (from an earlier step)' if self.earlier else ''}"


@dataclass(frozen=True, repr=False)
class Graph:
    """The sites of a program and their dependences. Its repr is text, and a drawing in a notebook.

    Attributes:
      nodes: the sites, in program order.
      edges: in the order of their ends.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language."""
        return dot(self.nodes, self.edges)

    @property
    def svg(self) -> str:
        """The drawing, in the colour of the text around it."""
        return svg(self.nodes, self.edges)

    def __repr__(self) -> str:
        joined = {name for edge in self.edges for name in (edge.source, edge.target)}
        alone = (node.name for node in self.nodes if node.name not in joined)
        title = f"Graph: {count(len(self.nodes), 'site')}, {count(len(self.edges), 'edge')}"
        return "\n".join([title, *(f"  {line}" for line in (*self.edges, *alone))])

    def _repr_html_(self) -> str:
        return self.svg


def graph(program: Callable) -> Callable:
    """``(*args) -> Graph``: the dependences among a program's sites. Nothing is run: the program is traced only.

    There is an edge from ``a`` to ``b`` if a path of equations leads from the value of ``a`` to a parameter of ``b``'s
    distribution, to the value that ``b`` observes, records or weighs by, or to a predicate on which it depends whether
    ``b`` is reached, and no other site is on the path. An equation counts even if its result does not vary (``0 * a``).
    A proposal is not part of the model, so what it depends on is left out. What flows to ``b`` through the carry of a
    loop from a step before is an ``earlier`` edge; it may lead from a site to itself.

    A plate is a scan, a ``while_loop`` or an axis of vmap. A jaxpr does not say which vmap an axis comes from, nor
    whether it was around a scan or inside: sites within the same loops share a plate if they have a vmapped axis of
    one size, and loops are drawn around vmaps, as in the shapes of choices.

    In the drawing, observed sites are shaded, factors are squares, deterministic values have a double outline; sites
    that only some branches have are dashed, and so are earlier edges.

    >>> from borelax import ppl
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> def walk(ys):
    ...     scale = ppl.sample("scale", dist.HalfNormal(1.0))
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, scale))
    ...         return x, ppl.observe("y", dist.Normal(x, 1.0), y)
    ...     return jax.lax.scan(step, 0.0, ys)
    >>> ppl.graph(walk)(jnp.zeros(10))
    Graph: 3 sites, 3 edges
      scale -> x
      x -> x (from an earlier step)
      x -> y
    """

    def graphed(*args, **kwargs) -> Graph:
        found = flow(stage(program, *args, **kwargs))
        names = _names(found.visits)
        nodes = {name: [] for name in names.values()}
        for place, visit in found.visits.items():
            nodes[names[place]].append(visit)
        order = {name: number for number, name in enumerate(nodes)}
        edges = {Edge(names[a], names[b], earlier) for a, b, earlier in found.edges}
        return Graph(
            tuple(_node(name, visits) for name, visits in nodes.items()),
            tuple(sorted(edges, key=lambda e: (order[e.source], order[e.target], e.earlier))),
        )

    return graphed


def _names(visits: dict[Place, Visit]) -> dict[Place, str]:
    """A name for each place: one for all places of an address, but one for each factor."""
    names = {place: spell(visit.info.address) for place, visit in visits.items()}
    taken = {names[place] for place, visit in visits.items() if visit.info.kind != "factor"}
    for place, visit in visits.items():
        if visit.info.kind == "factor":
            name, number = names[place], 1
            while names[place] in taken:
                number += 1
                names[place] = f"{name} #{number}"
            taken.add(names[place])
    return names


def _node(name: str, visits: Sequence[Visit]) -> Node:
    infos = [visit.info for visit in visits]
    effects = [effect_of(info) for info in infos]
    laws = [(info, effect) for info, effect in zip(infos, effects) if effect.distribution is not None]
    return Node(
        name,
        infos[0].kind,
        _either(family(effect.distribution) for _, effect in laws),
        spell_value(visits[0]),
        _either(spell_support(support_of(info)) for info, _ in laws),
        _either(family(effect.proposal) for effect in effects if effect.proposal is not None),
        any(info.optional for info in infos),
        _either(info.site.source for info in infos),
        visits[0].plates,
    )


def _either(words) -> str:
    return " or ".join(dict.fromkeys(words))
