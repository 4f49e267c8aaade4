"""Who may import whom. The arrows point one way: ppl, semantics, inference, then the command, with models beside.

Imports are read from the source, so that those inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import FOLDERS, ROOT, source_files

LANGUAGE = {"jax", "jaxtyping", "numpy", "numpyro.distributions"}
LANGUAGE_MODELS = {"flax", "gguf", "huggingface_hub", "safetensors", "tokenizers"}
LIBRARIES = {
    "borelax.ppl": LANGUAGE,
    "borelax.semantics": LANGUAGE,
    "borelax.inference": LANGUAGE | {"blackjax"},
    "borelax.models": LANGUAGE | LANGUAGE_MODELS,
    "borelax.cli": LANGUAGE | {"rich"},
}
# What single modules may import besides: one runs whole NumPyro models, two draw figures, one hands draws to ArviZ.
ALSO = {
    "borelax.ppl.from_numpyro": {"numpyro"},
    "borelax.semantics.plots": {"matplotlib"},
    "borelax.inference.chains.plots": {"matplotlib"},
    "borelax.inference.gradients.fit_plot": {"matplotlib"},
    "borelax.inference.particles.genealogy_plot": {"matplotlib"},
    "borelax.inference.gradients.fit": {"optax"},
    "borelax.inference.gradients.ascent": {"optax"},
    "borelax.inference.kernels.tuning_by_chees": {"optax"},
    "borelax.inference.chains.to_arviz": {"arviz"},
}
BELOW = {
    "borelax.ppl": set(),
    "borelax.semantics": {"borelax.ppl"},
    "borelax.inference": {"borelax.ppl", "borelax.semantics"},
    "borelax.models": {"borelax.ppl"},
    "borelax.cli": {"borelax.ppl", "borelax.semantics", "borelax.inference", "borelax.models"},
}
# Libraries that importing the language, its semantics or its inference must not load.
HEAVY = LANGUAGE_MODELS | {
    "arviz",
    "blackjax",
    "lark",
    "matplotlib",
    "optax",
    "orbax",
    "pandas",
    "rich",
    "torch",
    "transformers",
}


def lies_in(name: str, packages) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, int, str]]:
    """What a module imports: the line, the number of leading dots, and the full dotted name."""
    within = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = within[: len(within) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, node.level, ".".join([*base, alias.name])) for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    package = ".".join(module.split(".")[:2])
    libraries = LIBRARIES[package] | ALSO.get(module, set())
    found = []
    for line, dots, name in imports(source, module, is_package):
        if dots:
            allowed = lies_in(name, BELOW[package] | {package})
        else:  # relative imports are for our own packages, absolute ones for all others
            allowed = name.split(".")[0] in sys.stdlib_module_names or lies_in(name, libraries)
        if not allowed:
            found.append(f"line {line}: {package} may not import {name}")
    return found


def test_every_package_has_its_rules():
    assert LIBRARIES.keys() == BELOW.keys() == FOLDERS.keys()


@pytest.mark.parametrize("module", source_files())
def test_imports_follow_the_arrows(module):
    path = source_files()[module]
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("borelax.ppl.seed", "import numpyro"),
        ("borelax.ppl.seed", "from numpyro import infer"),
        ("borelax.inference.from_numpyro", "from numpyro import handlers"),
        ("borelax.ppl.from_numpyro", "import flax"),
        ("borelax.ppl.seed", "from numpyro.infer import MCMC"),
        ("borelax.ppl.seed", "import numpyro.distributions, flax"),
        ("borelax.ppl.seed", "from ..inference import smc"),
        ("borelax.ppl.seed", "from .. import models"),
        ("borelax.ppl.seed", "from borelax import ppl"),
        ("borelax.ppl.seed", "import borelax.ppl.trace"),
        ("borelax.ppl.seed", "import ppl"),
        ("borelax.ppl.seed", "from jaxlib import xla_client"),
        ("borelax.ppl.seed", "def f():\n    import torch"),
        ("borelax.ppl.seed", "if TYPE_CHECKING:\n    from ..semantics import Measure"),
        ("borelax.semantics.meaning", "from ..inference import smc"),
        ("borelax.inference.smc", "from .. import models"),
        ("borelax.inference.smc", "from optax import adam"),
        ("borelax.inference.draws", "import arviz"),
        ("borelax.ppl.unconstrain", "import blackjax"),
        ("borelax.models.decoder", "from ..inference import smc"),
        ("borelax.models.decoder", "import torch"),
    ],
)
def test_a_wrong_import_is_found(module, source):
    assert len(violations(source, module)) == 1


def test_right_imports_pass():
    source = (
        "import jax.numpy as jnp\nimport numpyro.distributions as dist\nfrom numpyro import distributions\n"
    )
    assert violations(source + "from . import smc\nfrom .. import ppl\n", "borelax.inference.smc") == []
    assert violations("from . import smc\nfrom .smc import smc", "borelax.inference", is_package=True) == []


def test_the_language_loads_nothing_heavy():
    lean = ("borelax.ppl", "borelax.semantics", "borelax.inference")
    script = f"""
import importlib, json, sys
loaded = {{}}
for package in {lean}:
    importlib.import_module(package)
    loaded[package] = sorted({HEAVY} & set(sys.modules))
print(json.dumps(loaded))
"""
    finished = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert json.loads(finished.stdout) == {package: [] for package in lean}


def code_of(path: Path) -> str:
    """A script's source, or that of a notebook's code cells without their ``%`` and ``!`` lines."""
    if path.suffix == ".py":
        return path.read_text()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def public_names(package: str) -> set[str]:
    """What a package's ``__init__`` binds, and means others to use."""
    tree = ast.parse((FOLDERS[package] / "__init__.py").read_text())
    bound = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    bound |= {alias.asname or alias.name for node in tree.body for alias in getattr(node, "names", [])}
    bound |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return {name for name in bound if not name.startswith("_")}


def inner_imports(source: str) -> list[str]:
    """What a script imports of borelax that is neither a package nor a public name of one."""
    public = {f"{package}.{name}" for package in FOLDERS for name in public_names(package)} | FOLDERS.keys()
    used = [name for _, _, name in imports(source, "script") if lies_in(name, ["borelax"])]
    return [name for name in used if name not in public]


EXAMPLES = sorted(path for kind in ("*.py", "*.ipynb") for path in (ROOT / "examples").rglob(kind))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_use_the_public_interface(path):
    assert inner_imports(code_of(path)) == []


def test_an_inner_import_is_found():
    assert inner_imports("from borelax import ppl\nimport borelax.ppl\nfrom borelax.ppl import seed") == []
    for wrong in (
        "from borelax.ppl.seed import seed",
        "from borelax.models import _x",
        "import borelax.core",
    ):
        assert len(inner_imports(wrong)) == 1
