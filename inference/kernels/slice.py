"""Slice sampling of continuous sites, one number at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ... import ppl
from ...ppl import Selection, Trace
from ...ppl.choices import Address
from ...ppl.staging import Staged, stage
from .kernel import Kernel, State
from .lebesgue import check_lebesgue
from .sweep import sweep


def slice(program: Callable, sites: Sequence[str] | Selection, width: float = 1.0, most: int = 16) -> Kernel:
    """The kernel that moves each number of some sites to a random place where the density is high enough.

    A height below the density is drawn, an interval of length ``width`` is put around the number at random and
    extended by ``width`` at a time until both ends are below that height, and points are drawn from it, shrinking it
    towards the number, until one is not. This loop has sites, so that the kernel can be run, but not enumerated. Under
    ``vmap`` it goes on until all chains are done. Each number takes several densities of the program.

    Args:
      program: any program.
      sites: addresses, or a selection, of continuous sites over R^n or a part of it with as many dimensions. Where a
        site is not present it stays.
      width: the length of an interval at first, positive: about that of a typical conditional distribution.
      most: how many times ``width`` an interval can be at most.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no density over R^n.

    Source: Neal, *Slice sampling*, Annals of Statistics 31 (2003), figures 3 and 5.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Gamma(2.0, 1.0))
    >>> kernel = inference.slice(model, ["x"])
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> bool(ppl.seed(kernel)(jax.random.key(1), state).trace.value > 0)
    True
    """
    if not width > 0:
        raise ValueError(f"the width of an interval is positive, not {width!r}")
    if not isinstance(most, int) or most < 1:
        raise ValueError(
            f"an interval is at most a positive number of times as long as its width, not {most!r}"
        )
    selection = sites if isinstance(sites, Selection) else ppl.select(*sites)

    def init(trace: Trace, *args) -> State:
        return State(trace)

    def draw(i, x, log_density, choices):
        return _draw(x, log_density, width, most)

    def step(state: State, *args) -> State:
        trace = state.trace
        with ppl.scope("slice"):
            for i, (address, shape) in enumerate(_continuous(stage(program, *args), selection).items()):
                with ppl.scope(str(i)):
                    trace = sweep(program, address, shape, draw)(trace, *args)
        return replace(state, trace=trace)

    return Kernel(program, init, step)


def _draw(x, log_density: Callable, width: float, most: int):
    """A point where the density is above a random height below that at ``x``; ``x`` itself if none is found."""
    height = log_density(x) + jnp.log(ppl.sample("height", dist.Uniform(0.0, 1.0)))
    height = jnp.where(jnp.isnan(height), -jnp.inf, height)
    low = x - ppl.sample("left", dist.Uniform(0.0, width)).astype(x.dtype)
    extensions = ppl.sample("extensions", dist.DiscreteUniform(0, most - 1))

    def is_inside(point):
        return log_density(point) > height

    def extended(end, by, times):
        def extends(carry):
            end, count = carry
            return (count < times) & is_inside(end)

        return lax.while_loop(extends, lambda carry: (carry[0] + by, carry[1] + 1), (end, 0))[0]

    def is_searching(carry):
        low, high, _, found = carry
        smallest = jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        return ~found & (high - low > smallest)

    def shrink(carry):
        low, high, _, _ = carry
        point = ppl.sample("point", dist.Uniform(low, high)).astype(x.dtype)
        return jnp.where(point < x, point, low), jnp.where(point < x, high, point), point, is_inside(point)

    bracket = extended(low, -width, extensions), extended(low + width, width, most - 1 - extensions)
    _, _, point, found = lax.while_loop(is_searching, shrink, (*bracket, x, jnp.array(False)))
    return jnp.where(found, point, x)


def _continuous(staged: Staged, selection: Selection) -> dict[Address, tuple[int, ...]]:
    """The selected addresses and the shapes of their values."""
    infos = staged.of_kind("sample")
    chosen = selection.among(info.address for info in infos)
    selected = [info for info in infos if info.address in chosen]
    for info in selected:
        check_lebesgue(info)
    return {info.address: info.shape for info in selected}
