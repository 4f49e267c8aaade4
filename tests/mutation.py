"""Mutants of the library: a copy of it in which one line is another.

``mutated`` imports the packages anew with a change in the source of one module, beside the library itself, which is
left as it is. So a mutant is a patch of the real code, and whoever calls the changed function gets the change.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

from jax import lax
from jax.interpreters import batching
from source_tree import source_files

from borelax.ppl import branches

PACKAGES = ("ppl", "semantics", "inference", "models")


@dataclass(frozen=True)
class Patch:
    """A change in a module: ``old``, which occurs in it once, becomes ``new``."""

    module: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.module} has {count} times, not once, the text {self.old!r}")
        return source.replace(self.old, self.new)


class _Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the patched module before anybody else does."""

    def __init__(self, patch: Patch):
        self.patch = patch
        self.path = source_files()[patch.module]

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.patch.module else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.patch.apply(self.path.read_text()), str(self.path), "exec"), vars(module))


@contextmanager
def mutated(patch: Patch) -> Iterator[SimpleNamespace]:
    """The packages of a library with a patch in it: ``ppl``, ``semantics``, ``inference`` and ``models``."""
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "borelax"}
    own_rules, plain_rules = _control_flow_rules()
    finder = _Patching(patch)
    for name in ours:
        if "." in name:  # the namespace package itself stays
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        batching.fancy_primitive_batchers.update(plain_rules)
        yield SimpleNamespace(**{name: importlib.import_module(f"borelax.{name}") for name in PACKAGES})
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith("borelax.")]:
            del sys.modules[name]
        sys.modules.update(ours)
        batching.fancy_primitive_batchers.update(own_rules)
        for name, module in ours.items():
            if name.count(".") == 1:
                setattr(sys.modules["borelax"], name.split(".")[1], module)


def _control_flow_rules() -> tuple[dict, dict]:
    """The rules for vmap of control flow: the language's, which importing it puts in place, and JAX's own."""
    ours = {
        primitive: batching.fancy_primitive_batchers[primitive] for primitive in (lax.cond_p, lax.while_p)
    }
    return ours, {lax.cond_p: branches._batch_cond, lax.while_p: branches._batch_while}
