"""Timing two pieces of work side by side, so that a shared machine's noise falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np


def compile_seconds(fun: Callable, *args) -> tuple[float, Callable]:
    """Traces and compiles ``jit(fun)``: seconds, and the compiled function."""
    start = time.perf_counter()
    compiled = jax.jit(fun).lower(*args).compile()
    return time.perf_counter() - start, compiled


def interleaved(runs: dict[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    """Seconds per run, ``[repeats]`` each; the runs take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The median of paired ratios."""
    return float(np.median(ours / theirs))
