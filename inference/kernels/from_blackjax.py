"""A sampling algorithm of BlackJAX, or one made like it, as a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ... import ppl
from ...ppl import Selection, Trace
from ...ppl.random_key import RandomKey
from .free_sites import FreeSites, free_sites, selected
from .kernel import Kernel, Loop, State, once


def from_blackjax(
    program: Callable, make: Callable, sites: Sequence[str] | Selection | None = None
) -> Kernel:
    """The kernel that moves continuous sites, given all others, by an algorithm of BlackJAX.

    Positions are nested dicts in R^n; see :func:`ppl.unconstrain`. The kernel keeps the target if the algorithm does:
    what is unadjusted or wrong there is so here, and :func:`~borelax.semantics.leaves_invariant` says so. Steps in a
    row (in :func:`mcmc` and :func:`repeat`) are those of the algorithm's own state. Where another kernel moves in
    between, it starts anew from its ``init`` at each step. So whatever is in its state besides the position has to be
    computed from that there, or drawn from its law given that.

    Its randomness is a key, so it can be run but not enumerated.

    Args:
      program: any program.
      make: ``log_density -> algorithm``. The algorithm has ``init(position, rng_key) -> state`` and
        ``step(rng_key, state) -> (state, info)``; the states have a ``position``.
      sites: addresses, or a selection, of continuous sites; all sites if None.

    The info of its states is that of the algorithm: zero before the first step.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n.

    >>> import blackjax, jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Gamma(2.0, 1.0))
    >>> kernel = inference.from_blackjax(model, lambda log_density: blackjax.mala(log_density, 0.5))
    >>> draws = inference.mcmc(kernel, num_samples=500, num_warmup=100)(jax.random.key(0))
    >>> bool(jnp.abs(draws.value.mean() - 2.0) < 0.3)
    True
    """
    sites = selected(sites)

    def algorithm_at(trace: Trace, args: tuple) -> tuple[FreeSites, Any]:
        free = free_sites("blackjax", program, sites, trace, args)
        return free, make(jax.jit(free.log_density))

    def init(trace: Trace, *args) -> State:
        free, algorithm = algorithm_at(trace, args)

        def step(key, position):
            return algorithm.step(key, algorithm.init(position, key))[1]

        info = jax.eval_shape(step, jax.random.key(0), free.shapes)
        return State(trace, info=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info))

    def enter(trace: Trace, *args) -> _Place:
        free, algorithm = algorithm_at(trace, args)
        with ppl.scope("blackjax"):
            key = ppl.sample("init_key", RandomKey())
        own = jax.tree.map(jnp.asarray, algorithm.init(free.position, key))
        return _Place(own, trace, jnp.array(False))

    def step(state: State, *args) -> State:
        before = state.trace
        _, algorithm = algorithm_at(before.origin, args)
        with ppl.scope("blackjax"):
            key = ppl.sample("key", RandomKey())
        own, info = algorithm.step(key, before.own)
        # A step to nowhere is not taken.
        finite = jnp.all(jnp.isfinite(_flat(own)))
        moved = before.moved | jnp.any(_flat(own) != _flat(before.own))
        after = jax.tree.map(
            lambda x, y: jnp.where(finite, x, y).astype(y.dtype), _Place(own, before.origin, moved), before
        )
        return State(
            after, state.memory, jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), info, state.info)
        )

    def leave(place: _Place, *args) -> Trace:
        free = free_sites("blackjax", program, sites, place.origin, args)
        with ppl.scope("blackjax"), ppl.scope("program"):
            return free.moved_if(place.moved, place.own.position)

    loop = Loop(enter, step, leave)
    return Kernel(program, init, once(loop), loop=loop)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Place:
    """The algorithm's own state, the trace that it began at, and whether the position is another one by now."""

    own: Any
    origin: Trace
    moved: jax.Array


def _flat(own) -> jax.Array:
    return ravel_pytree(own.position)[0]
