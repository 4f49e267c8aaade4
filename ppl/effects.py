"""The effects: sample, observe, factor and deterministic, as JAX primitives.

A program traced by ``jax.make_jaxpr`` is a plain jaxpr with these equations in it. An equation's operands
are the leaves of one :class:`Effect`; its ``site`` parameter is the static rest. Under ``vmap`` a site keeps
its operands and notes the axis, so that any nesting of ``vmap`` means independent copies of the site.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, partial_eval
from numpyro.distributions import Distribution

from . import compat
from .censored import censored_log_prob
from .choices import Address, Masked, spell
from .errors import SiteError, UnseededError, UnsupportedError
from .laws import CENSORED, TRUNCATED, parts, without_event, wrong_density, wrong_draws
from .randomness import independent

# --------------------------------------------------------------------------- what a program calls


def sample(name: str, d: Distribution, *, proposal: Distribution | None = None, grad: Hashable = None):
    """Draws ``x ~ d`` and returns it.

    Args:
      name: the site's address within its :func:`scope`.
      d: any ``numpyro.distributions`` object.
      proposal: a distribution that importance methods draw from instead, weighting by ``d / proposal``.
      grad: the gradient-estimation strategy of the site, kept for variational inference.

    Returns:
      An array of shape ``d.batch_shape + d.event_shape``.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.sample("coin", dist.Bernoulli(1.0))
    >>> int(ppl.seed(model)(jax.random.key(0)))
    1
    """
    _check_distribution(_check_name(name), d, "d")
    _check_draws(name, d)
    if proposal is not None:
        _check_proposal(name, d, proposal)
    return _bind(sample_p, name, Effect(distribution=d, proposal=proposal), grad)[0]


def sample_at(address: Address, d: Distribution):
    """Draws from ``d`` at a whole address: for the sites that transformations add."""
    leaves, tree = jax.tree.flatten(Effect(distribution=d))
    return sample_p.bind(*map(jnp.asarray, leaves), site=Site(address, source_line(), tree))[0]


def factor_at(site: Site, log_weight) -> None:
    """Multiplies the weight by ``exp(log_weight)``, on behalf of another site."""
    leaves, tree = jax.tree.flatten(Effect(log_weight=jnp.asarray(log_weight, float)))
    factor_p.bind(*leaves, site=Site(site.name, site.source, tree))


def deterministic_at(address: Address, value) -> None:
    """Records an array at a whole address."""
    leaves, tree = jax.tree.flatten(Effect(value=jnp.asarray(value)))
    deterministic_p.bind(*leaves, site=Site(address, source_line(), tree))


def observe(name: str, d: Distribution, value):
    """Multiplies the program's weight by the density of ``d`` at ``value``, and returns ``value``.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> model = lambda: ppl.observe("y", dist.Normal(0.0, 1.0), 0.0)
    >>> round(float(ppl.log_density(model)({})), 4)
    -0.9189
    """
    _check_distribution(_check_name(name), d, "d")
    value = jnp.asarray(value)
    shape = d.shape()
    if value.shape != shape:
        raise SiteError(
            f"site {name!r} at {source_line()}: the observed value has shape {value.shape}, but {type(d).__name__} "
            f"has shape {shape} (batch {d.batch_shape}, event {d.event_shape}); use .expand or .to_event on the "
            "distribution so that the shapes agree"
        )
    return _bind(observe_p, name, Effect(distribution=d, value=value))[0]


def factor(log_weight, name: str | None = None) -> None:
    """Multiplies the program's weight by ``exp(log_weight)`` (a scalar; the name appears in warnings).

    >>> from borelax import ppl
    >>> float(ppl.log_density(lambda: ppl.factor(1.5))({}))
    1.5
    """
    log_weight = jnp.asarray(log_weight)
    if log_weight.shape != ():
        raise SiteError(
            f"site {name or 'factor'!r} at {source_line()}: the log weight has shape {log_weight.shape}; it must be "
            "a scalar: sum over independent terms, or call factor under vmap"
        )
    _bind(factor_p, name or "factor", Effect(log_weight=log_weight.astype(float)))


def twist(log_potential, name: str | None = None) -> None:
    """Advises those who resample to let runs go on by their weight times ``exp(log_potential)`` (a scalar).

    It is no weight: the program's measure is the same, whatever the advice, and where nobody resamples it does nothing.
    The best potential of a run is the mass of what is still to come, given where the run is: with that of the next
    observation, ``smc`` is an auxiliary particle filter. It holds until the next suspension (see ``inference.smc``); a
    second one before that is multiplied in. Inside a while_loop it is not heard, nor where it is infinite or NaN.

    Sources: Pitt and Shephard, *Filtering via simulation: auxiliary particle filters*, JASA 94 (1999); Whiteley and
    Lee, *Twisted particle filters*, Annals of Statistics 42 (2014).

    >>> from borelax import ppl
    >>> float(ppl.log_density(lambda: ppl.twist(1.5))({}))
    0.0
    """
    log_potential = jnp.asarray(log_potential)
    if log_potential.shape != ():
        raise SiteError(
            f"twist {name or 'twist'!r} at {source_line()}: the log potential has shape {log_potential.shape}; it must "
            "be a scalar: sum over independent terms, or call twist under vmap"
        )
    # A factor of one, so that all who do not resample treat it as what it is to them.
    nothing = jnp.zeros((), float)
    _bind(factor_p, name or "twist", Effect(log_weight=nothing, log_potential=log_potential.astype(float)))


def deterministic(name: str, value):
    """Records ``value`` (a pytree of arrays) in the trace under ``name``, and returns it.

    >>> from borelax import ppl
    >>> trace = ppl.simulate(lambda x: ppl.deterministic("twice", 2 * x))(jax.random.key(0), jnp.array(3.0))
    >>> float(trace.deterministic["twice"])
    6.0
    """
    tree = jax.tree.structure(value)
    return jax.tree.unflatten(tree, _bind(deterministic_p, name, Effect(value=value)))


def scope(name: str):
    """A context manager that prefixes the addresses of the sites inside, nesting dicts in choices.

    Programs are composed by calling them, each under a scope of its own. For n independent copies of one program
    there is ``jax.vmap(program, in_axes=None, axis_size=n)(*args)``: its sites get a leading axis n.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> def model():
    ...     with ppl.scope("block"):
    ...         return ppl.sample("x", dist.Delta(1.0))
    >>> ppl.simulate(model)(jax.random.key(0)).choices
    {'block': {'x': Array(1., dtype=float32)}}
    """
    return compat.named_scope(_check_name(name))


# ------------------------------------------------------------------------- what a site is made of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Effect:
    """The arrays of a site: whichever of these its kind has. A twist is a factor with a ``log_potential``.

    ``present`` is the condition under which the site is reached, for sites that were in a branch before
    ``vmap`` turned the branch into a select.
    """

    distribution: Distribution | None = None
    proposal: Distribution | None = None
    value: Any = None
    log_weight: Any = None
    log_potential: Any = None
    present: Any = None


@dataclass(frozen=True)
class Axis:
    """One ``vmap`` around a site: its size, and which operands have it (leading, outermost axis first)."""

    size: int
    mapped: tuple[bool, ...]


@dataclass(frozen=True)
class Guard:
    """The branch a site was in when ``vmap`` met it: sites in different branches of one token exclude each
    other; ``optional`` if some branch lacks the address."""

    token: object
    branch: int
    optional: bool


@dataclass(frozen=True)
class Site:
    """The static description of a site.

    Attributes:
      name: its address, relative to the scopes recorded on the equation.
      source: the user's source line, ``file.py:12``.
      tree: the pytree structure of its :class:`Effect`.
      axes: the vmaps around it, outermost first.
      guards: the branches it was in before ``vmap`` turned them into selects.
      grad: the gradient strategy given by the user.
    """

    name: Address
    source: str
    tree: Any
    axes: tuple[Axis, ...] = ()
    guards: tuple[Guard, ...] = ()
    grad: Hashable = None

    def under(self, scope: Address) -> Site:
        return replace(self, name=(*scope, *self.name)) if scope else self

    def __str__(self) -> str:
        return f"{spell(self.name)!r} ({self.source})"

    def __repr__(self) -> str:
        return spell(self.name)

    def map(self, fun: Callable[..., Any], operands, *values):
        """``fun(effect, *values)``, vmapped over the site's axes; values have those axes in front."""
        leaves, tree = jax.tree.flatten(values)

        def one(*both):
            effect = jax.tree.unflatten(self.tree, both[: self.tree.num_leaves])
            return fun(effect, *jax.tree.unflatten(tree, both[self.tree.num_leaves :]))

        for axis in reversed(self.axes):
            in_axes = tuple(0 if m else None for m in axis.mapped) + (0,) * len(leaves)
            one = jax.vmap(one, in_axes=in_axes, axis_size=axis.size)
        return one(*operands, *leaves)

    def draw(self, key, operands, *, from_proposal: bool = False):
        """An independent draw per axis element, all from one key."""

        def one(key, *leaves):
            effect = jax.tree.unflatten(self.tree, leaves)
            return (effect.proposal if from_proposal else effect.distribution).sample(key)

        for axis in reversed(self.axes):
            one = independent(one, axis.size, axis.mapped)
        return one(key, *operands)

    def log_prob(self, operands, value, *, of_proposal: bool = False):
        """The log density at ``value`` (with the site's axes), summed: a scalar. Zero where not present,
        minus infinity outside the support."""

        def term(effect: Effect, value):
            total = log_prob(effect.proposal if of_proposal else effect.distribution, value)
            return total if effect.present is None else jnp.where(effect.present, total, 0.0)

        return self.sum(term, operands, value)

    def sum(self, term: Callable[..., Any], operands, *values):
        """The sum over the site's axes of ``term(effect, *values)``; values have those axes in front.

        A density that is estimated draws what it needs under the address "x density" of a site "x".
        """
        with ExitStack() as aside:
            for part in (*self.name[:-1], f"{self.name[-1]} density"):
                aside.enter_context(compat.named_scope(part))
            return jnp.sum(self.map(term, operands, *values))

    def unbatched(self, shapes) -> list[jax.ShapeDtypeStruct]:
        """The shapes of the operands of one element, without the site's axes."""
        shapes = list(shapes)
        for axis in self.axes:
            shapes = [
                jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if mapped else x
                for x, mapped in zip(shapes, axis.mapped)
            ]
        return shapes

    def effect(self, operands) -> Effect:
        """The effect with batched leaves, for a look at what is there (not for arithmetic)."""
        return jax.tree.unflatten(self.tree, operands)

    def value_of(self, outs):
        """The outputs of a deterministic site as the pytree that the user gave."""
        numbered = jax.tree.unflatten(self.tree, range(self.tree.num_leaves)).value
        return jax.tree.unflatten(jax.tree.structure(numbered), outs)

    def present(self, operands):
        """Whether the site is reached, with the site's axes; None if always."""
        if self.effect(operands).present is None:
            return None
        return self.map(lambda effect: effect.present, operands)

    def masked(self, operands, value):
        """The value to record: masked if the site was in a branch that vmap turned into a select."""
        present = self.present(operands)
        return value if present is None else Masked(value, present)


def log_prob(d: Distribution, value):
    """The total log density of ``d`` at ``value``, minus infinity outside the support of ``d``.

    numpyro's densities are formulas that are not zero outside the support (an Exponential(1) at -1 gives
    log density +1): the support is checked here.
    """
    if isinstance(without_event(d), CENSORED):
        return jnp.sum(censored_log_prob(without_event(d), value))
    total = log_prob_formula(d, value)
    support = d.support
    if support is None or type(support).__name__ in ("_Real", "_RealVector"):
        return total
    # An array even if it is a literal: numpyro compares it with bounds, which may be traced.
    return jnp.where(jnp.all(support(jnp.asarray(value))), total, -jnp.inf)


def log_prob_formula(d: Distribution, value):
    """The total log density of ``d`` at a ``value`` that is known to be in its support."""
    total = jnp.sum(d.log_prob(value))
    if any(isinstance(part, TRUNCATED) for part in parts(d)):
        # The probability of the interval was rounded to zero.
        total = jnp.where(total == jnp.inf, jnp.nan, total)
    return total


# ------------------------------------------------------------------------- the primitives


def _effect_primitive(name: str, result: Callable[[Site, tuple], list]) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True

    def refuse(*args, site: Site, **params):
        raise UnseededError(
            f"{name} site {site} ran outside any borelax transformation. A program's effects need one that "
            "handles them: run it with ppl.seed(program)(key, ...), or see ppl.log_density, inference.smc. "
            "A program must also not sample at import time, nor be differentiated before it is seeded"
        )

    def refuse_derivative(site: Site):
        _refuse_derivative(name, site)

    def batch(axis_data, operands, dims, *, site: Site):
        mapped = tuple(dim is not None for dim in dims)
        operands = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in zip(operands, dims)]
        axes = (Axis(axis_data.size, mapped), *site.axes)
        outs = primitive.bind(*operands, site=replace(site, axes=axes))
        return outs, [0] * len(outs)

    primitive.def_impl(refuse)
    primitive.def_abstract_eval(lambda *avals, site: result(site, avals))
    mlir.register_lowering(primitive, lambda ctx, *args, **params: refuse(*args, **params))
    ad.primitive_jvps[primitive] = lambda primals, tangents, *, site: refuse_derivative(site)
    # Reverse mode moves what no tangent reaches: out of a scan, or into the backward pass as well. A site must stay.
    partial_eval.custom_partial_eval_rules[primitive] = lambda trace, *tracers, site: refuse_derivative(site)
    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = lambda saveable, unknown, known, eqn: (
        refuse_derivative(eqn.params["site"])
    )
    batching.fancy_primitive_batchers[primitive] = batch
    return primitive


def _batched_avals(site: Site, avals, select: Callable[[Effect], Any]) -> list:
    """The abstract values of ``select(effect)``, with the site's axes in front."""
    shapes = jax.eval_shape(lambda *leaves: jax.tree.leaves(site.map(select, leaves)), *avals)
    return [jax.typeof(shape) for shape in shapes]


def _sampled(site: Site, avals) -> list:
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals)
    return [jax.typeof(_sample_shape(site, shapes, jax.dtypes.canonicalize_dtype(float)))]


@lru_cache(maxsize=4096)
def _sample_shape(site: Site, avals, default_float) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a draw. Which float is the default matters, so it is part of the cache's key."""
    draw = lambda *leaves: jax.tree.unflatten(site.tree, leaves).distribution.sample(jax.random.key(0))  # noqa: E731
    shape = jax.eval_shape(draw, *site.unbatched(avals))
    return jax.ShapeDtypeStruct((*(axis.size for axis in site.axes), *shape.shape), shape.dtype)


sample_p = _effect_primitive("sample", _sampled)
observe_p = _effect_primitive("observe", lambda site, avals: _batched_avals(site, avals, lambda e: e.value))
factor_p = _effect_primitive("factor", lambda site, avals: [])
deterministic_p = _effect_primitive(
    "deterministic", lambda site, avals: _batched_avals(site, avals, lambda e: e.value)
)
effect_primitives = frozenset({sample_p, observe_p, factor_p, deterministic_p})
_BY_NAME = {primitive.name: primitive for primitive in effect_primitives}


def emit(kind: str, site: Site, operands) -> list:
    """Binds a site again, as it is."""
    return _BY_NAME[kind].bind(*operands, site=site)


# ------------------------------------------------------------------------- helpers


def _bind(primitive: Primitive, name: str, effect: Effect, grad: Hashable = None) -> list:
    leaves, tree = jax.tree.flatten(effect)
    site = Site((_check_name(name),), source_line(), tree, grad=grad)
    if _in_a_jacobian():
        _refuse_derivative(primitive.name, site)
    return primitive.bind(*map(jnp.asarray, leaves), site=site)


def remake(site: Site, operands, change: Callable[..., Effect], *extra, mapped: bool = True):
    """A site with another effect made of the same operands and of extra arrays.

    Args:
      change: ``(effect, *extra) -> effect``; it may only move its arguments around.
      extra: more arrays, with all the site's axes in front if ``mapped``, else with none.

    Returns:
      The new site and its operands.
    """
    count = site.tree.num_leaves
    numbered = jax.tree.unflatten(site.tree, range(count))
    numbers, tree = jax.tree.flatten(change(numbered, *range(count, count + len(extra))))
    pool = [*operands, *extra]

    def axis(old: Axis) -> Axis:
        all_mapped = (*old.mapped, *(mapped for _ in extra))
        return Axis(old.size, tuple(all_mapped[i] for i in numbers))

    return replace(site, tree=tree, axes=tuple(map(axis, site.axes))), [pool[i] for i in numbers]


def only_where(condition, site: Site, operands):
    """The site, reached only where the condition (a bool scalar) holds as well, and its operands."""
    present = site.present(operands)
    here = jnp.broadcast_to(condition, [axis.size for axis in site.axes])
    here = here if present is None else here & present
    site, operands = remake(site, operands, lambda effect, here: replace(effect, present=here), here)
    return replace(site, guards=(*site.guards, Guard(object(), 0, optional=True))), operands


def source_line() -> str:
    """``file.py:12`` of the nearest caller outside borelax, jax and numpyro."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not is_the_users(frame):
        frame = frame.f_back
    return spell_line(frame, frame.f_lineno)


def is_the_users(frame: FrameType) -> bool:
    """Whether a frame runs code outside borelax, jax and numpyro."""
    return frame.f_globals.get("__name__", "").split(".")[0] not in ("borelax", "jax", "numpyro")


def spell_line(frame: FrameType, line: int) -> str:
    """``file.py:12``."""
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{line}"


def _refuse_derivative(kind: str, site: Site):
    raise UnseededError(
        f"{kind} site {site} is differentiated before it is handled: jax.grad, jvp, vjp or the like is around it. "
        "A site has no derivative: move it out of the function, or differentiate a function without sites, such as "
        "ppl.seed(program) for a given key or ppl.log_density(program)"
    )


def _in_a_jacobian() -> bool:
    """Whether the program calls us inside ``jax.jacfwd``, ``jacrev`` or ``hessian``. The first is a vmap over
    directions, which would make a site into a copy for each, and nothing but the call itself tells it from a vmap."""
    frame = sys._getframe(1)
    while frame is not None and (module := frame.f_globals.get("__name__", "")) != f"{__package__}.staging":
        if frame.f_code.co_name == "jacfun" and module.startswith("jax."):
            return True
        frame = frame.f_back
    return False


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not name or "/" in name:
        raise SiteError(
            f"an address is a non-empty string without '/', got {name!r} at {source_line()}: rename it"
        )
    return name


def _check_proposal(name: str, d: Distribution, proposal) -> None:
    _check_distribution(name, proposal, "proposal")
    _check_draws(name, proposal)
    if getattr(proposal, "is_estimated", False):
        raise UnsupportedError(
            f"site {name!r} at {source_line()}: the density of this proposal is only an estimate, and weights "
            "divide by it, which is biased; give its program an exact algorithm, such as inference.enumerate"
        )
    kinds = [(x.shape(), x.event_dim, bool(x.support.is_discrete)) for x in (d, proposal)]
    if kinds[0] != kinds[1]:
        described = [
            f"{type(x).__name__} ({'discrete' if discrete else 'continuous'}, shape {shape}, "
            f"event_dim {event_dim})"
            for x, (shape, event_dim, discrete) in zip((d, proposal), kinds)
        ]
        raise SiteError(
            f"site {name!r} at {source_line()}: the proposal must be over the same values as the distribution, "
            f"but they are {described[1]} and {described[0]}"
        )


def _check_distribution(name: str, d, what: str) -> None:
    if not isinstance(d, Distribution):
        raise SiteError(
            f"site {name!r} at {source_line()}: {what} must be a numpyro.distributions object, "
            f"got {type(d).__name__}; write ppl.sample(name, dist.Normal(0.0, 1.0))"
        )
    if reason := wrong_density(d):
        raise UnsupportedError(f"site {name!r} at {source_line()}: {reason}")


def _check_draws(name: str, d: Distribution) -> None:
    if reason := wrong_draws(d):
        raise UnsupportedError(f"site {name!r} at {source_line()}: {reason}")
