"""Generalised HMC, whose momentum persists, with a damping that many chains learn together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ...ppl import Selection
from .gradient_kernel import Place, Trajectory, gradient_kernel
from .kernel import Kernel
from .tuning_by_meads import ByMeads, Damping

# As in BlackJAX: an energy that has grown by more than this is a sign that the integrator has lost its way.
_DIVERGENT = 1000.0


def meads(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    step_size: float | None = None,
    damping: float | None = None,
    inverse_mass: Any = None,
    num_folds: int = 4,
) -> Kernel:
    """The MEADS kernel: one leapfrog step with a momentum that persists, damped as all chains have learnt.

    A step is short, so that all chains do the same all the time; take ``thin`` of them for a draw. With x the position,
    p the momentum, in units of the square root of the mass, u in (-1, 1), h the step size and a = 1 - exp(-2 h
    damping), it

        draws some of the momentum anew,   p <- sqrt(1 - a) p + sqrt(a) noise;
        shifts the level,                  u <- u + a / 2, beyond 1 again from -1;
        takes a leapfrog step from (x, p) to (y, q), with r = exp(H(x, p) - H(y, q)): if |u| < r it goes there and
        u <- u / r; else it stays and turns, p <- -p.

    Target, normal momenta and uniform level are invariant together. That rejections come in clusters, by the slow shift
    of u, is what keeps the momentum going.

    In the warmup of :func:`mcmc` step size, damping and inverse mass are learnt from the positions and gradients of
    folds of chains: the step is to be about half as long as stability allows, the largest eigenvalue of the scaled
    gradients; the damping is to suit the widest direction, that of the scaled positions. Learning takes two chains in
    each fold, and tens of them to be good. The eigenvalues are BlackJAX's.

    Args:
      program, sites: those of :func:`hmc`.
      step_size: of the integrator. None to learn it.
      damping: the rate at which momentum is lost. None to learn it; before that it is one.
      inverse_mass: ``[n]``, about the variances of the coordinates, in alphabetical order of their addresses. None to
        learn it; before that it is one.
      num_folds: how many folds there are.

    The memory of its states is a :class:`Damping`, their info a :class:`Trajectory`, whose energy is NaN: with a
    momentum that persists it changes slowly by design, which says nothing of the target.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n.
      ValueError: the chains to learn from are not a multiple of ``num_folds``, or are fewer than two in each.

    Sources: Hoffman and Sountsov, *Tuning-free generalized Hamiltonian Monte Carlo*, AISTATS 2022; Horowitz, *A
    generalized guided Monte Carlo algorithm*, Physics Letters B 268 (1991); for u, Neal, *Non-reversibly updating a
    uniform [0, 1] value for Metropolis accept/reject decisions*, 2020.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([10]))
    >>> kernel = inference.meads(model, step_size=0.3)
    >>> start = ppl.simulate(model)(jax.random.key(0))
    >>> state = ppl.seed(kernel.init)(jax.random.key(1), start)
    >>> bool(ppl.seed(kernel)(jax.random.key(2), state).info.acceptance_rate > 0.5)
    True
    """

    from blackjax.mcmc.integrators import IntegratorState, velocity_verlet

    def move(key, place: Place, log_density: Callable, own: Damping):
        energy_of = lambda momentum: jnp.sum(momentum**2) / 2  # noqa: E731
        kinetic = lambda momentum, **_: jnp.sum(own.inverse_mass * momentum**2) / 2  # noqa: E731
        to_standard = jnp.sqrt(own.inverse_mass)

        fresh = 1 - jnp.exp(-2 * own.step_size * own.damping)
        noise = jax.random.normal(key, own.momentum.shape, own.momentum.dtype)
        momentum = jnp.sqrt(1 - fresh) * own.momentum + jnp.sqrt(fresh) * noise
        level = (own.level + 1 + fresh / 2) % 2 - 1

        start = IntegratorState(place.position, momentum / to_standard, place.log_density, place.gradient)
        end = velocity_verlet(log_density, kinetic)(start, own.step_size)
        proposed = to_standard * end.momentum
        before = energy_of(momentum) - start.logdensity
        after = energy_of(proposed) - end.logdensity
        log_ratio = jnp.where(jnp.isnan(before - after), -jnp.inf, before - after)
        accepted = jnp.abs(level) < jnp.exp(log_ratio)

        info = Trajectory(
            jnp.exp(jnp.minimum(log_ratio, 0.0)),
            log_ratio < -_DIVERGENT,
            jnp.nan,
            1,
            False,
            own.step_size,
        )
        momentum = jnp.where(accepted, proposed, -momentum)
        level = jnp.where(accepted, level * jnp.exp(-log_ratio), level)
        goes = lambda x, y: jnp.where(accepted, x, y)  # noqa: E731
        return (
            goes(end.position, start.position),
            goes(end.logdensity, start.logdensity),
            goes(end.logdensity_grad, start.logdensity_grad),
            replace(own, momentum=momentum, level=level),
            info,
        )

    return gradient_kernel(
        "meads", program, sites, move, ByMeads(step_size, damping, inverse_mass, num_folds)
    )
