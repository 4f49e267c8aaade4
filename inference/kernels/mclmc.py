"""Microcanonical Langevin Monte Carlo, adjusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl import Selection, UnsupportedError
from .given_tuning import check_diagonal
from .gradient_kernel import Place, Trajectory, gradient_kernel
from .kernel import Kernel
from .tuning import Tuner, Tuning


def mclmc(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    num_steps: float = 2.0,
    step_size: float | None = None,
    inverse_mass: Any = None,
    target_acceptance: float = 0.65,
) -> Kernel:
    """The adjusted microcanonical kernel: trajectories of constant speed, accepted or not.

    The momentum is a direction u, drawn anew for each trajectory and turned by the gradient along the way, while the
    position x moves at unit speed (in units of the square root of ``inverse_mass``): with P the projection that takes
    away the part along u, and n the number of coordinates,

        dx/dt = u,    du/dt = P grad log_density(x) / (n - 1).

    The end is accepted with the probability that undoes the error of the integrator, so that the target is kept: the
    method without this step is biased, and is not offered. A trajectory has a random number of steps, so that none is
    as long as a period of the target. On targets of many coordinates it is often faster than :func:`nuts`.

    Its randomness is a key, so it can be run but not enumerated. The integrator is BlackJAX's.

    Args:
      program: any program.
      sites: addresses, or a selection, of continuous sites with two coordinates or more in all; all sites if None.
      num_steps: how many steps of the integrator a trajectory has on average, at least 1.
      step_size: of the integrator: how far a step goes, in all coordinates together. None to learn it during the
        warmup of :func:`mcmc`.
      inverse_mass: ``[n]``, about the variances of the coordinates, in alphabetical order of their addresses. None to
        learn it during the warmup; before that it is one.
      target_acceptance: the acceptance rate that a learnt step size is to lead to.

    The memory of its states is a :class:`Tuning`, their info a :class:`Trajectory`, whose energy is NaN: none is drawn.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n; there is only one coordinate, so that there
        is no direction to turn to.

    Source: Robnik, De Luca, Silverstein and Seljak, *Microcanonical Hamiltonian Monte Carlo*, JMLR 24 (2023); Robnik,
    Cohn-Gordon and Seljak, *Metropolis adjusted microcanonical Hamiltonian Monte Carlo*, 2025.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([10]))
    >>> kernel = inference.mclmc(model, step_size=1.0)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> bool(ppl.seed(kernel)(jax.random.key(1), state).info.acceptance_rate > 0.5)
    True
    """
    from blackjax.mcmc import adjusted_mclmc_dynamic as mhmchmc

    if not np.ndim(num_steps) == 0 or not 1 <= num_steps < np.inf:
        raise ValueError(f"a trajectory has at least one step on average, not {num_steps!r}")
    check_diagonal(inverse_mass, "mclmc")
    step = mhmchmc.build_kernel(mhmchmc.make_random_trajectory_length_fn(True))

    def move(key, place: Place, log_density: Callable, tuning: Tuning):
        if len(place.position) == 1:
            raise UnsupportedError(
                "the sites that mclmc moves have one coordinate in all, where there is no direction to turn to: write "
                "inference.nuts"
            )
        key, length_key = jax.random.split(key)
        start = mhmchmc.DynamicHMCState(place.position, place.log_density, place.gradient, length_key)
        mass = {"inverse_mass_matrix": tuning.inverse_mass, "integration_steps_params": (num_steps,)}
        end, info = step(key, start, log_density, tuning.step_size, **mass)
        trajectory = Trajectory(
            info.acceptance_rate,
            info.is_divergent,
            jnp.nan,
            info.num_integration_steps,
            False,
            tuning.step_size,
        )
        return end.position, end.logdensity, end.logdensity_grad, tuning, trajectory

    tuner = Tuner(step_size, inverse_mass, False, target_acceptance)
    return gradient_kernel("mclmc", program, sites, move, tuner)
