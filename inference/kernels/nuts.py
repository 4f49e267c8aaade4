"""The No-U-Turn sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ppl import Selection
from .gradient_kernel import Place, Trajectory, gradient_kernel
from .kernel import Kernel
from .tuning import Tuner, Tuning


def nuts(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    step_size: float | None = None,
    inverse_mass: Any = None,
    dense: bool = False,
    target_acceptance: float = 0.8,
    max_doublings: int = 10,
) -> Kernel:
    """The No-U-Turn kernel: :func:`hmc` with trajectories that double in length until they turn back.

    A point of the trajectory is drawn, in proportion to exp(-H) and with a bias towards the end. The arguments are
    those of :func:`hmc`; under ``vmap`` all chains take as many steps as the one that takes most. The kernel is
    BlackJAX's.

    Args:
      max_doublings: how many times a trajectory doubles at most: it has up to ``2 ** max_doublings - 1`` steps.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is discrete, or has no smooth map from R^n.

    Sources: Hoffman and Gelman, *The No-U-Turn Sampler*, JMLR 15 (2014); Betancourt, *A conceptual introduction to
    Hamiltonian Monte Carlo*, 2017, appendix A; Phan, Pradhan and Jankowiak, *Composable effects for flexible and
    accelerated probabilistic programming in NumPyro*, 2019.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model(y):
    ...     scale = ppl.sample("scale", dist.HalfNormal(1.0))
    ...     ppl.observe("y", dist.Normal(0.0, scale), y)
    >>> y = jax.numpy.array(2.0)
    >>> kernel = inference.nuts(model, step_size=0.5)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0), y), y)
    >>> state = ppl.seed(kernel)(jax.random.key(1), state, y)
    >>> bool(state.info.divergent)
    False
    """
    from blackjax.mcmc import hmc
    from blackjax.mcmc import nuts as blackjax_nuts

    if not isinstance(max_doublings, int) or max_doublings < 1:
        raise ValueError(f"a trajectory doubles at most a positive number of times, not {max_doublings!r}")
    step = blackjax_nuts.build_kernel()

    def move(key, place: Place, log_density: Callable, tuning: Tuning):
        start = hmc.HMCState(place.position, place.log_density, place.gradient)
        end, info = step(key, start, log_density, tuning.step_size, tuning.inverse_mass, max_doublings)
        complete = info.is_divergent | info.is_turning
        trajectory = Trajectory(
            info.acceptance_rate,
            info.is_divergent,
            info.energy,
            info.num_integration_steps,
            ~complete,
            tuning.step_size,
        )
        return *end, tuning, trajectory

    tuner = Tuner(step_size, inverse_mass, dense, target_acceptance)
    return gradient_kernel("nuts", program, sites, move, tuner)
