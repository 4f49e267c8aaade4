"""trace_type: what sites a program has, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .choices import Address, nest
from .describe import spell_support, support_of
from .errors import UnsupportedError
from .staging import SiteInfo, stage


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        shape = "" if self.shape is None else f" {self.dtype}[{','.join(map(str, self.shape))}]"
        support = f" in {spell_support(self.support)}" if self.support is not None else ""
        return f"SiteType({self.kind}{shape}{support}{', optional' if self.optional else ''}, {self.source})"


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
        for info in infos:
            if info.unbounded:
                raise UnsupportedError(
                    f"site {info} is inside a while_loop: it has no fixed number of values, so no type; use lax.scan, "
                    "lax.fori_loop with a fixed number of steps, or ppl.loop"
                )
        types: dict[Address, SiteType] = {info.address: _site_type(info) for info in infos}
        return nest(types)

    return typed


def _site_type(info: SiteInfo) -> SiteType:
    support = None if info.kind == "deterministic" else support_of(info)
    return SiteType(info.shape, info.dtype, support, info.kind, info.optional, info.site.source)
