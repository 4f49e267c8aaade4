"""The gradient of an expectation: unbiased estimates of it, and the programs that make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from ...ppl import Masked, UnsupportedError
from ...ppl.describe import effect_of, family
from ...ppl.effects import Effect, Site, emit, sample_p
from ...ppl.errors import did_you_mean
from ...ppl.interpreter import Handler, interpret
from ...ppl.members import map_members
from ...ppl.policy import Cloud, Extension
from ...ppl.population_walk import populate
from ...ppl.random_key import refuse_keys
from ...ppl.staging import Staged, stage
from ...semantics.branch import Branch, has_finite_support
from ...semantics.static.smooth_flow import jumps
from .held import held
from .pathwise import has_path, pathwise, without_path
from .score_function import edges, obstacle, score_function

STRATEGIES = ("pathwise", "score", "enumerate")
MOST_RUNS = 100_000


def expectation_grad(objective: Callable) -> Callable:
    """``(params, *args) -> gradient``: a program that estimates the gradient of ``E[objective(params, *args)]``.

    The estimate is unbiased, with the tree, shapes and dtypes of ``params``. How it is made is said at each site, by
    ``ppl.sample(..., grad=strategy)``:

    - ``"pathwise"``: the draw moves with the parameters of its distribution (see ``pathwise.py``), and the objective
      is differentiated along with it. For an objective that is continuous in the draw, as far as its jaxpr tells
      (see :func:`~borelax.semantics.smoothness`); one that has comparisons or rounding on the way is refused.
    - ``"score"``: the draw stays, and its score, the derivative of its log density, is multiplied by the objective.
      For any objective, and any distribution whose support does not move with the parameters.
    - ``"enumerate"``: the expectation is summed over the finite support; nothing is drawn. Every such site multiplies
      the number of runs of all that comes after it; a ``scan`` around it is unrolled.

    Without ``grad``, a site is pathwise where it is continuous and has a pathwise derivative, else score.

    Where a parameter reaches the edge of its domain (a probability that becomes zero), a sum over outcomes has a
    derivative to one side that the score does not see, and that numpyro clips to zero in its densities: keep to the
    interior. A branch of a ``cond`` whose predicate depends on parameters alone is differentiated as it is taken.

    Args:
      objective: a program that returns a real scalar, with no factors or observations. ``params``, its first argument,
        is a pytree of floating-point arrays.

    Raises:
      UnsupportedError: the program carries weights, or does not return a scalar; a strategy is unknown, or would be
        biased; a site is in a ``while_loop``; params are not floating-point.

    The program is run, and the same run is differentiated as a function of params: with L its value and S the log
    density of its ``"score"`` draws, the estimate is ``dL/dp + L dS/dp``. It is a program like any other, and can be
    part of an objective itself.

    Source: Schulman et al., *Gradient estimation using stochastic computation graphs*, NeurIPS 2015; strategies as the
    business of sites, Becker et al., *Probabilistic programming with programmable variational inference*, PLDI 2024.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def squared(loc):
    ...     x = ppl.sample("x", dist.Normal(loc, 1.0))
    ...     return x**2
    >>> grads = jax.vmap(ppl.seed(inference.expectation_grad(squared)), (0, None))
    >>> round(float(grads(jax.random.split(jax.random.key(0), 10_000), 1.5).mean()), 1)
    3.0
    """
    both = expectation_value_and_grad(objective)
    return lambda params, *args, **kwargs: both(params, *args, **kwargs)[1]


def expectation_value_and_grad(objective: Callable) -> Callable:
    """``(params, *args) -> (value, gradient)``: estimates of ``E[objective(params, *args)]`` and of its gradient.

    One run gives both, each without bias; see :func:`expectation_grad`.

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> winnings = lambda p: 3.0 * ppl.sample("won", dist.Bernoulli(p), grad="enumerate")
    >>> value, grad = ppl.seed(inference.expectation_value_and_grad(winnings))(jax.random.key(0), 0.25)
    >>> round(float(value), 4), round(float(grad), 4)
    (0.75, 3.0)
    """

    def estimated(params, *args, **kwargs):
        params = jax.tree.map(jnp.asarray, params)
        _check_params(params)
        original = staged = stage(objective, params, *args, **kwargs)
        _check_objective(staged)
        if any(info.site.grad == "enumerate" for info in staged.of_kind("sample")):
            staged = stage(_summed(objective), params, *args, **kwargs)
        _, _, choices = interpret(staged, _Run(), None)
        varied, tree = jax.tree.flatten(params)
        fixed = staged.leaves[len(varied) :]

        def rerun(varied):
            moved = replace(staged, leaves=[*varied, *fixed])
            value, score, _ = interpret(moved, _Rerun(), jnp.zeros((), float), choices)
            return jnp.asarray(value, float), score

        (value, _), pull_back = jax.vjp(rerun, varied)
        (grads,) = pull_back((jnp.ones((), float), value))
        _check_paths(original)  # last: what cannot be differentiated at all says more about why
        return value, jax.tree.unflatten(tree, grads)

    return estimated


# ------------------------------------------------------------------------- a run, and the same run differentiated


class _Run(Handler):
    """Re-emits every site, and records the draws."""

    def site(self, kind, site: Site, operands, given, state):
        outs = emit(kind, site, operands)
        return outs, state, site.masked(operands, outs[0]) if kind == "sample" else None


class _Rerun(Handler):
    """The run that made the given draws, as a function of the parameters alone.

    State: the log density of the draws that stay where they are.
    """

    def site(self, kind, site: Site, operands, given, score):
        if kind != "sample":  # deterministic, or a twist
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), score, None
        value = given.value if isinstance(given, Masked) else given
        d = site.effect(operands).distribution
        if _strategy(site, d, value.dtype) == "pathwise":
            moved = site.map(_moved, operands, value)
            return [held(moved, without_path(d), _MOVING_DF.format(site, family(d)))], score, None
        log_density = site.sum(_score, operands, value)
        log_density = held(log_density, edges(d), _MOVING_EDGE.format(site, family(d)))
        return [value], score + log_density.astype(score.dtype), None


_MOVING_EDGE = (
    "{}: grad='score' would be wrong, because the support of {} moves with params; hold its bounds fixed, or draw from "
    "a fixed distribution and transform the draw"
)
_MOVING_DF = (
    "{}: grad='pathwise' would be wrong, because the degrees of freedom of {} vary with params, and how its draws move "
    "with them is not known here; use grad='score'"
)


def _moved(effect: Effect, value):
    return pathwise(effect.distribution, value)


def _score(effect: Effect, value):
    log_density = score_function(effect.distribution, value)
    return log_density if effect.present is None else jnp.where(effect.present, log_density, 0.0)


# ------------------------------------------------------------------------- sites that are summed out


def _summed(objective: Callable) -> Callable:
    """The objective in expectation over its ``"enumerate"`` sites, as a program of the others."""

    def summed(*args, **kwargs):
        population = populate(objective, 1, _SumOrDraw())(*args, **kwargs)
        return jnp.exp(population.log_weight) @ population.value

    return summed


class _SumOrDraw(Branch):
    """Branches at ``"enumerate"`` sites; elsewhere every member draws from the site's own distribution.

    In a scan that is unrolled a site is met once for each step, so a draw's number is added to its address.
    """

    def __init__(self):
        super().__init__(prune=False, most=MOST_RUNS)
        self.met: Counter = Counter()

    def grows(self, site: Site) -> bool:
        return site.grad == "enumerate"

    def extend(self, site: Site, operands, cloud: Cloud) -> Extension:
        if self.grows(site):
            return _possible(super().extend(site, operands, cloud), cloud.log_weight.shape[0])
        numbered = replace(site, name=(*site.name, str(self.met[site.name])))
        self.met[site.name] += 1
        draw = lambda *operands: sample_p.bind(*operands, site=numbered)[0]  # noqa: E731
        return Extension(map_members(draw, operands, cloud.log_weight.shape[0]))


def _possible(extension: Extension, size: int) -> Extension:
    """An outcome of probability zero does not count, even where the objective is infinite: the likeliest one stands in
    for it, without weight."""
    log_mass = extension.log_weight.reshape(size, -1)
    likeliest = jnp.argmax(log_mass, 1, keepdims=True) + jnp.arange(size)[:, None] * log_mass.shape[1]
    own = jnp.arange(log_mass.size).reshape(log_mass.shape)
    index = jnp.where(log_mass == -jnp.inf, likeliest, own).reshape(-1)
    return extension._replace(value=extension.value[index])


# ------------------------------------------------------------------------- what is refused


def _check_params(params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UnsupportedError(
                f"params{jax.tree_util.keystr(path)} has dtype {leaf.dtype}: a gradient is taken along floating-point "
                "numbers; pass what stays fixed as one of the other arguments"
            )


def _check_objective(staged: Staged) -> None:
    if weighted := staged.weights:
        raise UnsupportedError(
            f"the objective carries weights ({', '.join(map(str, weighted))}), so it has no plain expectation; take "
            "them out, or fit a guide with inference.elbo"
        )
    outs = staged.jaxpr.out_avals
    is_scalar = staged.out_tree == jax.tree.structure(0) and outs[0].shape == ()
    if not is_scalar or jnp.issubdtype(outs[0].dtype, jnp.complexfloating):
        returned = jax.tree.unflatten(staged.out_tree, [f"{out.dtype}{list(out.shape)}" for out in outs])
        raise UnsupportedError(f"an objective returns one real number, but this one returns {returned}")
    draws = staged.of_kind("sample")
    refuse_keys(draws)
    for info in draws:
        if info.unbounded:
            raise UnsupportedError(
                f"{info} is inside a while_loop, so its draws cannot be kept and run again; use lax.scan, ppl.loop, or "
                "lax.fori_loop with a fixed number of steps"
            )
        _strategy(info.site, effect_of(info).distribution, info.dtype)


def _check_paths(staged: Staged) -> None:
    """What a jump contributes to the gradient, no path sees."""
    draws = staged.of_kind("sample")
    moving = {
        info.address
        for info in draws
        if _strategy(info.site, effect_of(info).distribution, info.dtype) == "pathwise"
    }
    found = jumps(staged, lambda site: site.name in moving)
    for info in draws:
        if info.address in moving & found.keys():
            raise UnsupportedError(
                f"{info}: grad='pathwise' would be biased, because the objective may be discontinuous in the draw, "
                f"through {found[info.address]}; use grad='score', or write the branch with what is known to be "
                "continuous (jnp.maximum, jnp.clip, jax.nn.relu, ...)"
            )


def _strategy(site: Site, d: Distribution, dtype) -> str:
    """The gradient strategy of a ``sample`` site."""
    continuous = jnp.issubdtype(dtype, jnp.inexact)
    if site.grad is None:
        chosen = "pathwise" if continuous and has_path(d) else "score"
    elif site.grad in STRATEGIES:
        chosen = site.grad
    else:
        raise UnsupportedError(
            f"{site}: {site.grad!r} is no gradient strategy{did_you_mean(str(site.grad), STRATEGIES)}; there are "
            f"{', '.join(map(repr, STRATEGIES))}"
        )
    if reason := _reason_against(chosen, d, continuous):
        raise UnsupportedError(f"{site}: grad={chosen!r} would be wrong, because {family(d)} {reason}")
    return chosen


def _reason_against(chosen: str, d: Distribution, continuous: bool) -> str | None:
    if chosen == "pathwise" and not continuous:
        return "is discrete: its draws cannot move with its parameters; use grad='score' or grad='enumerate'"
    if chosen == "pathwise":
        return None if has_path(d) else "has no reparameterisation that is known here; use grad='score'"
    if chosen == "enumerate" and not has_finite_support(d):
        return "has infinitely many values; use grad='score'"
    return obstacle(d)
