"""The source tree, as pyproject.toml maps it: for tests about the project as a whole.

It is not called `tree`, which is what ArviZ would then take for a library of that name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, Path] = {
    package: ROOT / folder for package, folder in PYPROJECT["tool"]["setuptools"]["package-dir"].items()
}


def source_files() -> dict[str, Path]:
    """The file of every module that is installed, by the module's name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found
