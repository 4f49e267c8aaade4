"""checkpoint: a scan whose steps are kept on disk, so that it goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl import BorelaxError, UnsupportedError


class CheckpointError(BorelaxError, ValueError):
    """A folder holds the checkpoints of another run, or what is not one."""


def kept_scan(
    folder: str | os.PathLike, about: Mapping[str, str], init: Callable, step: Callable, xs: Sequence
):
    """``(carry, [out, ...])`` of a scan over ``xs`` of which every step is kept in a file.

    If the folder has the files of the first steps, these are not run again, but for the very first: what it gives must
    be what is in its file, to the last bit. So neither another program is mistaken for this one, nor a device that does
    not compute the same twice for one that does (for a GPU, see ``--xla_gpu_deterministic_ops``).

    A file appears as a whole or not at all, also if the machine stops: it is written under another name, flushed to the
    disk and renamed.

    Args:
      about: what this is a scan of, in hashes or words. A folder that says otherwise is refused.
      init: ``() -> carry``.
      step: ``(carry, x) -> (carry, out)``, compiled, of pytrees of arrays. It is given a carry as NumPy arrays.
      xs: what to give to the steps.

    Raises:
      CheckpointError: the folder is of something else, or a file in it cannot be read.
    """
    folder = Path(folder)
    likes = jax.eval_shape(step, jax.eval_shape(init), xs[0])
    _refuse_keys(likes)
    _claim(folder, about)
    files = [folder / f"part-{number:05}.npz" for number in range(len(xs))]

    def run(carry, x):
        return jax.tree.map(np.asarray, step(jax.tree.map(np.asarray, carry), x))

    first = run(init(), xs[0])
    if files[0].exists():
        _check_same(files[0], first, likes)
    else:
        _save(files[0], first)
    done = next((number for number, file in enumerate(files) if not file.exists()), len(files))
    carry, _ = _read(files[done - 1], likes)
    for file, x in zip(files[done:], xs[done:]):
        part = run(carry, x)
        _save(file, part)
        carry, _ = part
    return carry, [_read(file, likes)[1] for file in files]


def refuse_tracers(tree: Any) -> None:
    """Refuses arguments whose values are not known: of a run that is compiled, nothing can be kept."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        raise UnsupportedError(
            "a run that writes checkpoints cannot be compiled: call it outside jit and vmap"
        )


def hashed(tree: Any) -> str:
    """A hash of arrays, and of how they are arranged."""
    leaves, structure = jax.tree.flatten(tree)
    found = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


# ------------------------------------------------------------------------- files


def _claim(folder: Path, about: Mapping[str, str]) -> None:
    """Makes the folder, or checks that it is of the same scan."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "about.json"
    if file.exists():
        found = json.loads(file.read_text())
        differs = [name for name in about if found.get(name) != about[name]]
        if differs or found.keys() != about.keys():
            raise CheckpointError(
                f"{folder} has the checkpoints of another run: not the same {' and '.join(differs)}. Choose another "
                "folder, or delete this one"
            )
    elif any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty, and no folder of checkpoints: choose another")
    else:
        _write(file, lambda stream: stream.write(json.dumps(dict(about), indent=2).encode()))


def _check_same(file: Path, part: Any, likes: Any) -> None:
    kept = _read(file, likes)
    if any(x.tobytes() != y.tobytes() for x, y in zip(jax.tree.leaves(part), jax.tree.leaves(kept))):
        raise CheckpointError(
            f"{file} has another result than the same step has now: it is of another program or kernel, or the device "
            "does not compute the same twice. Choose another folder, or delete this one"
        )


def _save(file: Path, part: Any) -> None:
    _write(file, lambda stream: np.savez(stream, *jax.tree.leaves(part)))


def _write(file: Path, write: Callable) -> None:
    """Writes a file that is there as a whole or not at all."""
    unfinished = file.with_suffix(".tmp")
    with open(unfinished, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def _read(file: Path, likes: Any) -> Any:
    """Arrays as they were written, arranged like ``likes``."""
    leaves, structure = jax.tree.flatten(likes)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = [arrays[f"arr_{number}"] for number in range(len(leaves))]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{file} cannot be read: delete it to run that part and those after it again"
        ) from error
    # A view, because NumPy has no name for some dtypes of JAX and loads plain bytes.
    found = [array.view(like.dtype) for array, like in zip(found, leaves)]
    if [array.shape for array in found] != [like.shape for like in leaves]:
        raise CheckpointError(f"{file} has arrays of other shapes than this run: delete the folder")
    return jax.tree.unflatten(structure, found)


def _refuse_keys(likes: Any) -> None:
    if any(jnp.issubdtype(like.dtype, jax.dtypes.prng_key) for like in jax.tree.leaves(likes)):
        raise CheckpointError("a PRNG key is part of what is to be kept, which a file of arrays cannot hold")
