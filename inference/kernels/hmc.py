"""Hamiltonian Monte Carlo, with trajectories of a fixed length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...ppl import Selection
from .gradient_kernel import Place, Trajectory, gradient_kernel
from .kernel import Kernel
from .tuning import Tuner, Tuning


def hmc(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    num_steps: int = 10,
    step_size: float | None = None,
    inverse_mass: Any = None,
    dense: bool = False,
    target_acceptance: float = 0.8,
) -> Kernel:
    """The Hamiltonian Monte Carlo kernel: ``num_steps`` leapfrog steps from a random momentum, accepted or not.

    It moves continuous sites, given all others, over R^n: see :func:`ppl.unconstrain`. With x their position, p the
    momentum, drawn from N(0, M), and H(x, p) = -log_density(x) + p' inv(M) p / 2, the end y, q is accepted with
    probability min(1, exp(H(x, p) - H(y, q))). Other kernels may change other sites in between: join them by
    :func:`cycle`. Where the present position is not finite (a value on the edge of its support) nothing moves.

    Its randomness is a key, so it can be run but not enumerated. The integrator is BlackJAX's.

    Args:
      program: any program.
      sites: addresses, or a selection, of continuous sites; all sites if None.
      num_steps: of the integrator. A trajectory about as long as the target is wide is best; :func:`nuts` finds out.
      step_size: of the integrator, in units of the square root of ``inverse_mass``; None to learn it during the warmup
        of :func:`mcmc`. Before that it is n to the power of -1/4.
      inverse_mass: the inverse of M, ``[n]`` for a diagonal, or ``[n, n]``, with the coordinates in alphabetical order
        of their addresses: about the variances, or the covariance matrix, of the positions. None to learn it during
        the warmup; before that it is one.
      dense: whether a matrix is learnt, rather than a diagonal.
      target_acceptance: the acceptance rate that a learnt step size is to lead to. Higher is slower and follows sharp
        bends better.

    The memory of its states is a :class:`Tuning`, their info a :class:`Trajectory`.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n.

    Sources: Duane, Kennedy, Pendleton and Roweth, *Hybrid Monte Carlo*, Physics Letters B 195 (1987); Neal, *MCMC using
    Hamiltonian dynamics*, Handbook of Markov Chain Monte Carlo (2011).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Gamma(2.0, 1.0))
    >>> kernel = inference.hmc(model, step_size=0.3)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> state = ppl.seed(kernel)(jax.random.key(1), state)
    >>> bool(state.trace.choices["x"] > 0), int(state.info.num_steps)
    (True, 10)
    """
    return fixed_length(
        "hmc", program, sites, num_steps, Tuner(step_size, inverse_mass, dense, target_acceptance)
    )


def fixed_length(
    name: str,
    program: Callable,
    sites: Sequence[str] | Selection | None,
    num_steps: int,
    tuner: Tuner,
) -> Kernel:
    """The kernel of a given name whose trajectories have ``num_steps`` steps."""
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"a trajectory has a positive number of steps, not {num_steps!r}")

    def move(key, place: Place, log_density: Callable, tuning: Tuning):
        end, _, info = trajectory(key, place, log_density, tuning.step_size, tuning.inverse_mass, num_steps)
        return *end, tuning, info

    return gradient_kernel(name, program, sites, move, tuner)


def trajectory(
    key, place: Place, log_density: Callable, step_size: jax.Array, inverse_mass: jax.Array, num_steps
) -> tuple[tuple, tuple[jax.Array, jax.Array], Trajectory]:
    """A trajectory of ``num_steps``, which may be traced: where it leads, accepted or not; and what was proposed.

    Returns:
      ``(position, log_density, gradient)``; the position and the momentum that were proposed; and what there is to say.
    """
    from blackjax.mcmc import hmc, metrics

    start = hmc.HMCState(place.position, place.log_density, place.gradient)
    end, info = hmc.build_kernel()(key, start, log_density, step_size, inverse_mass, num_steps)
    kinetic = metrics.default_metric(inverse_mass).kinetic_energy(info.momentum)
    energy = jnp.where(info.is_accepted, info.energy, kinetic - start.logdensity)
    proposed = info.proposal.position, -info.proposal.momentum  # BlackJAX turns momenta at the end
    what = Trajectory(info.acceptance_rate, info.is_divergent, energy, num_steps, False, step_size)
    return tuple(end), proposed, what
