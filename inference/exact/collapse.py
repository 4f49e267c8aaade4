"""collapse: a program without one of its sites."""

from __future__ import annotations

from collections.abc import Callable

from ...ppl import UnsupportedError
from ...ppl.effects import factor_at
from .integrate_out import integrate_out


def collapse(program: Callable, site: str) -> Callable:
    """The program with ``site`` integrated out in closed form: not drawn, and its evidence a factor.

    The same pairs of prior and likelihood as those of :func:`conjugate`, which goes on to draw the site. Here there is
    no draw, so that a kernel has fewer sites to move, and moves the others under their marginal posterior: a collapsed
    sampler. The evidence has gradients. Draws of the site come afterwards, from ``conjugate`` of the program
    conditioned on draws of the others.

    Args:
      program: any program that returns and records nothing that depends on the site.
      site: the address of a ``sample`` site.

    Raises, when the program is traced:
      AddressError, SiteError: as ``conjugate`` does.
      UnsupportedError: as ``conjugate`` does; and where what is returned or recorded depends on the site's value.

    Source: Liu, *The collapsed Gibbs sampler in Bayesian computations with applications to a gene regulation problem*,
    Journal of the American Statistical Association 89 (1994).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def counts(a):
    ...     rate = ppl.sample("rate", dist.Gamma(a, 1.0))
    ...     ppl.observe("count", dist.Poisson(rate), 0)
    >>> round(float(jnp.exp(ppl.log_density(inference.collapse(counts, "rate"))({}, 2.0))), 4)
    0.25
    """

    def collapsed(*args, **kwargs):
        out = integrate_out(program, site, args, kwargs)
        if out.shown:
            raise UnsupportedError(
                f"{out.info} cannot be integrated out, because {', '.join(out.shown)} depends on its value: leave that "
                "out, or draw the site, with inference.conjugate"
            )
        factor_at(out.info.site, out.log_evidence)
        return out.finish(out.value)

    return collapsed
