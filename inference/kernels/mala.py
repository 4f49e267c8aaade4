"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ppl import Selection
from .hmc import fixed_length
from .kernel import Kernel
from .tuning import Tuner


def mala(
    program: Callable,
    sites: Sequence[str] | Selection | None = None,
    *,
    step_size: float | None = None,
    inverse_mass: Any = None,
    dense: bool = False,
    target_acceptance: float = 0.574,
) -> Kernel:
    """The Metropolis-adjusted Langevin kernel: one step along the gradient, with noise, accepted or not.

    It is :func:`hmc` with a single leapfrog step, which see for the arguments. With C the inverse mass matrix and h the
    step size, the proposal from position x is

        y ~ N(x + h^2 / 2 C grad log_density(x), h^2 C).

    (Where the step is written as x + e grad + sqrt(2 e) noise, e is h^2 / 2.) Its info is a :class:`Trajectory`.

    Source: Roberts and Tweedie, *Exponential convergence of Langevin distributions and their discrete approximations*,
    Bernoulli 2 (1996); the target acceptance is that of Roberts and Rosenthal, *Optimal scaling of discrete
    approximations to Langevin diffusions*, JRSS B 60 (1998).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> model = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))
    >>> kernel = inference.mala(model, step_size=0.5)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> bool(ppl.seed(kernel)(jax.random.key(1), state).info.acceptance_rate > 0.5)
    True
    """
    return fixed_length("mala", program, sites, 1, Tuner(step_size, inverse_mass, dense, target_acceptance))
