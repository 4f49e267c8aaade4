"""trace_type: what sites a program has, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from .choices import Address, nest
from .staging import SiteInfo, stage


@dataclass(frozen=True)
class SiteType:
    """The type of one site.

    Attributes:
      shape: of its value, with a leading axis for each enclosing scan and vmap.
      dtype: of its value.
      support: its numpyro constraint; bounds that depend on other values are ``jax.ShapeDtypeStruct``.
      kind: "sample", "observe" or "deterministic".
      optional: whether some branch lacks it.
      source: the line of the program it is on.
    """

    shape: tuple[int, ...]
    dtype: Any
    support: Any
    kind: str
    optional: bool
    source: str


def trace_type(program: Callable) -> Callable:
    """``(*args) -> {address: SiteType}``, nested like choices. Nothing is run: the program is traced only.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([3]))
    >>> ppl.trace_type(model)()["x"].shape
    (3,)
    """

    def typed(*args, **kwargs) -> dict:
        staged = stage(program, *args, **kwargs)
        infos = staged.of_kind("sample", "observe", "deterministic")
        types: dict[Address, SiteType] = {info.address: _site_type(info) for info in infos}
        return nest(types)

    return typed


def _site_type(info: SiteInfo) -> SiteType:
    support = None if info.kind == "deterministic" else _support(info)
    return SiteType(info.shape, info.dtype, support, info.kind, info.optional, info.site.source)


def _support(info: SiteInfo):
    leaves = list(info.operands)
    for axis in info.site.axes:
        leaves = [
            jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) if mapped else leaf
            for leaf, mapped in zip(leaves, axis.mapped)
        ]
    return jax.eval_shape(lambda *leaves: info.site.effect(leaves).distribution.support, *leaves)
