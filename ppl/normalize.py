"""normalize: the posterior of a program, as far as an algorithm finds it, as a distribution."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist

from .choices import flatten, nest
from .condition import condition
from .effects import sample, scope
from .program_law import Algorithm, ProgramLaw, log_mean, returning
from .seed import seed
from .staging import stage
from .trace import trace


def normalize(program: Callable, keep: str, algorithm: Algorithm) -> Callable:
    """``(*args) -> distribution``: the law of the site ``keep`` under the normalised measure of a program.

    For inference inside a program: an agent that reasons about another agent, or about itself. A draw runs
    ``algorithm`` and picks a member of its population by weight. With an exact algorithm, as ``inference.enumerate``
    is, that is the posterior. With an approximate one it is the law q of what is picked, which tends to the posterior
    with the size of the population. Its density is estimated without bias, from a run of the algorithm that has the
    picked member in it:

        q(x) = E[p(x, z) / (r(z) Z)],

    z the other sites, drawn from r given x; Z the evidence of a population of which one member is (x, z).

    If no member of a population has weight there is no posterior to draw from: such a draw is NaN, or the least
    integer.

    Args:
      program: any program, factors and observations included.
      keep: the address of a site.
      algorithm: ``program -> program of a Population``, such as ``partial(inference.importance, n=10)``. For the
        density, an algorithm that draws must take ``retained=choices``, a member to include.

    Raises:
      AddressError: the program has no such site.
      UnsupportedError: the program does not reach it exactly once.

    Source: Lew et al., *Probabilistic programming with stochastic probabilities*, PLDI 2023.

    >>> from borelax import inference, ppl
    >>> def agent(reward):
    ...     action = ppl.sample("action", dist.Bernoulli(0.5))
    ...     ppl.factor(reward * action)
    >>> policy = ppl.normalize(agent, "action", inference.enumerate)
    >>> watched = lambda reward: ppl.observe("seen", policy(reward), 1)
    >>> round(float(jnp.exp(ppl.log_density(watched)({}, jnp.log(3.0)))), 6)
    0.75
    """

    def law(*args, **kwargs) -> Normalized:
        return Normalized(stage(program, *args, **kwargs), keep, algorithm)

    return law


class Normalized(ProgramLaw):
    """The law of one site under the normalised measure of a program; see :func:`normalize`."""

    def draw(self, key):
        return seed(self._pick)(key)

    def estimate(self, value):
        conditioned = condition(self.program, self.choices(value))
        with scope("given"):
            if not self.is_estimated:
                return log_mean(self.algorithm(conditioned)()) - log_mean(self.algorithm(self.program)())
            rest = trace(conditioned)()
        retained = nest(flatten(rest.choices) | {self.keep: value})
        with scope("all"):
            population = self.algorithm(self.program, retained=retained)()
        return jnp.where(rest.log_weight == -jnp.inf, -jnp.inf, rest.log_weight - log_mean(population))

    def _pick(self):
        """The kept value of a member that is picked by weight."""
        population = self.algorithm(returning(self.program, self.keep))()
        member = sample("picked", dist.Categorical(logits=population.log_weight))
        kept = population.value[member]
        none = jnp.nan if jnp.issubdtype(kept.dtype, jnp.floating) else jnp.iinfo(kept.dtype).min
        return jnp.where(jnp.max(population.log_weight) == -jnp.inf, none, kept)
