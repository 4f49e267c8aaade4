"""HMC with trajectories whose length many chains learn together, by the ChEES criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from ...ppl import Selection
from .gradient_kernel import Place, gradient_kernel
from .hmc import trajectory
from .kernel import Kernel
from .tuning_by_chees import ByChees, Length, Proposal


def chees(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    step_size: float | None = None,
    trajectory_length: float | None = None,
    inverse_mass: Any = None,
    target_acceptance: float = 0.651,
    max_steps: int = 1000,
) -> Kernel:
    """The ChEES kernel: :func:`hmc` with trajectories of a length that is learnt from all chains at once.

    A trajectory takes ``ceil(h * trajectory_length / step_size)`` leapfrog steps, with h the next number of a Halton
    sequence in (0, 1), the same for all chains: so that no length is as long as a period of the target, and no chain
    waits for another. In the warmup of :func:`mcmc` the length climbs the gradient of the criterion

        E[(|x' - E x'|^2 - |x - E x|^2)^2] / 4,

    which says how much a trajectory from x to x' tells of the target's width, estimated over the chains; the step size
    follows their acceptance rates, in harmonic mean, and their variances become the inverse mass. Learning takes two
    chains or more; with tens of them, and on devices that like large batches, it is often faster than :func:`nuts`. The
    criterion and its ascent are BlackJAX's.

    Args:
      program, sites: those of :func:`hmc`.
      step_size: of the integrator. None to learn it.
      trajectory_length: the step size times the most steps of a trajectory. None to learn it.
      inverse_mass: ``[n]``, about the variances of the coordinates, in alphabetical order of their addresses. None to
        learn it; before that it is one.
      target_acceptance: the acceptance rate that a learnt step size is to lead to.
      max_steps: the most leapfrog steps of a trajectory. A learnt length takes no more; one that is given is cut short,
        which the summary of the draws says.

    The memory of its states is a :class:`Length`, their info a :class:`Trajectory`.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n.
      ValueError: it is to learn from a single chain.

    Source: Hoffman, Radul and Sountsov, *An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
    Carlo*, AISTATS 2021.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0).expand([10]))
    >>> kernel = inference.chees(model, step_size=0.5, trajectory_length=1.5)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> int(ppl.seed(kernel)(jax.random.key(1), state).info.num_steps)
    2
    """
    from blackjax.mcmc.dynamic_hmc import halton_sequence

    learner = ByChees(step_size, trajectory_length, inverse_mass, target_acceptance, max_steps)

    def move(key, place: Place, log_density: Callable, memory: Length):
        share = halton_sequence(memory.number, 16)
        wanted = jnp.ceil(share * memory.trajectory_length / memory.step_size)
        steps = jnp.clip(wanted, 1, max_steps).astype(int)
        end, proposed, info = trajectory(
            key, place, log_density, memory.step_size, memory.inverse_mass, steps
        )
        info = replace(info, cut_short=wanted > max_steps)
        proposal = Proposal(place.position, *proposed, info.acceptance_rate, info.divergent, share)
        return *end, replace(memory, number=memory.number + 1, proposal=proposal), info

    return gradient_kernel("chees", program, sites, move, learner)
