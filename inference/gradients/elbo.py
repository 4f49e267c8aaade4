"""elbo: the evidence lower bound, as an objective."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...ppl import AddressError, ChoiceError, UnsupportedError, log_density, trace
from ...ppl.staging import Staged, stage
from ...semantics import absolute_continuity
from ...semantics.static.absolute_continuity import Direction


def elbo(program: Callable, guide: Callable, check: bool = True) -> Callable:
    """``(params, *args) -> log p(x) - log q(x)``: a program that draws x from the guide.

    With p the density of ``program``, weights included, and q that of ``guide``, its expectation is a lower bound of
    the log evidence,

        E[log p(x) - log q(x)] = log evidence - KL(q || p / evidence),

    equal to it where the guide is the posterior. Give it to ``expectation_grad``; the ``grad`` strategies of the
    guide's sites count.

    Args:
      program: called with ``*args``: what is to be approximated, such as ``ppl.condition(model, data)``. One that has
        parameters too is an objective of one line:
        ``lambda params, *args: elbo(partial(model, params["model"]), guide)(params["guide"], *args)``.
      guide: called with ``params, *args``: a program without weights, whose sites are those of ``program``, by address,
        shape and dtype. It must draw only what ``program`` can make of it: elsewhere log p is minus infinity.
      check: whether to refuse a guide of which it can be seen, when it is traced, that it does otherwise
        (``semantics.absolute_continuity`` says more).

    Raises:
      AddressError: guide and program do not have the same sites.
      ChoiceError: a site is not of the same shape and dtype in both.
      UnsupportedError: the guide carries weights or proposals, or its density is only an estimate; the check is on, and
        proves that the guide puts mass where the program has none.

    Source: Jordan et al., *An introduction to variational methods for graphical models*, Machine Learning 37 (1999);
    Ranganath, Gerrish and Blei, *Black box variational inference*, AISTATS 2014.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def coin():
    ...     x = ppl.sample("x", dist.Bernoulli(0.5))
    ...     ppl.observe("y", dist.Bernoulli(0.25 + 0.5 * x), 1)
    >>> guide = lambda logit: ppl.sample("x", dist.Bernoulli(logits=logit))
    >>> bound = ppl.seed(inference.elbo(coin, guide))
    >>> round(float(bound(jax.random.key(0), jnp.log(3.0))), 4)  # at the posterior, the log evidence
    -0.6931
    """

    def objective(params, *args, **kwargs):
        _check_guide(stage(guide, params, *args, **kwargs))
        run = trace(guide)(params, *args, **kwargs)
        try:
            log_p = log_density(program)(run.choices, *args, **kwargs)
        except (AddressError, ChoiceError) as error:
            raise type(error)(f"the guide must have the sites of the program: {error}") from None
        if check:
            _refuse_lost(absolute_continuity(partial(guide, params), program)(*args, **kwargs).guide_by_model)
        return log_p - run.log_density

    return objective


def _refuse_lost(guide_by_model: Direction) -> None:
    for finding in guide_by_model.findings:
        if finding.severity == "error":
            raise UnsupportedError(
                f"the bound would be minus infinity: site {finding.where}: {finding.what}; {finding.remedy}. To go on "
                "all the same, pass check=False"
            )


def _check_guide(staged: Staged) -> None:
    if weighted := staged.weights:
        raise UnsupportedError(
            f"the guide carries weights ({', '.join(map(str, weighted))}), so it is not a distribution: take them out, "
            "or put them into the program"
        )
    for info in staged.of_kind("sample"):
        effect = info.site.effect(info.operands)
        if effect.proposal is not None:
            raise UnsupportedError(
                f"{info} of the guide has a proposal, but a guide is drawn from itself: take it out"
            )
        if getattr(effect.distribution, "is_estimated", False):
            raise UnsupportedError(
                f"the density of {info} is only an estimate, of which the logarithm is biased, so there would be no "
                "bound; give its program an exact algorithm, such as inference.enumerate"
            )
