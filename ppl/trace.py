"""trace and simulate: a program's run, with its choices and their density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .choices import Masked, nest
from .density import score
from .effects import deterministic_p
from .interpreter import Handler, interpret
from .random_key import refuse_keys
from .seed import seed
from .staging import stage
from .summary import type_of, values_of
from .table import Table
from .weigh import weigh_site


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Trace:
    """A run of a program. Its repr is a table.

    Attributes:
      value: what the program returned.
      choices: nested dicts of the values of its ``sample`` sites, with a leading axis for each enclosing
        scan and vmap; :class:`Masked` for sites that only some branches have.
      log_density: the log density of the whole program at these choices, factors included.
      log_weight: factors, observations and density over proposal: what :func:`weigh` returns.
      deterministic: the recorded ``deterministic`` values, shaped likewise.
    """

    value: Any
    choices: dict
    log_density: jax.Array
    log_weight: jax.Array
    deterministic: dict

    def __repr__(self) -> str:
        return repr(_table(self))

    def _repr_html_(self) -> str:
        return _table(self)._repr_html_()


def trace(program: Callable) -> Callable:
    """A program that runs the original and returns its :class:`Trace`. It carries no factors.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))
    >>> run = ppl.seed(ppl.trace(model))(jax.random.key(0))
    >>> bool(run.value == run.choices["x"])
    True
    """

    def traced(*args, **kwargs):
        staged = stage(program, *args, **kwargs)
        refuse_keys(staged.of_kind("sample"))
        zero = jnp.zeros((), float)
        value, (log_density, log_weight), records = interpret(staged, _Tracing(), (zero, zero))
        computed = {info.address for info in staged.of_kind("deterministic")}
        records = staged.unmasked(records)
        return Trace(
            value,
            nest({address: x for address, x in records.items() if address not in computed}),
            log_density,
            log_weight,
            nest({address: x for address, x in records.items() if address in computed}),
        )

    return traced


def simulate(program: Callable) -> Callable:
    """``(key, *args) -> Trace``: ``seed(trace(program))``.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.sample("x", dist.Delta(1.0))
    >>> ppl.simulate(model)(jax.random.key(0)).choices
    {'x': Array(1., dtype=float32)}
    """
    return seed(trace(program))


class _Tracing(Handler):
    """State: log density and log weight. Records the values of sample and deterministic sites."""

    def site(self, kind, site, operands, given, state):
        log_density, log_weight = state
        if kind == "deterministic":
            outs = deterministic_p.bind(*operands, site=site)
            return outs, state, site.masked(operands, site.value_of(outs))
        outs, increment = weigh_site(kind, site, operands)
        density = score(site, operands, outs[0]) if kind == "sample" else increment
        state = log_density + density.astype(float), log_weight + increment.astype(float)
        return outs, state, site.masked(operands, outs[0]) if kind == "sample" else None


def _table(trace: Trace) -> Table:
    """A trace to look at: under ``jit`` without values, under ``vmap`` with its batch axes."""
    parts = {"sample": trace.choices, "deterministic": trace.deterministic, "value": trace.value}
    rows = []
    for kind, tree in parts.items():
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, Masked))
        for path, leaf in leaves:
            value, present = (leaf.value, leaf.present) if isinstance(leaf, Masked) else (leaf, None)
            for inner, part in jax.tree_util.tree_flatten_with_path(value)[0]:
                address = jax.tree_util.keystr((*path, *inner), simple=True, separator="/")
                rows.append((address, kind, type_of(part), values_of(part, present)))
    title = f"Trace: log density {_scalar(trace.log_density)}, log weight {_scalar(trace.log_weight)}"
    return Table(("address", "kind", "type", "values"), tuple(rows), title)


def _scalar(x) -> str:
    """A number, if it is known and one; else its type."""
    return (getattr(x, "shape", ()) == () and values_of(x)) or type_of(x)
