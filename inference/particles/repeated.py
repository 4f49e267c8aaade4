"""repeated: independent runs of a program that returns a population."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ppl
from ...ppl.population import DegenerateWarning, Population
from ..arguments import Static, split
from ..checkpoint import kept_scan
from ..progress import Progress
from .pool import pool
from .runs import Runs, lost


def repeated(
    algorithm: Callable,
    num_runs: int,
    at_once: int = 1,
    *,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
) -> Callable:
    """``(key, *args) -> Runs``: independent runs of an algorithm, pooled, and what their differences tell.

    Where more particles do not fit, or to see how far off the evidence is. Run r has a key that is made of r, whatever
    ``num_runs`` and ``at_once`` are. The members are those of one population, see :func:`pool`, and it is properly
    weighted if the algorithm is.

    The whole of it is one compiled function of the arrays in ``args``. Keep what ``repeated`` returns, and call it
    again: nothing is compiled for other keys, or for other data of the same shapes. It can be called in ``jit`` and
    ``vmap``.

    Args:
      algorithm: a program that returns a ``Population``, such as ``smc(program, n)``.
      num_runs: how many runs there are.
      at_once: how many run side by side, mapped; the others wait. On a CPU one by one is as fast, and takes less
        memory.
      progress: whether to show on stderr how far it is. JAX does not keep what it compiles for that on disk.
      checkpoint: a folder to keep the runs in, ``at_once`` by ``at_once``, if all may be killed: the same call with the
        same folder goes on from there. The folder is one call's: of an algorithm, arguments and a key.

    Raises:
      ValueError: a number is none.
      TypeError: the algorithm does not return a population.
      CheckpointError: the folder has the checkpoints of another call.
      UnsupportedError: there is a checkpoint to be written, in ``jit`` or ``vmap``.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin(heads):
    ...     bias = ppl.sample("bias", dist.Beta(1.0, 1.0))
    ...     ppl.observe("heads", dist.Binomial(10, bias), heads)
    ...     return bias
    >>> run = inference.repeated(inference.importance(coin, 1000), num_runs=10)
    >>> runs = run(jax.random.key(0), jnp.array(7))
    >>> runs.log_evidence.shape, runs.population.size, runs.warnings
    ((10,), 10000, ())
    >>> bool(abs(jnp.exp(runs.population.log_evidence) - 1 / 11) < 0.01)
    True
    """
    for name, number in {"num_runs": num_runs, "at_once": at_once}.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is a positive integer, not {number!r}")
    report = Progress(num_runs, unit="runs") if progress else None
    part = _Part(algorithm, num_runs, min(at_once, num_runs), report)
    run = _at_once(part) if checkpoint is None else _in_parts(part, checkpoint)

    def repeat(key, *args) -> Runs:
        runs = run(*split(args), key)
        if not isinstance(runs.log_evidence, jax.core.Tracer):
            if progress:
                jax.effects_barrier()
            for warning in lost(runs):
                warnings.warn(warning, DegenerateWarning, stacklevel=2)
        return runs

    return repeat


def _at_once(part: _Part) -> Callable:
    """``(static, arrays, key) -> Runs``, one compiled function."""

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, arrays, key) -> Runs:
        step = lambda _, numbers: (None, part(static, arrays, key, numbers))  # noqa: E731
        _, found = lax.scan(step, None, jnp.asarray(part.numbers))
        return part.runs(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found))

    return run


def _in_parts(part: _Part, folder: str | os.PathLike) -> Callable:
    """``(static, arrays, key) -> Runs``, which keeps every part of them in a folder."""
    runs = jax.jit(part.runs)

    @partial(jax.jit, static_argnums=0)
    def some(static: Static, _, numbers, key, arguments):
        return (), part(static, arguments, key, numbers)

    def run(static: Static, arrays, key) -> Runs:
        about = {
            "options": f"{part.num_runs=} {part.at_once=}",
            "progress": part.report is not None,
            "static arguments": static,
        }
        given = {"key": key, "arguments": arrays}
        nothing, step = lambda **given: (), partial(some, static)
        _, found = kept_scan(folder, about, given, nothing, step, list(part.numbers))
        return runs(jax.tree.map(lambda *parts: np.concatenate(parts), *found))

    return run


@dataclass(frozen=True)
class _Part:
    """Some of the runs, side by side. The key of a run is made of its number.

    Attributes:
      algorithm, num_runs, at_once: see :func:`repeated`.
      report: called with the number of runs that there are, after each part; None if nobody wants to know.
    """

    algorithm: Callable
    num_runs: int
    at_once: int
    report: Callable | None

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of the runs of all parts, ``[part, at_once]``; those beyond the last fill up the last part."""
        parts = math.ceil(self.num_runs / self.at_once)
        return np.arange(parts * self.at_once, dtype=np.int32).reshape(parts, self.at_once)

    def __call__(self, static: Static, arrays, key, numbers) -> Population:
        def one(number) -> Population:
            return ppl.seed(self.algorithm)(jax.random.fold_in(key, number), *static.filled(arrays))

        # Where one runs alone, without vmap, in which both branches of a cond are run.
        found = (
            jax.vmap(one)(numbers) if self.at_once > 1 else jax.tree.map(lambda x: x[None], one(numbers[0]))
        )
        if not isinstance(found, Population):
            raise TypeError(
                f"what is repeated is a program that returns a Population, such as inference.smc(program, n); this one "
                f"returns {'an array' if isinstance(found, jax.Array) else type(found).__name__}"
            )
        if self.report is not None:
            self.report(jnp.minimum(numbers[-1] + 1, self.num_runs))
        return found

    def runs(self, found: Population) -> Runs:
        """Of the populations of all parts."""
        found = jax.tree.map(lambda x: x[: self.num_runs], found)
        return Runs(pool(found), found.log_evidence, found.ess, found.died)
