"""Tempered SMC: from the draws of a program to the program, by way of the measures in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import ppl
from ...ppl import Trace
from ...ppl.reweigh import reweigh
from ...ppl.staging import stage
from ...semantics.static.check import refuse
from ..kernels.kernel import Kernel
from .resample_move import Particles, ResampleMove, build_kernel, effective_share
from .resampling import Resampler, systematic
from .tempered import tempered

# Halvings of the interval in which the next temperature is looked for: it may be as small as 1e-15.
_HALVINGS = 50


def tempered_smc(
    program: Callable,
    n: int,
    kernel: Callable[[Callable], Kernel],
    temperatures: Sequence[float] | None = None,
    *,
    moves: int = 5,
    ess_target: float = 0.5,
    resampler: Resampler = systematic,
    waste_free: bool = False,
    max_stages: int = 100,
    read: Callable[[Trace], Any] = lambda trace: trace.value,
    check: bool = True,
) -> Callable:
    """The program that takes ``n`` particles from the draws of ``program`` to its measure: a ``Population``.

    The targets are q(x) w(x) ** beta, as :func:`tempered` has them, for inverse temperatures beta from 0 to 1. At each
    stage the particles, which stand for one beta, are weighted by w(x) to the power of the difference to the next; then
    they are resampled, and moved by a kernel that leaves the new target invariant. At the last one, beta = 1, they are
    moved but not resampled, so that ``ess`` tells how far the last step was.

    With a given ladder of temperatures and a kernel that learns nothing the result is properly weighted, as that of
    :func:`smc` is: ``E[(1/n) sum_i w_i f(x_i)] = mu(f)``. Where the next temperature depends on the particles, or the
    kernel's tuning does, that holds in the limit of many of them, and so does that the evidence is unbiased.

    Args:
      program: any program; its sites are drawn once, without looking at its weights, so there are to be values that its
        kernel can reach from there.
      kernel: a function from a program to a kernel of it: ``lambda p: inference.hmc(p)``, ``lambda p: inference.mh(p,
        proposal)``. The program has beta as its first argument, before ``*args``; so has a proposal. The memory of
        gradient kernels learns from all particles at once: the inverse mass matrix is their covariance, and the step
        size follows their mean acceptance rate.
      temperatures: the betas, increasing numbers of which the last is 1. None to choose each so that the effective
        sample size of the weights falls to ``ess_target``.
      moves: how many steps of the kernel each particle takes at a stage.
      ess_target: a fraction of the particles (of those that have any weight).
      resampler: see ``resampling.py``.
      waste_free: whether all states that a particle goes through become particles. Then ``n / (moves + 1)`` of them are
        resampled and moved, and nothing is moved after the last stage. ``log_evidence_se`` is not known.
      max_stages: the most stages, if temperatures are chosen; the last one goes to 1, however far that is.
      read: what of a particle's trace becomes its value, such as ``lambda trace: trace.choices``.
      check: as ``smc`` has it.

    Temperatures are recorded as ``deterministic`` values, under the address "stage/beta".

    Raises:
      ValueError: temperatures, or a number, are none.
      KernelError: the kernel is not one of the program that its function was given.

    Raises, when the program is traced:
      UnsupportedError: the density of a site is only an estimate (that of an observation may be); as ``smc`` does.

    Sources: Del Moral, Doucet and Jasra, *Sequential Monte Carlo samplers*, JRSS B 68 (2006); for the choice of
    temperatures, Jasra, Stephens, Doucet and Tsagaris, *Inference for Lévy-driven stochastic volatility models via
    adaptive sequential Monte Carlo*, Scandinavian Journal of Statistics 38 (2011), and Del Moral, Doucet and Jasra, *On
    adaptive resampling strategies for sequential Monte Carlo methods*, Bernoulli 18 (2012); Dau and Chopin, *Waste-free
    sequential Monte Carlo*, JRSS B 84 (2022).

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model(y):
    ...     x = ppl.sample("x", dist.Normal(0.0, 10.0))
    ...     ppl.observe("y", dist.Normal(x, 0.1), y)
    ...     return x
    >>> sampler = inference.tempered_smc(model, 500, lambda p: inference.hmc(p, num_steps=5))
    >>> population = jax.jit(ppl.seed(sampler))(jax.random.key(0), jnp.array(7.0))
    >>> round(float(population.expectation()), 1)
    7.0
    """
    target = tempered(program)
    particles = ResampleMove(build_kernel(kernel, target), n, resampler, moves, waste_free)
    advance = _adaptively(ess_target, max_stages) if temperatures is None else _along(_ladder(temperatures))

    def sampled(*args):
        if check:
            refuse(stage(program, *args))

        def log_weight(trace: Trace):
            return reweigh(target)(trace.choices, 1.0, *args)[1]

        def step(before, after, log_weights, now: Particles) -> Particles:
            ppl.deterministic("beta", after)
            increment = (after - before) * log_weights
            return particles.stage(now, increment, jnp.inf, after == 1, after, *args)

        start = particles.start(jnp.zeros((), float), *args)
        with ppl.scope("stage"):
            end = advance(step, jax.vmap(log_weight), start)
        return particles.population(end, read)

    return sampled


def _along(betas: np.ndarray) -> Callable:
    """Through the stages of a ladder."""

    def advance(step: Callable, log_weight: Callable, start: Particles) -> Particles:
        def body(now: Particles, pair):
            before, after = pair
            return step(before, after, log_weight(now.states.trace), now), None

        pairs = jnp.asarray(np.append(0.0, betas[:-1]), float), jnp.asarray(betas, float)
        return lax.scan(body, start, pairs)[0]

    return advance


def _adaptively(ess_target: float, max_stages: int) -> Callable:
    """Through stages as long as they may be, until beta is 1."""
    if not 0 < ess_target < 1:
        raise ValueError(f"ess_target is a fraction of the particles, between 0 and 1; got {ess_target!r}")
    if not isinstance(max_stages, int) or max_stages < 1:
        raise ValueError(f"max_stages is a positive number of stages, not {max_stages!r}")

    def advance(step: Callable, log_weight: Callable, start: Particles) -> Particles:
        def body(carry):
            number, beta, now = carry
            log_weights = log_weight(now.states.trace)
            longest = _longest(now.cloud.log_weight, log_weights, 1 - beta, ess_target)
            after = jnp.maximum(
                beta + longest, jnp.nextafter(beta, jnp.ones_like(beta))
            )  # rounded, it is a step
            after = jnp.where((longest == 1 - beta) | (number == max_stages - 1), 1.0, after)
            return number + 1, after, step(beta, after, log_weights, now)

        carry = jnp.zeros((), jnp.int32), jnp.zeros((), float), start
        return ppl.loop(lambda carry: carry[1] < 1, body, carry, max_stages)[2]

    return advance


def _longest(weight: jax.Array, log_weight: jax.Array, most: jax.Array, target: float) -> jax.Array:
    """The largest step, at most ``most``, by which the effective sample size stays above the target.

    Members that lose all weight do so by the smallest step: the target is a fraction of what the others have. If no
    step is small enough, the smallest that was tried is taken.
    """

    def is_enough(step):
        return effective_share(weight + step * log_weight) >= target * alive

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = is_enough(middle)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    alive = effective_share(jnp.where(log_weight > -jnp.inf, weight, -jnp.inf))
    low, high = lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(most), most))
    return jnp.where(is_enough(most), most, jnp.where(low > 0, low, high))


def _ladder(temperatures: Sequence[float]) -> np.ndarray:
    betas = np.asarray(temperatures, float)
    if betas.ndim != 1 or not betas.size or not np.all(np.diff(betas, prepend=0.0) > 0) or betas[-1] != 1:
        raise ValueError(
            "temperatures are increasing numbers above 0 (they are inverse temperatures), the last of which is 1; got "
            f"{temperatures!r}"
        )
    return betas
