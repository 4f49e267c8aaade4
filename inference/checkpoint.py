"""checkpoint: a scan whose steps are kept on disk, so that it goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ppl import BorelaxError, UnsupportedError, compat


class CheckpointError(BorelaxError, ValueError):
    """A folder holds the checkpoints of another run, or what is not one."""


def kept_scan(
    folder: str | os.PathLike,
    about: Mapping[str, Any],
    given: Mapping[str, Any],
    init: Callable,
    step: Callable,
    xs: Sequence,
):
    """``(carry, [out, ...])`` of a scan over ``xs`` of which every step is kept in a file.

    The folder knows what it is of: a hash of all that is given, and of the program that ``step`` is, its constants
    included. If it has the files of the first steps, these are not run again, but for the very first: what it gives
    must be what is in its file, to the last bit. So neither another program is mistaken for this one, nor a device that
    does not compute the same twice for one that does (for a GPU, see ``--xla_gpu_deterministic_ops``).

    A file appears as a whole or not at all, also if the machine stops: it is written under another name, flushed to the
    disk and renamed.

    Args:
      about: what else this is a scan of, by name: options, and what is static. A folder that says otherwise is refused.
      given: what there is for ``init`` and ``step`` besides, by keyword: pytrees of arrays.
      init: ``(**given) -> carry``.
      step: ``(carry, x, **given) -> (carry, out)``, compiled, of pytrees of arrays. Its carry are NumPy arrays.
      xs: what to give to the steps.

    Raises:
      CheckpointError: the folder is of something else, or a file in it cannot be read.
      UnsupportedError: what is given is not known, in ``jit`` or ``vmap``.
    """
    _refuse_tracers(given)
    folder = Path(folder)
    program, likes = jax.make_jaxpr(step, return_shape=True)(jax.eval_shape(init, **given), xs[0], **given)
    _refuse_keys(likes)
    of_all = {name: hashed(x) for name, x in given.items()} | {
        "steps": hashed(xs),
        "program": _identity(program),
    }
    about = {name: _hash(_spelled(x)) for name, x in about.items()} | of_all
    _claim(folder, about | {"JAX": f"{jax.__version__} on {jax.default_backend()}"})
    files = [folder / f"part-{number:05}.npz" for number in range(len(xs))]

    def run(carry, x):
        return jax.tree.map(np.asarray, step(jax.tree.map(np.asarray, carry), x, **given))

    first = run(init(**given), xs[0])
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


# ------------------------------------------------------------------------- what a folder is of


def _identity(program: compat.ClosedJaxpr) -> str:
    """A hash of a program and of its constants, the same in all processes."""
    return _hash(_spelled(program) + hashed(list(_constants(program))))


def _constants(program: compat.Jaxpr | compat.ClosedJaxpr) -> Iterator[Any]:
    """All that are written into a program, or that it closes over."""
    yield from getattr(program, "consts", ())
    for eqn in program.eqns:
        yield from (atom.val for atom in eqn.invars if isinstance(atom, compat.Literal))
        for inner in jax.tree.leaves(eqn.params, is_leaf=_is_program):
            if _is_program(inner):
                yield from _constants(inner)


def _is_program(x: Any) -> bool:
    return isinstance(x, compat.Jaxpr | compat.ClosedJaxpr)


def _spelled(x: Any) -> str:
    """As it shows itself, without what differs from process to process: addresses, and the order of sets.

    >>> _spelled([object()]), _spelled({"b", "a"})
    ('[<object object at >]', "{'a', 'b'}")
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(x))
    return re.sub(r"\{([^{}:]*)\}", lambda found: f"{{{', '.join(sorted(found[1].split(', ')))}}}", text)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_tracers(tree: Any) -> None:
    """Of a run that is compiled, nothing can be kept."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        raise UnsupportedError(
            "a run that writes checkpoints cannot be compiled: call it outside jit and vmap"
        )


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
