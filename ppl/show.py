"""show: the sites of a program as a table."""

from __future__ import annotations

from collections.abc import Callable

from .graph import graph
from .summary import count
from .table import Table


def show(program: Callable) -> Callable:
    """``(*args) -> Table``: a program's sites and factors, in program order. Nothing is run.

    The table shows itself where its value is shown: at the end of a notebook's cell, in an interactive session, or by
    ``print``. Leading axes say what they come from. Where branches of a cond differ, every alternative is listed.

    >>> from borelax import ppl
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         return x, ppl.observe("y", dist.Poisson(jnp.exp(x)), y)
    ...     return jax.lax.scan(step, 0.0, ys)
    >>> table = ppl.show(walk)(jnp.zeros(10, int))
    >>> [row[:4] for row in table.rows]
    [('x', 'sample', 'Normal', 'float32[scan 10]'), ('y', 'observe', 'Poisson', 'int32[scan 10]')]
    """

    def shown(*args, **kwargs) -> Table:
        nodes = graph(program)(*args, **kwargs).nodes
        rows = tuple(
            (
                node.name,
                node.kind,
                node.distribution,
                node.value,
                node.support,
                node.proposal,
                "some branches" if node.optional else "",
                node.source,
            )
            for node in nodes
        )
        title = f"{getattr(program, '__name__', 'program')}: {count(len(rows), 'site')}"
        columns = ("address", "kind", "distribution", "value", "support", "proposal", "only in", "source")
        return Table(columns, rows, title)

    return shown
