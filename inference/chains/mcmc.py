"""mcmc: chains of a kernel, run side by side."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from ...ppl import Trace
from ..arguments import Static, split
from ..checkpoint import kept_scan
from ..kernels.kernel import Kernel, State
from ..progress import Progress
from .chain import Chains, Slots
from .concerns import bad_starts
from .devices import Devices
from .draws import Draws


def mcmc(
    kernel: Kernel,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    thin: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
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
      devices: which the chains are spread over, as many on each; ``jax.devices()`` for all that there are, None for the
        one that JAX takes. Each device runs its chains without waiting for the others, but where kernels adapt
        together. The draws are the same, up to rounding, and stay where they were made.
      progress: whether to show on stderr how far it is. JAX does not keep what it compiles for that on disk.
      checkpoint: a folder to keep the draws in, for a run that may be killed: the same call with the same folder goes
        on from there, to the draws that it would have had. The folder is one run's: of a program, arguments and a key.
        (Without one, the whole is compiled in another way, and rounds differently.)
      every: how many draws (or steps of the warmup, times ``thin``) there are between checkpoints.

    Raises:
      TypeError, ValueError: the kernel or a number is none.
      ValueError: ``init`` has no leading axis of ``num_chains``; these are not a multiple of the devices, or not of
        what a kernel takes that adapts together.
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
    spread = Devices.among(devices, num_chains)
    chains = Chains(kernel, num_samples, num_warmup, thin, spread, report)
    run = (
        _at_once(chains, num_chains)
        if checkpoint is None
        else _in_parts(chains, num_chains, checkpoint, every)
    )

    def sampled(key, *args, init: Trace | None = None) -> Draws:
        if init is not None:
            _check_init(init, num_chains)
        static, arrays = split(args)
        draws = run(static, *spread.everywhere((key, init, arrays)))
        if not isinstance(draws.started, jax.core.Tracer):
            if progress:
                jax.effects_barrier()
            for warning in bad_starts(draws.started):
                warnings.warn(warning, stacklevel=2)
        return draws

    return sampled


def _at_once(chains: Chains, num_chains: int) -> Callable:
    """``(static, key, init, arrays) -> Draws``, one compiled function."""

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, key, init, arrays) -> Draws:
        def whole(own, arrays):
            keys, init = own
            args = static.filled(arrays)
            states, started = chains.begin(keys, init, args)
            return *chains.go_on(keys, states, chains.slots, args), started

        keys = jax.random.split(key, num_chains)
        states, (traces, infos), started = chains.devices.spread(whole)((keys, init), arrays)
        return _draws(states, traces, infos, started)

    return run


def _in_parts(chains: Chains, num_chains: int, folder: str | os.PathLike, every: int) -> Callable:
    """``(static, key, init, arrays) -> Draws``, which keeps every part of them in a folder."""

    @partial(jax.jit, static_argnums=0)
    def begin(static: Static, key, arguments):
        init, arrays = arguments
        begun = lambda own, arrays: chains.begin(*own, static.filled(arrays))  # noqa: E731
        return chains.devices.spread(begun)((jax.random.split(key, num_chains), init), arrays)

    @partial(jax.jit, static_argnums=0)
    def go_on(static: Static, carry, slots: Slots, key, arguments):
        def part(own, given):
            arrays, slots = given
            return chains.go_on(*own, slots, static.filled(arrays))

        (states, started), (_, arrays) = carry, arguments
        own = jax.random.split(key, num_chains), states
        states, drawn = chains.devices.spread(part)(own, (arrays, slots))
        return (states, started), drawn

    def run(static: Static, key, init, arrays) -> Draws:
        slots, counts = zip(*chains.parts(every))
        about = {
            "options": f"{chains.num_samples=} {chains.num_warmup=} {chains.thin=} {num_chains=} {every=}",
            "devices": chains.devices.count,
            "progress": chains.report is not None,
            "static arguments": static,
        }
        given = {"key": key, "arguments": (init, arrays)}
        first, step = partial(begin, static), partial(go_on, static)
        (state, started), drawn = kept_scan(folder, about, given, first, step, slots)
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
