"""mcmc: chains of a kernel, run side by side."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from ..ppl import Trace, UnsupportedError
from .arguments import Static, split
from .chain import Chain, Slots
from .checkpoint import hashed, kept_scan
from .concerns import bad_starts
from .draws import Draws
from .kernel import Kernel, State
from .progress import Progress


def mcmc(
    kernel: Kernel,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    thin: int = 1,
    *,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
    every: int = 100,
) -> Callable:
    """``(key, *args, init=None) -> Draws``: chains of a kernel, after a warmup in which it adapts.

    Each chain has a key of its own and starts at one of ten runs of the kernel's program, picked by weight. While the
    densities of all of them are zero or not finite, more are drawn, up to a hundred; a chain that has found nothing
    better by then is warned about. With ``init``, traces with a leading axis of ``num_chains``, chains start there
    instead.

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
      progress: whether to show on stderr how far it is. JAX does not keep what it compiles for that on disk.
      checkpoint: a folder to keep the draws in, for a run that may be killed: the same call with the same folder goes
        on from there, to the draws that it would have had. The folder is one run's: of a program, arguments and a key.
        (Without one, the whole is compiled in another way, and rounds differently.)
      every: how many draws (or steps of the warmup, times ``thin``) there are between checkpoints.

    Raises:
      TypeError, ValueError: the kernel or a number is none.
      ValueError: ``init`` has no leading axis of ``num_chains``.
      CheckpointError: the folder has the checkpoints of another run.
      UnsupportedError: there is a checkpoint to be written, in ``jit`` or ``vmap``.

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
    _check(kernel, num_samples, num_warmup, num_chains, thin, every)
    total = num_warmup + num_samples * thin
    report = Progress(total, num_warmup) if progress else None
    chain = Chain(kernel, num_samples, num_warmup, thin, report)
    run = (
        _at_once(chain, num_chains) if checkpoint is None else _in_parts(chain, num_chains, checkpoint, every)
    )

    def sampled(key, *args, init: Trace | None = None) -> Draws:
        if init is not None:
            _check_init(init, num_chains)
        static, arrays = split(args)
        draws = run(static, key, init, arrays)
        if not isinstance(draws.started, jax.core.Tracer):
            if progress:
                jax.effects_barrier()
            for warning in bad_starts(draws.started):
                warnings.warn(warning, stacklevel=2)
        return draws

    return sampled


def _at_once(chain: Chain, num_chains: int) -> Callable:
    """``(static, key, init, arrays) -> Draws``, one compiled function."""

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, key, init, arrays) -> Draws:
        args = static.filled(arrays)

        def one(key, init):
            state, started = chain.begin(key, init, args)
            return *chain.go_on(key, state, chain.slots, args), started

        state, (traces, infos), started = jax.vmap(one)(jax.random.split(key, num_chains), init)
        return _draws(state, traces, infos, started)

    return run


def _in_parts(chain: Chain, num_chains: int, folder: str | os.PathLike, every: int) -> Callable:
    """``(static, key, init, arrays) -> Draws``, which keeps every part of them in a folder."""

    @partial(jax.jit, static_argnums=0)
    def begin(static: Static, key, init, arrays):
        start = lambda key, init: chain.begin(key, init, static.filled(arrays))  # noqa: E731
        return jax.vmap(start)(jax.random.split(key, num_chains), init)

    @partial(jax.jit, static_argnums=0)
    def go_on(static: Static, key, arrays, carry, slots: Slots):
        state, started = carry
        step = lambda key, state: chain.go_on(key, state, slots, static.filled(arrays))  # noqa: E731
        state, drawn = jax.vmap(step)(jax.random.split(key, num_chains), state)
        return (state, started), drawn

    def run(static: Static, key, init, arrays) -> Draws:
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((key, init, arrays))):
            raise UnsupportedError(
                "a run that writes checkpoints cannot be compiled: call it outside jit and vmap"
            )
        slots, counts = zip(*chain.parts(every))
        first = partial(begin, static, key, init, arrays)
        step = partial(go_on, static, key, arrays)
        about = {
            "options": f"{chain.num_samples=} {chain.num_warmup=} {chain.thin=} {num_chains=} {every=}",
            "progress": str(chain.report is not None),
            "key": hashed(key),
            "arguments": hashed((arrays, init)),
            "JAX": f"{jax.__version__} on {jax.default_backend()}",
        }
        (state, started), drawn = kept_scan(folder, about, first, step, slots)
        kept = [jax.tree.map(lambda x: x[:, :n], part) for part, n in zip(drawn, counts)]
        traces, infos = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *kept)
        return _draws(*jax.tree.map(jnp.asarray, (state, traces, infos, started)))

    return run


def _draws(state: State, traces: Trace, infos, started) -> Draws:
    return Draws(
        traces.value,
        traces.choices,
        traces.deterministic,
        traces.log_density,
        infos,
        started,
        replace(state, trace=jax.tree.map(lambda x: x[:, -1], traces)),
    )


# ------------------------------------------------------------------------- arguments


def _check(kernel: Kernel, num_samples: int, num_warmup: int, num_chains: int, thin: int, every: int) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"mcmc takes a kernel, such as inference.nuts(program), not {kernel!r}")
    numbers = {"num_samples": num_samples, "num_chains": num_chains, "thin": thin, "every": every}
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
