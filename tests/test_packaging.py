"""What is built is what is in the tree, and what is installed works by itself.

The wheel and the sdist are built in a copy of the tree, without network access.
"""

from __future__ import annotations

import email
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from source_tree import FOLDERS, PYPROJECT, ROOT

VERSION = PYPROJECT["project"]["version"]
GENERATED = shutil.ignore_patterns("__pycache__", ".*")


def run(*command, cwd: Path, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Builds a "wheel" or an "sdist" of the tree in ``source``."""
    run("-m", "build", "--no-isolation", f"--{kind}", "--outdir", target, source, cwd=target.parent)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of what the build reads, so that nothing is left behind in the tree itself."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile"):
        shutil.copy(ROOT / name, copy)
    for folder in (*FOLDERS.values(), ROOT / "tests"):
        shutil.copytree(folder, copy / folder.relative_to(ROOT), ignore=GENERATED)
    return copy


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory) -> Path:
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tree, sdist, tmp_path_factory) -> Path:  # after the sdist: a build may leave files in its tree
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file of a wheel but the list of their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_holds_the_packages_and_nothing_else(wheel, tree):
    expected = {
        f"{package.replace('.', '/')}/{path.relative_to(tree / folder.name).as_posix()}"
        for package, folder in FOLDERS.items()
        for path in (tree / folder.name).rglob("*")
        if path.is_file()
    }
    assert {"borelax/ppl/__init__.py", "borelax/models/py.typed"} <= expected
    about = f"borelax-{VERSION}.dist-info"
    names = members(wheel)
    assert {name for name in names if not name.startswith(about)} == expected
    assert {f"{about}/METADATA", f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} <= names


@pytest.mark.parametrize("package", FOLDERS)
def test_every_package_says_that_it_is_typed(package, wheel):
    assert f"{package.replace('.', '/')}/py.typed" in members(wheel)


def test_the_metadata_is_that_of_pyproject(wheel):
    about = email.message_from_bytes(contents(wheel)[f"borelax-{VERSION}.dist-info/METADATA"])
    assert (about["Name"], about["Version"]) == ("borelax", VERSION)
    assert (about["License-Expression"], about["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert set(about.get_all("Provides-Extra")) == set(PYPROJECT["project"]["optional-dependencies"])
    assert about.get_payload() == (ROOT / "README.md").read_text()


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"borelax-{VERSION}"
    assert (unpacked / "LICENSE").is_file() and (unpacked / "tests" / "conftest.py").is_file()
    again = build("wheel", unpacked, tmp_path / "dist")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)


def test_an_installed_wheel_works_by_itself(wheel, tmp_path):
    target = tmp_path / "installed"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index")
    run("-m", "pip", "install", *quiet, "--no-deps", "--no-compile", "--target", target, wheel, cwd=tmp_path)
    assert {path.name for path in target.iterdir()} <= {"borelax", f"borelax-{VERSION}.dist-info", "bin"}
    program = """
import jax, numpyro.distributions as dist
from borelax import inference, ppl, semantics
print(ppl.__file__, inference.__file__, semantics.__file__, sep="\\n")
coin = lambda: ppl.sample("heads", dist.Bernoulli(0.25))
print(sum(weight for value, weight in semantics.meaning(coin)()))
"""
    *files, total = run("-c", program, cwd=tmp_path, PYTHONPATH=str(target)).splitlines()
    assert [Path(file).is_relative_to(target) for file in files] == [True] * 3
    assert float(total) == 1.0


def test_the_command_is_there():
    module, function = PYPROJECT["project"]["scripts"]["borelax"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def is_editable() -> bool:
    records = [
        about.read_text("direct_url.json") for about in importlib.metadata.distributions(name="borelax")
    ]
    return any(json.loads(text).get("dir_info", {}).get("editable", False) for text in records if text)


@pytest.mark.skipif(not is_editable(), reason="borelax is not installed in editable mode")
@pytest.mark.parametrize("package", FOLDERS)
def test_an_editable_install_is_this_tree(package):
    assert Path(importlib.import_module(package).__file__).parent == FOLDERS[package]
