"""Parallel tempering: chains at several temperatures that change places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ... import ppl
from ...ppl import Trace
from ...semantics.target import trace_at
from ..particles.tempered import tempered
from .kernel import Kernel, Loop, Stage, State, once
from .metropolis import acceptance_probability

HOTTER = "hotter"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Exchange:
    """What a step of parallel tempering says of itself: the ``info`` of its state.

    Attributes:
      probability: ``[K - 1]``, with which the chains at neighbouring temperatures were to change places; zero for the
        pairs whose turn it was not.
      exchanged: ``[K - 1]``, whether they did.
      kernel: the info of the kernel at temperature 1.
    """

    probability: jax.Array
    exchanged: jax.Array
    kernel: Any


def parallel_tempering(program: Callable, make: Callable, inverse_temperatures: Sequence[float]) -> Kernel:
    """The kernel that moves a chain at each temperature, and lets neighbours change places.

    At the inverse temperature b the target is that of :func:`tempered`: q(x) w(x) ** b, with q the density of what the
    program's sites draw and w its weight. A step moves the chain at each b by a kernel for that target. Then the first
    and second, third and fourth chains, and so on, change places, or the second and third, and so on, in turn: x at
    b and y at c do with probability

        min(1, (w(y) / w(x)) ** (b - c)).

    So chains that are free to move bring what they find to the chain at 1. The target of the kernel is a program, too:
    the product of them all, of which :func:`mcmc` draws. Its own sites and value are those of ``program``, with the
    posterior of ``program`` as their law; those of the other chains are below the address "hotter", with a leading axis
    ``[K - 1]``. Its log density is that of all chains together.

    Args:
      program: any program.
      make: ``tempered program -> kernel``, such as ``inference.nuts``: for the program ``(b, *args)`` whose measure is
        that of ``program`` at ``b``. Each chain has a memory of its own, and learns on its own (or with those at the
        same temperature, as in :func:`chees`).
      inverse_temperatures: numbers ``[K]`` from 0 (or more) up to 1, increasing.

    The info of its states is an :class:`Exchange`. Pairs should be exchanged a fifth of the times or more: put more
    temperatures where they are not.

    Raises:
      TypeError: ``make`` returns no kernel, or one for another program.
      ValueError: the inverse temperatures do not increase from 0 or more to 1, or are fewer than two.

    Source: Geyer, *Markov chain Monte Carlo maximum likelihood*, Interface (1991); taking turns: Syed, Bouchard-Côté,
    Deligiannidis and Doucet, *Non-reversible parallel tempering*, JRSS B 84 (2022).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def two_modes():
    ...     x = ppl.sample("x", dist.Normal(0.0, 5.0))
    ...     ppl.factor(-8.0 * (jnp.abs(x) - 4.0) ** 2)
    ...     return x > 0
    >>> kernel = inference.parallel_tempering(two_modes, inference.nuts, [0.0, 0.03, 0.2, 1.0])
    >>> draws = inference.mcmc(kernel, num_samples=1000, num_warmup=200)(jax.random.key(0))
    >>> bool(jnp.abs(draws.value.mean() - 0.5) < 0.1)
    True
    """
    betas = _checked(inverse_temperatures)
    at = tempered(program)
    kernel = make(at)
    if not isinstance(kernel, Kernel) or kernel.program is not at:
        raise TypeError(f"make returns a kernel for the tempered program that it is given, not {kernel!r}")

    def each(function: Callable, *stacked, args: tuple):
        """``function(*own, beta, *args)`` for each chain, whose own values have a leading axis."""
        return jax.vmap(lambda beta, own: function(*own, beta, *args))(jnp.asarray(betas, float), stacked)

    def init(trace: Trace, *args) -> State:
        states = each(kernel.init, enter(trace, *args), args=args)
        pairs = len(betas) - 1
        info = Exchange(jnp.zeros(pairs, float), jnp.zeros(pairs, bool), _last(states.info))
        return State(trace, Ladder(states.memory, states.info, jnp.array(False)), info)

    def enter(trace: Trace, *args) -> Trace:
        return _split(at, betas, trace, args)

    def step(state: State, *args) -> State:
        own = state.memory
        with ppl.scope("parallel_tempering"):
            moved = each(kernel, State(state.trace, own.memory, own.info), args=args)
            with ppl.scope("exchange"):
                traces, probability, exchanged = _exchange(at, betas, moved.trace, own.odd, args)
        memory = Ladder(moved.memory, moved.info, ~own.odd)
        return State(traces, memory, Exchange(probability, exchanged, _last(moved.info)))

    def adapt(memory: Ladder, stage: Stage) -> Ladder:
        return replace(memory, memory=jax.vmap(lambda own: kernel.adapt(own, stage))(memory.memory))

    def adapt_together(memory: Ladder, stage: Stage) -> Ladder:
        of_one = lambda own: kernel.adapt_together(own, stage)  # noqa: E731
        return replace(memory, memory=jax.vmap(of_one, 1, 1)(memory.memory))

    loop = Loop(enter, step, _join)
    alone = None if kernel.adapt is None else adapt
    together = None if kernel.adapt_together is None else adapt_together
    return Kernel(_ladder(program, betas[:-1]), init, once(loop), alone, loop, together)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ladder:
    """The memory of parallel tempering.

    Attributes:
      memory, info: those of the kernel at each temperature, ``[K]``.
      odd: whether it is the second and third chains that may change places next, and so on.
    """

    memory: Any
    info: Any
    odd: jax.Array


def _exchange(at: Callable, betas: np.ndarray, traces: Trace, odd, args: tuple):
    """Traces ``[K]`` after neighbours have changed places or not, and with what probability each pair did."""
    number = len(betas)
    pairs = 2 * jnp.arange(number // 2) + odd  # the lower chain of each
    there = pairs + 1 < number
    partner = jnp.arange(number)
    partner = partner.at[jnp.where(there, pairs, number)].add(1, mode="drop")
    partner = partner.at[jnp.where(there, pairs + 1, number)].add(-1, mode="drop")
    other = jnp.asarray(betas, float)[partner]
    with ppl.scope("program"):
        new = jax.vmap(lambda beta, trace: ppl.update(at)(trace, beta, *args).trace)(other, traces)
    lower, upper = jnp.minimum(pairs, number - 1), jnp.minimum(pairs + 1, number - 1)
    before = traces.log_density[lower] + traces.log_density[upper]
    after = new.log_density[lower] + new.log_density[upper]
    probability = jnp.where(there, acceptance_probability(after - before, before, after), 0.0)
    accepted = ppl.sample("accept", dist.Bernoulli(probability)) == 1
    exchanged = jnp.zeros(number - 1, bool).at[pairs].set(accepted, mode="drop")
    probabilities = jnp.zeros(number - 1).at[pairs].set(probability, mode="drop")
    goes = jnp.append(exchanged, False) | jnp.append(False, exchanged)

    def choose(x, y):
        return jnp.where(goes.reshape(-1, *[1] * (x.ndim - 1)), x[partner], y)

    return jax.tree.map(choose, new, traces), probabilities, exchanged


# ------------------------------------------------------------------------- one trace of all chains


def _ladder(program: Callable, hotter: np.ndarray) -> Callable:
    """The program, beside itself at other temperatures."""
    at = tempered(program)

    def ladder(*args):
        with ppl.scope(HOTTER):
            jax.vmap(lambda beta: at(beta, *args))(jnp.asarray(hotter, float))
        return program(*args)

    return ladder


def _split(at: Callable, betas: np.ndarray, trace: Trace, args: tuple) -> Trace:
    """The traces of the chains, ``[K]``, the one at temperature 1 last."""
    cold = {address: x for address, x in trace.choices.items() if address != HOTTER}
    hot = trace.choices.get(HOTTER, {})
    choices = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), hot, cold)
    with ppl.scope("program"):
        return jax.vmap(lambda beta, own: trace_at(at, own, beta, *args))(jnp.asarray(betas, float), choices)


def _join(traces: Trace, *args) -> Trace:
    """One trace of traces ``[K]``."""
    cold = _last(traces)
    hot = jax.tree.map(lambda x: x[:-1], traces)
    deterministic = {**cold.deterministic, HOTTER: hot.deterministic} if hot.deterministic else {}
    choices = {**cold.choices, HOTTER: hot.choices} if hot.choices else {}
    log_density, log_weight = (jnp.sum(x) for x in (traces.log_density, traces.log_weight))
    return Trace(cold.value, choices, log_density, log_weight, deterministic)


def _last(tree):
    return jax.tree.map(lambda x: x[-1], tree)


def _checked(inverse_temperatures: Sequence[float]) -> np.ndarray:
    betas = np.asarray(inverse_temperatures, float)
    if betas.ndim != 1 or len(betas) < 2 or betas[0] < 0 or betas[-1] != 1 or not np.all(np.diff(betas) > 0):
        raise ValueError(
            "inverse temperatures are two or more numbers that increase, from 0 or more up to 1, not "
            f"{inverse_temperatures!r}"
        )
    return betas
