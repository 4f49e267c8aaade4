"""fit: the parameters that maximise the expectation of an objective."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..arguments import Static, split
from ..checkpoint import kept_scan
from ..progress import Progress
from .ascent import Ascent, Place
from .fitted import Fit, stopped

if TYPE_CHECKING:
    import optax


def fit(
    objective: Callable,
    optimizer: optax.GradientTransformation,
    num_steps: int = 1000,
    *,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
    every: int = 100,
) -> Callable:
    """``(key, params, *args, state=None) -> Fit``: climbs ``E[objective(params, *args)]`` by stochastic gradients.

    At step i the optimizer is given minus the estimate of :func:`expectation_grad`, from a key that is made of i. If an
    estimate, or what the optimizer makes of it, is not finite, learning stops at the step before, with a warning.

    With ``state``, what the optimizer remembers of an earlier fit (``found.state``), it goes on from there.

    The whole of it is one compiled function of ``params`` and of the arrays in ``args``. Keep what ``fit`` returns, and
    call it again: nothing is compiled for another start, another key, or other data of the same shapes. It can be
    called in ``jit`` and ``vmap``, for fits from many starts side by side.

    Args:
      objective: ``(params, *args) -> real``, such as :func:`elbo`; ``params`` is a pytree of floating-point arrays.
      optimizer: optax's, for what is to be made small: ``optax.adam(1e-2)``.
      num_steps: how many steps are taken.
      progress: whether to show on stderr how far it is. JAX does not keep what it compiles for that on disk.
      checkpoint: a folder to keep the fit in, for one that may be killed: the same call with the same folder goes on
        from there, to what it would have found. The folder is one fit's: of an objective, arguments and a key.
      every: how many steps there are between checkpoints.

    Raises:
      TypeError, ValueError: the optimizer or a number is none, or ``state`` is of another optimizer.
      UnsupportedError: as :func:`expectation_grad`; the optimizer evaluates the objective itself, for a line search; or
        there is a checkpoint to be written, in ``jit`` or ``vmap``.
      CheckpointError: the folder has the checkpoints of another fit.

    Source: Robbins and Monro, *A stochastic approximation method*, Annals of Mathematical Statistics 22 (1951); for
    averages, Polyak and Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM Journal on Control and
    Optimization 30 (1992).

    >>> import optax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model(y):
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.observe("y", dist.Normal(x, 1.0), y)
    >>> guide = lambda params, y: ppl.sample("x", dist.Normal(params["loc"], jnp.exp(params["log_scale"])))
    >>> run = inference.fit(inference.elbo(model, guide), optax.adam(0.05), num_steps=1000)
    >>> found = run(jax.random.key(0), {"loc": 0.0, "log_scale": 0.0}, jnp.array(3.0))
    >>> print(f"{found.average['loc']:.1f}, {jnp.exp(found.average['log_scale']):.1f}")  # the posterior: 1.5, 0.7
    1.5, 0.7
    """
    _check(objective, optimizer, num_steps, every)
    ascent = Ascent(objective, optimizer, num_steps, Progress(num_steps, unit="steps") if progress else None)
    run = _at_once(ascent) if checkpoint is None else _in_parts(ascent, checkpoint, every)

    def fitted(key, params, *args, state=None) -> Fit:
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)
        static, arrays = split((params, state, *args))
        found = run(static, key, arrays)
        if not isinstance(found.steps, jax.core.Tracer):
            if progress:
                jax.effects_barrier()
            for warning in stopped(found):
                warnings.warn(warning, stacklevel=2)
        return found

    return fitted


def _at_once(ascent: Ascent) -> Callable:
    """``(static, key, arrays) -> Fit``, one compiled function."""

    @partial(jax.jit, static_argnums=0)
    def run(static: Static, key, arrays) -> Fit:
        params, state, *args = static.filled(arrays)
        (numbers,) = ascent.parts(ascent.num_steps)
        return ascent.found(*ascent.go_on(key, ascent.begin(params, state), numbers, args))

    return run


def _in_parts(ascent: Ascent, folder: str | os.PathLike, every: int) -> Callable:
    """``(static, key, arrays) -> Fit``, which keeps every part of it in a folder."""

    @partial(jax.jit, static_argnums=0)
    def begin(static: Static, key, arguments) -> Place:
        params, state, *_ = static.filled(arguments)
        return ascent.begin(params, state)

    @partial(jax.jit, static_argnums=0)
    def go_on(static: Static, place: Place, numbers, key, arguments):
        _, _, *args = static.filled(arguments)
        return ascent.go_on(key, place, numbers, args)

    def run(static: Static, key, arrays) -> Fit:
        about = {
            "options": f"{ascent.num_steps=} {every=}",
            "progress": ascent.report is not None,
            "static arguments": static,
        }
        given = {"key": key, "arguments": arrays}
        first, step = partial(begin, static), partial(go_on, static)
        place, values = kept_scan(folder, about, given, first, step, ascent.parts(every))
        return ascent.found(jax.tree.map(jnp.asarray, place), jnp.concatenate(values))

    return run


# ------------------------------------------------------------------------- arguments


def _check(objective: Callable, optimizer, num_steps: int, every: int) -> None:
    if not callable(objective):
        raise TypeError(
            f"fit takes an objective, (params, *args) -> real, such as inference.elbo(...): not {objective!r}"
        )
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"fit takes an optimizer of optax, such as optax.adam(1e-2), not {optimizer!r}")
    for name, number in {"num_steps": num_steps, "every": every}.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is a positive integer, not {number!r}")
