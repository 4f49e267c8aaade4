"""The examples in docstrings, each docstring as one test.

They run here and not by pytest's ``--doctest-modules``, which would import ``ppl/seed.py`` as ``ppl.seed``: the
folders are packages only inside ``borelax``, as which they are installed.
"""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import FOLDERS, source_files

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(path: Path) -> Iterator[tuple[str, str, int]]:
    """Every docstring with an example in it: whose it is, its text, and its line, counted from 0."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Documented) and ">>> " in (text := ast.get_docstring(node, clean=False) or ""):
            yield getattr(node, "name", "module"), text, node.body[0].lineno - 1


EXAMPLES = [
    pytest.param(module, text, path, line, id=f"{module}.{owner}")
    for module, path in source_files().items()
    for owner, text, line in docstrings(path)
]


@pytest.mark.parametrize(("module", "text", "path", "line"), EXAMPLES)
def test_example(module, text, path, line):
    names = dict(vars(importlib.import_module(module)))
    example = doctest.DocTestParser().get_doctest(text, names, module, str(path), line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=report.append)
    assert runner.tries == len(example.examples) > 0
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize(
    "package", ["borelax.ppl", "borelax.inference", "borelax.semantics", "borelax.models"]
)
def test_every_package_that_users_call_has_examples(package):
    assert package in FOLDERS
    assert any(example.id.startswith(package) for example in EXAMPLES)
