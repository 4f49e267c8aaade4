"""Elliptical slice sampling of sites with a Gaussian prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ... import ppl
from ...ppl import Selection, Trace, UnsupportedError
from ...ppl.choices import Address, flatten, nest
from ...ppl.describe import effect_of
from ...ppl.effects import Site, remake, sample_p
from ...ppl.flow import Place, Visit, flow
from ...ppl.staging import Staged, stage
from .kernel import Kernel, State
from .look import look

GAUSSIAN = (dist.Normal, dist.MultivariateNormal, dist.LowRankMultivariateNormal)


def elliptical_slice(program: Callable, sites: Sequence[str] | Selection) -> Kernel:
    """The kernel that moves Gaussian sites together, on an ellipse through where they are and a draw from their prior.

    There is nothing to tune, and no move is rejected: the angle on the ellipse is drawn from smaller and smaller
    brackets until the density of the rest of the program is high enough. This loop has sites, so that the kernel can be
    run, but not enumerated. Under ``vmap`` it goes on until all chains are done.

    With f the sites' values, m their means and nu a draw from their prior, the ellipse is

        m + (f - m) cos(angle) + (nu - m) sin(angle).

    Args:
      program: any program.
      sites: addresses, or a selection: sites with a Normal or MultivariateNormal distribution, whose parameters may
        depend on other sites, but not on each other.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site is not Gaussian, its parameters depend on a site that moves along, or only some branches
        have it.

    Source: Murray, Adams and MacKay, *Elliptical slice sampling*, AISTATS 2010.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model(y):
    ...     f = ppl.sample("f", dist.Normal(0.0, 1.0).expand([3]))
    ...     ppl.observe("y", dist.Normal(f, 0.5), y)
    >>> kernel, y = inference.elliptical_slice(model, ["f"]), jnp.ones(3)
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0), y), y)
    >>> ppl.seed(kernel)(jax.random.key(1), state, y).trace.choices["f"].shape
    (3,)
    """
    selection = sites if isinstance(sites, Selection) else ppl.select(*sites)

    def init(trace: Trace, *args) -> State:
        return State(trace)

    def step(state: State, *args) -> State:
        staged = stage(program, *args)
        rest = flatten(state.trace.choices)
        moving = _gaussian(staged, selection)
        with ppl.scope("elliptical_slice"):
            with ppl.scope("prior"):
                mean, spread = _draw_prior(staged, moving, state.trace.choices)
            here = {address: rest.pop(address) - mean[address] for address in mean}

            def at(angle) -> dict:
                cos, sin = jnp.cos(angle), jnp.sin(angle)
                return nest({a: mean[a] + here[a] * cos + spread[a] * sin for a in mean})

            def log_likelihood(angle):
                return ppl.log_density(ppl.do(program, at(angle)))(nest(rest), *args)

            angle = _draw_angle(log_likelihood)
            with ppl.scope("program"):
                moved = ppl.update(program, at(angle))(state.trace, *args).trace
        return replace(state, trace=moved)

    return Kernel(program, init, step)


def _draw_angle(log_likelihood: Callable):
    """An angle at which the log likelihood is above a random height below that at angle 0.

    Where the density is zero or not a number at angle 0, any angle with a density that is a number will do.
    """
    start = log_likelihood(jnp.zeros(()))
    height = start + jnp.log(ppl.sample("height", dist.Uniform(0.0, 1.0)))
    height = jnp.where(jnp.isnan(height), -jnp.inf, height)
    angle = ppl.sample("angle", dist.Uniform(0.0, 2 * jnp.pi))

    def shrink(carry):
        angle, low, high, _ = carry
        low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
        angle = ppl.sample("shrunk", dist.Uniform(low, high))
        return angle, low, high, log_likelihood(angle) >= height

    def searching(carry):
        angle, low, high, found = carry
        return ~found & (high - low > jnp.finfo(angle.dtype).eps)

    carry = angle, angle - 2 * jnp.pi, angle, log_likelihood(angle) >= height
    angle, _, _, found = lax.while_loop(searching, shrink, carry)
    return jnp.where(found, angle, 0.0)


def _draw_prior(staged: Staged, moving: set[Address], choices: dict) -> tuple[dict, dict]:
    """The means of the moving sites given the other choices, and a draw from their prior less these means."""

    def draw(site: Site, operands):
        own, own_operands = remake(site, operands, lambda effect: replace(effect, proposal=None))
        (value,) = sample_p.bind(*own_operands, site=own)
        return value, site.map(lambda effect: effect.distribution.mean, operands)

    drawn = look(staged, choices, moving, draw)
    mean = {address: mean for address, (_, mean) in drawn.items()}
    return mean, {address: value - mean for address, (value, mean) in drawn.items()}


# ------------------------------------------------------------------------- which sites can move


def _gaussian(staged: Staged, selection: Selection) -> set[Address]:
    """The selected addresses, if their sites are Gaussian given the rest."""
    infos = staged.of_kind("sample")
    moving = selection.among(info.address for info in infos)
    for info in infos:
        d = _innermost(effect_of(info).distribution)
        if info.address in moving and not isinstance(d, GAUSSIAN):
            raise UnsupportedError(
                f"site {info} has a {type(d).__name__}, but an ellipse needs a Gaussian prior: make it one (a "
                "TransformedDistribution's base can be a site of its own), or move it with another kernel"
            )
        if info.address in moving and info.address in staged.optional:
            raise UnsupportedError(
                f"site {info} is missing from some branch, so there is not always an ellipse: draw it in every branch, "
                "or move it with inference.mh"
            )
    _check_parameters(staged, moving)
    return moving


def _check_parameters(staged: Staged, moving: set[Address]) -> None:
    """Refuses moving sites whose parameters depend on a moving site."""
    program = flow(staged)
    for place, visit in program.visits.items():
        if not _moves(visit, moving):
            continue
        for reached in _dependents(place, program.visits, program.edges):
            if _moves(program.visits[reached], moving):
                raise UnsupportedError(
                    f"the distribution of site {program.visits[reached].info} depends on site {visit.info}, so that "
                    "together they are not Gaussian: move them one at a time, with a kernel for each, or draw the "
                    "noise at sites of its own and compute these values from it"
                )


def _dependents(place: Place, visits: dict[Place, Visit], edges: Iterable) -> set[Place]:
    """The sites whose distribution or value depends on a site, not counting what goes through another ``sample``."""
    found: set[Place] = set()
    queue = [place]
    while queue:
        start = queue.pop()
        for origin, target, _ in edges:
            if origin == start and target not in found:
                found.add(target)
                queue += [target] if visits[target].info.kind != "sample" else []
    return found


def _moves(visit: Visit, moving: set[Address]) -> bool:
    return visit.info.kind == "sample" and visit.info.address in moving


def _innermost(d):
    return _innermost(d.base_dist) if isinstance(d, dist.Independent | dist.ExpandedDistribution) else d
