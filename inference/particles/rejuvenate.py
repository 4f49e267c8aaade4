"""Rejuvenation: SMC over the suspension points of a program, where runs are moved by a kernel."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from ... import ppl
from ...ppl.points import count_points
from ...ppl.population import Population
from ...ppl.staging import Staged, stage
from ..kernels.kernel import Kernel
from .importance import check_threshold
from .resample_move import Particles, ResampleMove, build_kernel
from .resampling import Resampler
from .until import until


def populate_rejuvenating(
    program: Callable,
    n: int,
    resampler: Resampler,
    ess_threshold: float,
    rejuvenate: Callable[[Callable], Kernel],
    moves: int,
    inspect: Callable[[Staged], object] | None = None,
) -> Callable:
    """The program that runs ``n`` particles through ``program`` and moves them on the way; see :func:`smc`.

    The population walk cannot change what was drawn, so particles are traces here: of ``until(program)``, at one point
    after the other. They go on from one to the next by ``ppl.update``, which draws what the trace lacks.

    Source: Gilks and Berzuini, *Following a moving target: Monte Carlo inference for dynamic Bayesian models*, JRSS B
    63 (2001).
    """
    check_threshold(ess_threshold)
    target = until(program)
    kernel = build_kernel(rejuvenate, target, "rejuvenate")
    particles = ResampleMove(kernel, n, resampler, moves, waste_free=False)

    def populated(*args) -> Population:
        staged = stage(program, *args)
        if inspect is not None:
            inspect(staged)
        last = count_points(staged)

        def step(now: Particles, point):
            now = particles.move(now, ess_threshold, point == last, point, *args)
            return particles.go_on(now, point + 1, *args), None

        start = particles.start(jnp.ones((), jnp.int32), *args)
        with ppl.scope("stage"):
            end, _ = lax.scan(step, start, jnp.arange(1, last + 1, dtype=jnp.int32))
        return particles.population(end, lambda trace: trace.value)

    return populated
