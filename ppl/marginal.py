"""marginal: the law of one site of a program, the others integrated out."""

from __future__ import annotations

from collections.abc import Callable

from .condition import condition
from .errors import UnsupportedError
from .program_law import Algorithm, ProgramLaw, log_mean, returning
from .seed import seed
from .staging import stage


def marginal(program: Callable, keep: str, algorithm: Algorithm) -> Callable:
    """``(*args) -> distribution``: the law of the site ``keep`` of a program, its other sites integrated out.

    A distribution like any other: sample from it, observe it, put it in a program that is itself a marginal. A draw
    runs the program. The density at x is estimated by the evidence that ``algorithm`` finds for the program
    conditioned on x,

        E[exp(estimate)] = p(x),

    so that a program that observes it is weighted without bias: a pseudo-marginal likelihood. If the algorithm is
    exact, as ``inference.enumerate`` is, so is the density.

    Args:
      program: a program without factors or observations (``normalize`` is for those).
      keep: the address of a site, such as ``"y"`` or ``"block/y"``.
      algorithm: ``program -> program of a Population``, such as ``partial(inference.importance, n=10)``.

    Raises:
      AddressError: the program has no such site.
      UnsupportedError: the program carries weights, or does not reach the site exactly once.

    Source: Andrieu and Roberts, *The pseudo-marginal approach for efficient Monte Carlo computations*, Annals of
    Statistics 37 (2009); as a distribution in a language, Lew et al., *Probabilistic programming with stochastic
    probabilities*, PLDI 2023.

    >>> from borelax import inference, ppl
    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> def noisy(p):
    ...     x = ppl.sample("x", dist.Bernoulli(p))
    ...     ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    >>> law = ppl.marginal(noisy, "y", inference.enumerate)
    >>> model = lambda p: ppl.observe("seen", law(p), 1)
    >>> round(float(jnp.exp(ppl.log_density(model)({}, jnp.array(0.5)))), 6)
    0.5
    """

    def law(*args, **kwargs) -> Marginal:
        staged = stage(program, *args, **kwargs)
        weighted = staged.weights
        if weighted:
            raise UnsupportedError(
                f"the program carries weights ({', '.join(map(str, weighted))}), so that its marginal is not a "
                "probability distribution; use ppl.normalize, or take the weights out"
            )
        return Marginal(staged, keep, algorithm)

    return law


class Marginal(ProgramLaw):
    """The law of one site of a program; see :func:`marginal`."""

    def draw(self, key):
        return seed(returning(self.program, self.keep))(key)

    def estimate(self, value):
        return log_mean(self.algorithm(condition(self.program, self.choices(value)))())
