"""conjugate: a program in which a site is drawn from its exact posterior."""

from __future__ import annotations

from collections.abc import Callable

import jax
from numpyro.distributions import Distribution

from ...ppl.effects import Effect, Site, factor_at, sample_p
from .integrate_out import integrate_out


def conjugate(program: Callable, site: str) -> Callable:
    """The program of the same measure in which ``site`` is drawn from its posterior given all else, in closed form.

    All other sites are drawn first, as they are. Then the evidence of the observations that depend on the site is a
    factor, and the site is drawn, at its address:

        p(z) p(x) p(y | x, z)  =  p(z) p(y | z) p(x | y, z).

    So the weights of :func:`importance` and :func:`smc` do not depend on its value (they are Rao-Blackwellised), and
    where all other sites are conditioned on, a run is an exact Gibbs step. Observations are those of ``ppl.observe``
    and the sites that are conditioned on, in loops and under ``vmap`` as well. The pairs are

        Beta                        Bernoulli, Binomial, Geometric       the probability is the site's value
        Gamma, Exponential          Poisson, Exponential, Gamma          the rate is a multiple of it
        Dirichlet                   Categorical, Multinomial             the probabilities are its value
        Normal, MultivariateNormal  Normal, MultivariateNormal           the mean is affine in it

    with other parameters that do not depend on the site. That this is so is read off the program's jaxpr: on the way to
    the parameter an element of the site may be broadcast, indexed, reshaped and selected, and where the table says so
    be multiplied, added to and summed up with others, all by what does not depend on the site. A parametrisation by
    logits is not conjugate.

    The elements of a site stay independent, except where means are sums over them, or there is a MultivariateNormal:
    then all are drawn together, those of all plates as well, after a QR decomposition of the slopes of all means,
    ``[observations + elements, elements]``. For a plate of many small events apply ``conjugate`` inside the ``vmap``.

    The evidence of what is Gaussian is as precise as the likelihoods are; so is that of a Beta, unless both of its
    parameters are in the millions. That of the others has the rounding errors of log-gammas of their parameters, which
    count where there are millions of observations. A draw is as fine as its floats are, however narrow the posterior.

    Args:
      program: any program.
      site: the address of a ``sample`` site. If it has a proposal, that is not used.

    Raises, when the program is traced:
      AddressError: the program has no such site, or it is observed.
      SiteError: the address is not a string.
      UnsupportedError: the site's distribution has no conjugate pair, or its value is used for anything else: another
        parameter or likelihood, a factor, a later draw, a branch, an observation in a branch or a ``while_loop``. (What
        the program returns, and its ``deterministic`` values, may depend on it in any way.)

    Source: Diaconis and Ylvisaker, *Conjugate priors for exponential families*, Annals of Statistics 7 (1979); Murray
    et al., *Delayed sampling and automatic Rao-Blackwellization of probabilistic programs*, AISTATS 2018, for the idea
    of letting a program wait with a draw.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin(tosses):
    ...     p = ppl.sample("p", dist.Beta(1.0, 1.0))
    ...     ppl.observe("toss", dist.Bernoulli(p).expand([3]), tosses)
    ...     return p
    >>> _, log_weight = ppl.seed(ppl.weigh(inference.conjugate(coin, "p")))(jax.random.key(0), jnp.array([1, 1, 0]))
    >>> round(float(jnp.exp(log_weight)), 4)  # 1! 2! / 4!, whatever p is drawn
    0.0833
    """

    def drawn(*args, **kwargs):
        out = integrate_out(program, site, args, kwargs)
        factor_at(out.info.site, out.log_evidence)
        return out.finish(_draw(out.info.site, out.posterior))

    return drawn


def _draw(own: Site, d: Distribution):
    leaves, tree = jax.tree.flatten(Effect(distribution=d))
    return sample_p.bind(*leaves, site=Site(own.name, own.source, tree, grad=own.grad))[0]
