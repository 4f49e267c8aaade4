"""mcmc: chains of a kernel, run side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import ppl
from ..ppl import Trace
from .concerns import bad_starts
from .draws import Draws
from .kernel import Kernel, Stage, State
from .start import start


def mcmc(
    kernel: Kernel, num_samples: int = 1000, num_warmup: int = 1000, num_chains: int = 4, thin: int = 1
) -> Callable:
    """``(key, *args, init=None) -> Draws``: chains of a kernel, after a warmup in which it adapts.

    Each chain has a key of its own and starts at a run of the kernel's program. Where the density of that is zero or
    not finite, another is drawn, up to a hundred; a chain that has found nothing better by then is warned about. With
    ``init``, traces with a leading axis of ``num_chains``, chains start there instead.

    The whole of it is one compiled function of the arrays in ``args``. Keep what ``mcmc`` returns, and call it again:
    nothing is compiled for other keys, or for other data of the same shapes. It can be called in ``jit`` and ``vmap``.

    Args:
      kernel: see :func:`nuts`, :func:`mh`, :func:`gibbs`, :func:`cycle`.
      num_samples: how many draws each chain keeps.
      num_warmup: how many steps are taken before that and forgotten. In them, and in them only, the kernel adapts, on
        the schedule of Stan: a tenth or so for the step size alone, then windows that double in length, then the step
        size again.
      num_chains: how many chains there are.
      thin: how many steps there are from draw to draw.

    Raises:
      TypeError, ValueError: the kernel or a number is none.
      ValueError: ``init`` has no leading axis of ``num_chains``.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin(heads):
    ...     bias = ppl.sample("bias", dist.Beta(1.0, 1.0))
    ...     ppl.observe("heads", dist.Binomial(10, bias), heads)
    ...     return bias
    >>> run = inference.mcmc(inference.nuts(coin), num_samples=500, num_warmup=300)
    >>> draws = run(jax.random.key(0), jnp.array(7))
    >>> draws.value.shape
    (4, 500)
    >>> bool(abs(draws.value.mean() - 8 / 12) < 0.02)
    True
    """
    _check(kernel, num_samples, num_warmup, num_chains, thin)
    chain = partial(_chain, kernel, num_samples, num_warmup, thin)

    @partial(jax.jit, static_argnums=0)
    def run(static: _Static, key, init, arrays) -> Draws:
        keys = jax.random.split(key, num_chains)
        return jax.vmap(lambda key, init: chain(key, init, static.filled(arrays)))(keys, init)

    def sampled(key, *args, init: Trace | None = None) -> Draws:
        if init is not None:
            _check_init(init, num_chains)
        draws = run(*_split(key, init, args))
        if not isinstance(draws.started, jax.core.Tracer):
            for warning in bad_starts(draws.started):
                warnings.warn(warning, stacklevel=2)
        return draws

    return sampled


def _chain(kernel: Kernel, num_samples: int, num_warmup: int, thin: int, key, init, args: tuple) -> Draws:
    """One chain. Warmup and draws are one loop, so that a step is compiled once."""
    start_key, init_key, key = jax.random.split(key, 3)
    if init is None:
        trace = start(kernel.program)(start_key, *args)
    else:
        trace = ppl.seed(ppl.update(kernel.program))(start_key, init, *args).trace
    state = ppl.seed(kernel.init)(init_key, trace, *args)
    step = ppl.seed(kernel)
    stages = _schedule(num_warmup)

    def advance(number, state: State) -> State:
        state = step(jax.random.fold_in(key, number), state, *args)
        if kernel.adapt is None or not num_warmup:
            return state
        stage = jax.tree.map(lambda x: x[number], stages)
        is_warmup = number < num_warmup
        memory = lax.cond(is_warmup, kernel.adapt, lambda memory, _: memory, state.memory, stage)
        return replace(state, memory=memory)

    def draw(state: State, number):
        begin = jnp.where(number == 0, 0, num_warmup + number * thin)
        state = lax.fori_loop(begin, num_warmup + (number + 1) * thin, advance, state)
        return state, (state.trace, state.info)

    state, (traces, infos) = lax.scan(draw, state, jnp.arange(num_samples))
    return Draws(
        traces.value,
        traces.choices,
        traces.deterministic,
        traces.log_density,
        infos,
        jnp.isfinite(trace.log_density),
        state,
    )


def _schedule(num_warmup: int) -> Stage:
    """The stages of a warmup, each with an axis of its steps."""
    from blackjax.adaptation.window_adaptation import build_schedule

    in_window, ends_window = jnp.asarray(build_schedule(num_warmup)).reshape(num_warmup, 2).T
    return Stage(in_window == 1, ends_window == 1, jnp.arange(num_warmup) == num_warmup - 1)


# ------------------------------------------------------------------------- arguments


@dataclass(frozen=True)
class _Static:
    """Arguments without their arrays: what a compiled function is for."""

    tree: Any
    leaves: tuple[tuple[type, Any] | None, ...]  # with their types, as 1 == 1.0 == True

    def filled(self, arrays) -> tuple:
        it = iter(arrays)
        return jax.tree.unflatten(self.tree, [next(it) if x is None else x[1] for x in self.leaves])


def _split(key, init, args: tuple) -> tuple:
    leaves, tree = jax.tree.flatten(args)
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    static = _Static(tree, tuple(None if a else (type(x), x) for a, x in zip(is_array, leaves)))
    return static, key, init, [leaf for a, leaf in zip(is_array, leaves) if a]


def _check(kernel: Kernel, num_samples: int, num_warmup: int, num_chains: int, thin: int) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"mcmc takes a kernel, such as inference.nuts(program), not {kernel!r}")
    numbers = {"num_samples": num_samples, "num_chains": num_chains, "thin": thin}
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is a positive integer, not {number!r}")
    if not isinstance(num_warmup, int) or num_warmup < 0:
        raise ValueError(f"num_warmup is an integer, not negative, and not {num_warmup!r}")


def _check_init(init: Trace, num_chains: int) -> None:
    if not isinstance(init, Trace):
        raise TypeError(f"init is a ppl.Trace with a leading axis of {num_chains} chains, not {init!r}")
    if jnp.shape(init.log_density) != (num_chains,):
        raise ValueError(
            f"init holds the traces that {num_chains} chains start from, with a leading axis of that size; its log "
            f"density has the shape {jnp.shape(init.log_density)}"
        )
