"""IBIS: SMC over a program whose data arrive bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ppl
from ...ppl import Trace
from ...ppl.staging import stage
from ...semantics.static.check import refuse
from ..kernels.kernel import Kernel
from .arriving import Arriving
from .importance import check_threshold
from .resample_move import Particles, ResampleMove, build_kernel
from .resampling import Resampler, systematic


def ibis(
    program: Callable,
    data: Mapping,
    n: int,
    kernel: Callable[[Callable], Kernel],
    *,
    block: int = 1,
    moves: int = 5,
    ess_threshold: float = 0.5,
    resampler: Resampler = systematic,
    waste_free: bool = False,
    read: Callable[[Trace], Any] = lambda trace: trace.value,
    check: bool = True,
) -> Callable:
    """The program that weighs ``n`` particles by data, a block at a time, and returns a ``Population``.

    For ``ppl.condition(program, data)``: iterated batch importance sampling. The target after t of the data is the
    program in which these are observed and the others do not weigh. Particles are whole runs of it; they are weighted
    by each block as it arrives. If the effective sample size falls below ``ess_threshold * n``, they are resampled, and
    moved by a kernel that leaves the present target invariant; after the last block they are moved in any case.

    Each block takes a density of the whole program for every particle, and each move what the kernel takes, so this is
    for programs whose unknowns are few, such as parameters; for states that come with the data there is :func:`smc`.

    If particles are moved after every block (``ess_threshold`` above 1), by a kernel that learns nothing, the result is
    properly weighted: ``E[(1/n) sum_i w_i f(x_i)] = mu(f)``, so the evidence is unbiased. Where it depends on the
    particles whether they are moved, or how, that holds in the limit of many of them: a kernel keeps its target, but
    not the part of it in which particles happen to be moved.

    Args:
      program: any program. It is run with the data in place of the sites that they are of.
      data: nested choices like those of ``condition``, all with a first axis of one length, along which they arrive:
        that of a scan or a vmap around the site, or of independent copies in its distribution.
      kernel: a function from a program to a kernel of it: ``lambda p: inference.hmc(p)``. The program has the number of
        data so far as its first argument, before ``*args``; so has a proposal. Its memory learns from all particles at
        once, as in :func:`tempered_smc`.
      block: how many of the data arrive at a time.
      moves: how many steps of the kernel each particle takes.
      ess_threshold: a fraction of the particles. 0 never resamples, anything above 1 always.
      resampler, waste_free, read, check: as ``tempered_smc`` has them.

    Raises:
      ChoiceError: the data are of different lengths.
      KernelError: the kernel is not one of the program that its function was given.

    Raises, when the program is traced:
      AddressError, ChoiceError: as ``condition`` does.
      UnsupportedError: the first axis of the data is within one event, or in some branches only; a density is only an
        estimate.

    Source: Chopin, *A sequential particle filter method for static models*, Biometrika 89 (2002).

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin():
    ...     bias = ppl.sample("bias", dist.Beta(1.0, 1.0))
    ...     ppl.sample("heads", dist.Bernoulli(bias).expand([10]))
    ...     return bias
    >>> heads = jnp.array([1, 1, 0, 1, 1, 0, 1, 1, 0, 1])
    >>> sampler = inference.ibis(coin, {"heads": heads}, 500, lambda p: inference.hmc(p, num_steps=5))
    >>> population = jax.jit(ppl.seed(sampler))(jax.random.key(0))
    >>> round(float(population.expectation()), 1)
    0.7
    """
    if not isinstance(block, int) or block < 1:
        raise ValueError(f"block is a positive number of data, not {block!r}")
    check_threshold(ess_threshold)
    arriving = Arriving(program, data)
    ends = np.append(np.arange(block, arriving.length, block), arriving.length).astype(np.int32)
    target = arriving.target
    particles = ResampleMove(build_kernel(kernel, target), n, resampler, moves, waste_free)

    def sampled(*args):
        if check:
            refuse(stage(target, arriving.length, *args))

        def step(now: Particles, pair):
            before, after = pair
            log_weight = lambda trace: arriving.log_weight(trace.choices, before, after, *args)  # noqa: E731
            increment = jax.vmap(log_weight)(now.states.trace)
            return particles.stage(
                now, increment, ess_threshold, after == arriving.length, after, *args
            ), None

        start = particles.start(jnp.zeros((), jnp.int32), *args)
        pairs = jnp.asarray(np.append(np.int32(0), ends[:-1])), jnp.asarray(ends)
        with ppl.scope("stage"):
            end, _ = lax.scan(step, start, pairs)
        return particles.population(end, read)

    return sampled
