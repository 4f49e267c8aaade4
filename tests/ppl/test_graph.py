from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl
from borelax.ppl.graph_layout import HEIGHT, layout

ZEROS = jnp.zeros(3)


def normal(name, *parents):
    return ppl.sample(name, dist.Normal(sum(parents, 0.0), 1.0))


def bernoulli(name):
    return ppl.sample(name, dist.Bernoulli(0.5)) == 1


def edges(program, *args) -> str:
    """``"a>b b~>c"``: the edges, earlier ones with a tilde."""
    found = ppl.graph(program)(*args).edges
    return " ".join(f"{edge.source}{'~>' if edge.earlier else '>'}{edge.target}" for edge in found)


@jax.custom_jvp
def with_jvp(x, y):
    return normal("z", x), y


@jax.custom_vjp
def with_vjp(x, y):
    return normal("z", x), y


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents))
with_vjp.defvjp(lambda x, y: (with_vjp(x, y), None), lambda _, g: g)


# ------------------------------------------------------------------------- graphs known by hand


def chain():
    normal("c", normal("b", normal("a")))


def fork():
    a = normal("a")
    normal("d", normal("b", a), normal("c", a))


def unused():
    a = normal("a")
    normal("b", 0.0 * a)
    normal("c")


def scoped():
    with ppl.scope("s"):
        a = normal("a")
        with ppl.scope("t"):
            b = normal("b", a)
    normal("b", b)


def computed():
    a, b = normal("a"), normal("b")
    d = ppl.deterministic("d", {"a": a, "b": b})
    ppl.factor(d["a"])
    normal("e", d["b"])


def observed():
    a, b = normal("a"), normal("b")
    y = ppl.observe("y", dist.Normal(a, 1.0), b)
    normal("c", y)


def proposed():
    a = normal("a")
    ppl.sample("b", dist.Normal(0.0, 1.0), proposal=dist.Normal(a, 1.0))


def hidden_markov():
    scale = ppl.sample("scale", dist.HalfNormal(1.0))

    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, scale))
        ppl.observe("y", dist.Normal(x, 1.0), y)
        return x, x

    last, xs = lax.scan(step, normal("start"), ZEROS)
    normal("last", last)
    normal("all", xs.sum())


def second_order():
    """x goes round by way of y only, one step later."""
    lax.scan(lambda c, _: ((normal("x", c[1]), normal("y", c[0])), None), (0.0, 0.0), ZEROS)


def steps(length):
    def program():
        last, xs = lax.scan(lambda c, _: (normal("x", c),) * 2, normal("start"), None, length=length)
        normal("end", last)

    return program


def loop_in_a_loop():
    """What the inner loop leaves for the next outer step is earlier there, also after another inner loop."""

    def outer(c, _):
        inner, _ = lax.scan(lambda k, _: (normal("k", k), None), 0.0, ZEROS)
        normal("now", inner)
        normal("before", c)
        return inner, None

    lax.scan(outer, 0.0, ZEROS)


def carried_past_a_loop():
    """The inner loop carries last step's ``k`` along with this step's."""

    def outer(c, _):
        (new, old), _ = lax.scan(lambda k, _: ((normal("k"), k[1] + 1.0), None), (0.0, c), ZEROS)
        normal("both", new, old)
        return new, None

    lax.scan(outer, 0.0, ZEROS)


def delayed():
    """What comes out of the loop is the last ``x`` but one: after the loop, that is no earlier than any other."""
    (_, x), _ = lax.scan(lambda c, _: ((normal("x"), c[0]), None), (0.0, 0.0), ZEROS)
    normal("end", x)


def branches():
    a, flag = normal("a"), bernoulli("flag")
    x = lax.cond(flag, lambda: normal("x", a) + normal("y"), lambda: normal("x"))
    normal("after", x)


def branch_by_vmap():
    def one(flag, a):
        return lax.cond(flag, lambda: normal("x", a), lambda: 0.0)

    jax.vmap(one)(jax.vmap(lambda _: bernoulli("flag"))(ZEROS), jax.vmap(lambda _: normal("a"))(ZEROS))


def whiles():
    a, b = normal("a"), normal("b")
    count, x = lax.while_loop(lambda c: c[1] < a, lambda c: (c[0] + 1, normal("x", b)), (0, 0.0))
    normal("count", count)


def sites_in_a_condition():
    lax.while_loop(lambda c: bernoulli("go"), lambda c: c + normal("x"), 0.0)


def calls():
    """A call is looked into: ``y`` passes beside the site inside."""
    x, y = normal("x"), normal("y")
    for number, call in enumerate((with_jvp, with_vjp, jax.jit(with_jvp), jax.checkpoint(with_jvp))):
        with ppl.scope(f"s{number}"):
            _, same = call(x, y)
            normal("same", same)


def two_ways_of_vmap():
    xs = jax.vmap(lambda _: normal("x"))(ZEROS)

    def step(c, x):
        return c, jax.vmap(lambda y: normal("z", x, y))(xs)

    lax.scan(step, 0.0, xs)


CALLS = " ".join(f"x>s{n}/z" for n in range(4)) + " " + " ".join(f"y>s{n}/same" for n in range(4))
KNOWN = [
    (chain, "a>b b>c"),
    (fork, "a>b a>c b>d c>d"),
    (unused, "a>b"),
    (scoped, "s/a>s/t/b s/t/b>b"),
    (computed, "a>d b>d d>factor d>e"),
    (observed, "a>y b>y y>c"),
    (proposed, ""),
    (hidden_markov, "scale>x start>x x~>x x>y x>last x>all"),
    (second_order, "x~>y y~>x"),
    (steps(0), "start>x start>end"),
    (steps(1), "start>x x>end"),
    (steps(2), "start>x x~>x x>end"),
    (loop_in_a_loop, "k~>k k>now k~>before"),
    (carried_past_a_loop, "k>both k~>both"),
    (delayed, "x>end"),
    (branches, "a>x flag>x flag>y flag>after x>after y>after"),
    (branch_by_vmap, "flag>x a>x"),
    (whiles, "a>x a>count b>x x~>x x>count"),
    (sites_in_a_condition, "go~>go go>x go~>x"),
    (calls, CALLS),
    (two_ways_of_vmap, "x>z"),
    (lambda: 1.0, ""),
]


@pytest.mark.parametrize(("program", "expected"), KNOWN, ids=lambda p: getattr(p, "__name__", ""))
def test_graphs_known_by_hand(program, expected):
    assert sorted(edges(program).split()) == sorted(expected.split())


def test_a_site_that_is_conditioned_on_keeps_its_place():
    before, after = ppl.graph(hidden_markov)(), ppl.graph(ppl.condition(hidden_markov, {"x": ZEROS}))()
    assert [node.name for node in before.nodes] == [node.name for node in after.nodes]
    assert {node.name for node in after.nodes if node.kind == "observe"} == {"x", "y"}
    cut = {
        edge for edge in before.edges if edge.target in ("last", "all") or edge.source == "x" == edge.target
    }
    assert set(before.edges) - set(after.edges) <= cut


def test_an_intervention_cuts_the_edges_into_a_site():
    assert sorted(edges(ppl.do(fork, {"b": 1.0})).split()) == ["a>c", "b>d", "c>d"]


def test_nodes_say_what_they_are():
    def program():
        flag = bernoulli("flag")
        low = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))  # noqa: E731
        high = lambda: ppl.sample("x", dist.Laplace(0.0, 1.0).expand([2]).to_event(1)) + normal("only")  # noqa: E731
        lax.cond(flag, low, high)

    flag, x, only = ppl.graph(program)().nodes
    assert (x.kind, x.distribution, x.value, x.optional) == (
        "sample",
        "Laplace or Normal",
        "float32[2]",
        False,
    )
    assert x.source.count(" or ") == 1 and (flag.support, x.support) == ("boolean", "real")
    assert only.optional and not flag.optional


def test_factors_are_told_apart():
    def program():
        x = normal("x")
        for _ in range(2):
            ppl.factor(x)
        ppl.factor(x, name="x")

    assert [node.name for node in ppl.graph(program)().nodes] == ["x", "factor", "factor #2", "x #2"]
    assert edges(program) == "x>factor x>factor #2 x>x #2"


def test_an_algorithm_is_a_program():
    def weighted():
        x = lax.scan(lambda c, _: (normal("x", c), ppl.factor(c)), 0.0, ZEROS)[0]
        return x

    names = {node.name for node in ppl.graph(inference.smc(weighted, 2))().nodes}
    assert "x" in names and len(names) > 1


# ------------------------------------------------------------------------- plates


def plates(program) -> dict[str, str]:
    return {node.name: "/".join(map(str, node.plates)) for node in ppl.graph(program)().nodes}


def test_plates():
    def program():
        normal("a")

        def step(c, _):
            normal("in scan")
            jax.vmap(lambda _: normal("in both"))(jnp.zeros(4))
            return c, None

        lax.scan(step, 0.0, ZEROS)
        lax.scan(step_of_its_own, 0.0, ZEROS)
        jax.vmap(lambda _: jax.vmap(lambda _: normal("nested"))(jnp.zeros(4)))(jnp.zeros(2))
        lax.while_loop(lambda c: c < 1.0, lambda c: c + normal("while"), 0.0)

    def step_of_its_own(c, _):
        return c, normal("other scan")

    assert plates(program) == {
        "a": "",
        "in scan": "scan 3",
        "in both": "scan 3/vmap 4",
        "other scan": "scan 3",
        "nested": "vmap 2/vmap 4",
        "while": "while",
    }
    nodes = {node.name: node for node in ppl.graph(program)().nodes}
    assert nodes["in scan"].plates == nodes["in both"].plates[:1] != nodes["other scan"].plates


def test_vmaps_of_one_size_share_a_plate():
    def program():
        jax.vmap(lambda _: normal("a"))(ZEROS)
        jax.vmap(lambda _: normal("b"))(ZEROS)

    a, b = ppl.graph(program)().nodes
    assert a.plates == b.plates


def test_values_name_their_axes():
    def program():
        lax.map(jax.vmap(lambda m: ppl.sample("x", dist.Dirichlet(jnp.ones(5)))), jnp.zeros((3, 2)))
        lax.map(lambda w: ppl.factor(w), ZEROS)
        ppl.deterministic("d", (jnp.zeros(2), jnp.array(True)))

    values = [node.value for node in ppl.graph(program)().nodes]
    assert values == ["float32[scan 3, vmap 2, 5]", "[scan 3]", "float32[2], bool[]"]


# ------------------------------------------------------------------------- programs made at random

SLOTS = 3
STEPS = SLOTS + 2  # more than a value needs to get through every slot


@dataclass(frozen=True)
class Part:
    """A statement: it sets the slot ``to`` to something made of the slots ``of``, or runs the block ``body``."""

    kind: str
    name: str
    of: tuple[int, ...]
    to: int
    body: tuple[Part, ...] = ()
    other: tuple[Part, ...] = ()

    def run(self, s: list) -> list:
        """The statement in a program. ``s`` holds scalars."""
        parents = [s[i] for i in self.of]
        set_to = lambda x: [x if i == self.to else old for i, old in enumerate(s)]  # noqa: E731
        body, other = (
            lambda s, block=block: [x + 1.0 for x in run(block, s)] for block in (self.body, self.other)
        )
        match self.kind:
            case "sample":
                return set_to(normal(self.name, *parents))
            case "compute":
                return set_to(sum(parents, 0.0))
            case "record":
                return set_to(ppl.deterministic(self.name, sum(parents, 0.0)))
            case "observe":
                return set_to(ppl.observe(self.name, dist.Normal(sum(parents, 0.0), 1.0), 0.0))
            case "factor":
                ppl.factor(sum(parents, 0.0), name=self.name)
                return s
            case "jit":
                return jax.checkpoint(jax.jit(body))(s)
            case "vmap":
                batch = jax.vmap(lambda i: body([x + i for x in s]))(jnp.arange(2.0))
                return [x.sum() for x in batch]
            case "scan":
                return lax.scan(lambda s, _: (body(s), None), s, None, length=STEPS)[0]
            case "cond":
                return lax.cond(s[self.to] > 0, body, other, s)
            case "while":
                return lax.while_loop(lambda s: s[self.to] > 0, body, s)

    def follow(self, s: list, world: World) -> list:
        """The statement step by step. ``s`` holds sets of the sites, at their steps, that a value comes from."""
        read = world.reached.union(*(s[i] for i in self.of))
        set_to = lambda x: [x if i == self.to else old for i, old in enumerate(s)]  # noqa: E731
        match self.kind:
            case "compute":
                return set_to(frozenset().union(*(s[i] for i in self.of)))
            case "jit" | "vmap":
                return follow(self.body, s, world)
            case "scan":
                for step in range(STEPS):
                    s = follow(self.body, s, world.at(self.name, step))
                return s
            case "cond":
                inside = world.provided(s[self.to])
                alternatives = [follow(block, s, inside) for block in (self.body, self.other)]
                return [s[self.to].union(*outs) for outs in zip(*alternatives)]
            case "while":
                stopped, outs = frozenset(), [[] for _ in s]
                for step in range(STEPS + 1):
                    stopped |= s[self.to]
                    outs = [[*out, x] for out, x in zip(outs, s)]
                    s = follow(self.body, s, world.provided(stopped).at(self.name, step))
                return [stopped.union(*out) for out in outs]
        for site, clock in read:
            shared = [(one, other) for one, other in zip(clock, world.clock) if one[0] == other[0]]
            world.edges.add((site, self.name, any(one[1] < other[1] for one, other in shared)))
        return s if self.kind == "factor" else set_to(frozenset({(self.name, world.clock)}))


@dataclass(frozen=True)
class World:
    """The loops around, each with its step, what decides whether the program gets here, and the edges found."""

    edges: set
    clock: tuple = ()
    reached: frozenset = frozenset()

    def at(self, loop, step):
        return replace(self, clock=(*self.clock, (loop, step)))

    def provided(self, predicate):
        return replace(self, reached=self.reached | predicate)


def run(block, s):
    for part in block:
        s = part.run(s)
    return s


def follow(block, s, world):
    for part in block:
        s = part.follow(s, world)
    return s


def random_block(rng: random.Random, depth: int, names: Iterator[str]) -> tuple[Part, ...]:
    simple = ["sample", "sample", "sample", "compute", "compute", "record", "observe", "factor"]
    nesting = ["jit", "vmap", "scan", "scan", "cond", "while"] if depth else []
    block = []
    for _ in range(rng.randint(2, 4)):
        body, other = (random_block(rng, depth - 1, names) if depth else () for _ in range(2))
        kind = rng.choice(simple + nesting)
        of = tuple(rng.sample(range(SLOTS), rng.randint(0, 2)))
        block.append(Part(kind, next(names), of, rng.randrange(SLOTS), body, other))
    return tuple(block)


@pytest.mark.parametrize("seed", range(100))
def test_programs_made_at_random(seed):
    """The edges are those of a program in which every loop is run step by step."""
    block = random_block(random.Random(seed), 2, map("v{}".format, itertools.count()))
    world = World(set())
    follow(block, [frozenset()] * SLOTS, world)
    found = ppl.graph(lambda s: run(block, s))([jnp.array(1.0)] * SLOTS)
    assert {(edge.source, edge.target, edge.earlier) for edge in found.edges} == world.edges
    assert_tidy(found)


# ------------------------------------------------------------------------- text and drawings


def assert_tidy(found):
    """Nodes do not touch, edges lead down, and a plate holds its own nodes and plates and touches no others."""
    width = 60.0
    placed = layout(found.nodes, found.edges, {node.name: width for node in found.nodes})
    nodes = {
        name: (x - width / 2, x + width / 2, y - HEIGHT / 2, y + HEIGHT / 2)
        for name, (x, y) in placed.centre.items()
    }
    frames = [(frame.left, frame.right, frame.top, frame.bottom) for frame in placed.frames]
    for one, other in itertools.combinations(nodes.values(), 2):
        assert are_apart(one, other)
    for frame in frames:
        assert all(are_apart(frame, box) or contains(frame, box) for box in nodes.values())
    for one, other in itertools.combinations(frames, 2):
        assert are_apart(one, other) or contains(one, other)
    prefixes = {node.plates[:depth] for node in found.nodes for depth in range(1, len(node.plates) + 1)}
    members = [{n.name for n in found.nodes if n.plates[: len(prefix)] == prefix} for prefix in prefixes]
    inside = [{name for name, box in nodes.items() if contains(frame, box)} for frame in frames]
    assert sorted(map(sorted, members)) == sorted(map(sorted, inside))
    order = {node.name: number for number, node in enumerate(found.nodes)}
    for edge in found.edges:
        if not edge.earlier and order[edge.source] < order[edge.target]:
            assert placed.centre[edge.source][1] < placed.centre[edge.target][1]


def test_plates_deep_in_plates():
    def program():
        deep = lambda x: normal("deep", x)  # noqa: E731
        for size in range(2, 8):
            deep = lambda x, inner=deep, size=size: jax.vmap(inner)(jnp.full(size, x)).sum()  # noqa: E731
        normal("after", deep(normal("before")))

    assert_tidy(ppl.graph(program)())


def are_apart(one, other) -> bool:
    return one[1] < other[0] or other[1] < one[0] or one[3] < other[2] or other[3] < one[2]


def contains(one, other) -> bool:
    return one[0] < other[0] and other[1] < one[1] and one[2] < other[2] and other[3] < one[3]


def test_the_text():
    def program():
        x = normal("x")
        normal("alone")
        lax.scan(lambda c, _: (normal("y", c, x), None), 0.0, ZEROS)

    assert repr(ppl.graph(program)()) == (
        "Graph: 3 sites, 2 edges\n  x -> y\n  y -> y (from an earlier step)\n  alone"
    )


def awkward():
    x = ppl.sample('<x> & "y"\\', dist.Normal(0.0, 1.0))
    ppl.factor(x, name="]]>")
    jax.vmap(lambda _: normal("many", x))(ZEROS)


def test_the_drawing_is_xml_and_has_everything():
    """Names that are awkward in XML are names like any other."""
    found = ppl.graph(awkward)()
    assert found._repr_html_() == found.svg and "script" not in found.svg
    root = ElementTree.fromstring(found.svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert {node.name for node in found.nodes} <= set(texts) and "vmap 3" in texts
    paths = [element for element in root.iter() if element.tag.endswith("}path")]
    assert len(paths) == 2 * len(found.edges)  # a line and an arrow for each
    colours = {element.get(name) for element in root.iter() for name in ("fill", "stroke", "color")}
    assert colours <= {None, "none", "currentColor"}


@pytest.mark.parametrize("program", [lambda: None, chain, hidden_markov, second_order, branches, awkward])
def test_every_graph_can_be_drawn(program):
    found = ppl.graph(program)()
    root = ElementTree.fromstring(found.svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        if element.tag.endswith("}rect"):
            x, y, w, h = (float(element.get(name)) for name in ("x", "y", "width", "height"))
            assert 0 <= x and 0 <= y and x + w <= width and y + h <= height


def test_dashes_mean_optional_or_earlier():
    assert ppl.graph(chain)().svg.count("stroke-dasharray") == 0
    assert ppl.graph(steps(2))().svg.count("stroke-dasharray") == 1
    assert ppl.graph(branches)().svg.count("stroke-dasharray") == 1


def test_graphviz():
    text = ppl.graph(awkward)().dot
    name = '"<x> & \\"y\\"\\\\"'
    assert text == (
        "digraph {\n"
        f'  {name} [label="<x> & \\"y\\"\\\\\\nNormal", shape=ellipse];\n'
        '  "]]>" [xlabel="]]>", label="", shape=square, style=filled, fillcolor=black, width=0.15, fixedsize=true];\n'
        "  subgraph cluster_0 {\n"
        '    label="vmap 3"; labelloc=b; labeljust=r; style=rounded;\n'
        '    "many" [label="many\\nNormal", shape=ellipse];\n'
        "  }\n"
        f'  {name} -> "]]>";\n'
        f'  {name} -> "many";\n'
        "}\n"
    )
