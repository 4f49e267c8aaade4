"""unconstrain: the density of a program over R^n, and the maps between R^n and its choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import Distribution

from .bijection import at_position, bijection, obstacle
from .choices import Address, nest, unmasked
from .describe import family
from .effects import Effect, Site, sample_at
from .errors import ChoiceError, UnsupportedError
from .given import check_given
from .interpreter import Handler, interpret
from .random_key import refuse_keys
from .staging import SiteInfo, Staged, stage
from .weigh import weigh_site


def unconstrain(program: Callable) -> Unconstrained:
    """The density over R^n that Hamiltonian Monte Carlo needs, and the maps between R^n and choices.

    A position is nested dicts like choices. At a site it holds the coordinates of the site's value under a smooth
    one-to-one map T from R^n onto its support: the logarithm of a positive number, K - 1 numbers for a simplex of K;
    for a transformed distribution, the coordinates of its base. They have the value's leading axes, one for each
    enclosing scan and vmap. A support may depend on other choices. With x a position, T(x) its choices and p the
    program's density,

        log_density(x) = log p(T(x)) + log |det dT/dx|,

    so that draws from it are, mapped by ``constrain``, draws from the program. On a support with fewer dimensions than
    its values have (simplex, Cholesky factor of a correlation matrix), the determinant is that of the map to the
    coordinates in which numpyro's density is one.

    In floating point this holds to rounding as long as T(x) can tell x from its neighbours. Far out it cannot: the
    exponential overflows or is zero, the sigmoid stays one step below 1. There the density is what numpyro's formula
    gives at the rounded value, or minus infinity where that is not a finite number, so that a step into it is rejected;
    its gradient may be NaN. A density that is NaN elsewhere stays NaN.

    Raises, when one of its functions is called:
      UnsupportedError: a site is discrete, has a point of positive probability, has a support without such a map, is in
        a while_loop, or is missing from some branch (then the number of dimensions would change along the way).
      AddressError: a site without a position or a value, or the reverse.
      ChoiceError: a wrong shape or dtype.

    Source: Kucukelbir et al., *Automatic differentiation variational inference*, JMLR 18 (2017), section 2.3; the maps
    are those of the Stan reference manual, "Constraint transforms".

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> free = ppl.unconstrain(lambda: ppl.sample("x", dist.Exponential(1.0)))
    >>> choices = free.constrain({"x": 0.0})
    >>> float(choices["x"]), float(free.log_density({"x": 0.0}))
    (1.0, -1.0)
    >>> float(free.unconstrain(choices)["x"])
    0.0
    """
    return Unconstrained(program)


@dataclass(frozen=True)
class Unconstrained:
    """A program over R^n; see :func:`unconstrain`. Its methods are pure functions of a position or of choices."""

    program: Callable

    def log_density(self, position: Mapping, *args, **kwargs) -> jax.Array:
        """The log density at a position, a scalar: what HMC differentiates."""
        return _constrain(self.program, position, *args, **kwargs)[0]

    def constrain(self, position: Mapping, *args, **kwargs) -> dict:
        """The choices at a position, in the shapes of ``simulate(program)(key, *args).choices``."""
        return _constrain(self.program, position, *args, **kwargs)[1]

    def unconstrain(self, choices: Mapping, *args, **kwargs) -> dict:
        """The position of choices: the inverse of ``constrain``.

        Raises:
          ChoiceError: a concrete value outside its support or on its edge, which no position is mapped to. A traced
            one has a position that is not finite.
        """
        staged = stage(self.program, *args, **kwargs)
        handler = _Unconstrain({info.address: info for info in _in_coordinates(staged).of_kind("sample")})
        given = check_given(staged, choices, complete=True)
        _, _, records = interpret(staged, handler, None, given)
        position = {address: unmasked(x) for address, x in records.items()}
        for address, x in position.items():
            if not isinstance(x, jax.core.Tracer) and not jnp.all(jnp.isfinite(x)):
                raise ChoiceError(
                    f"the value given for {handler.coordinates[address].site} is outside its support or on its edge, "
                    f"which no position is mapped to: {given[address]}"
                )
        return nest(position)

    def shapes(self, *args, **kwargs) -> dict:
        """The shapes and dtypes of a position: nested dicts of ``jax.ShapeDtypeStruct``."""
        return nest(_shapes(self.program, *args, **kwargs))

    def start(self, *args, **kwargs) -> dict:
        """A position to start from, as a program: each number uniform on (-2, 2), as Stan does.

        >>> from borelax import ppl
        >>> import numpyro.distributions as dist
        >>> free = ppl.unconstrain(lambda: ppl.sample("x", dist.Dirichlet(jnp.ones(3))))
        >>> ppl.seed(free.start)(jax.random.key(0))["x"].shape
        (2,)
        """
        anywhere = {
            address: sample_at(address, dist.Uniform(-2.0, 2.0).expand(x.shape)).astype(x.dtype)
            for address, x in _shapes(self.program, *args, **kwargs).items()
        }
        return nest(anywhere)


# ------------------------------------------------------------------------- the handlers


def _constrain(program: Callable, position: Mapping, *args, **kwargs) -> tuple[jax.Array, dict]:
    """The log density at a position, and its choices."""
    staged = stage(program, *args, **kwargs)
    given = check_given(_in_coordinates(staged), position, complete=True)
    start = jnp.zeros((), float), jnp.array(True)
    _, (total, resolved), records = interpret(staged, _Constrain(), start, given)
    log_density = jnp.where(resolved | (total < jnp.inf), total, -jnp.inf)
    return log_density, nest({address: unmasked(value) for address, value in records.items()})


class _Constrain(Handler):
    """State: the log density so far, and whether floating point has resolved every value. Records the values."""

    def site(self, kind, site: Site, operands, given, state):
        total, resolved = state
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), state, None
        if kind != "sample":
            outs, increment = weigh_site(kind, site, operands)
            return outs, (total + increment.astype(total.dtype), resolved), None
        value, terms, resolves = site.map(partial(_value, site), operands, given)
        state = total + jnp.sum(terms).astype(total.dtype), resolved & jnp.all(resolves)
        return [value], state, site.masked(operands, value)


class _Unconstrain(Handler):
    """Records the position of every value."""

    def __init__(self, coordinates: Mapping[Address, _Coordinates]):
        self.coordinates = coordinates

    def site(self, kind, site: Site, operands, given, state):
        if kind == "sample":
            x = site.map(partial(_position, site, self.coordinates[site.name]), operands, given)
            return [given], state, site.masked(operands, x)
        outs = [] if kind == "factor" else jax.tree.leaves(site.map(lambda effect: effect.value, operands))
        return outs, state, None


def _value(site: Site, effect: Effect, x):
    """The value at a position, its log density over positions, and whether floating point can tell it from others."""
    d, here = effect.distribution, True if effect.present is None else effect.present
    _check_shape(site, d, x)
    x = jnp.where(here, x, 0.0)  # in a branch that is not taken, a harmless point
    value, term = at_position(d, x)
    # Rounded to the edge of the support, a value has no position; a clipped one has that of another value. The barrier
    # keeps the compiler from taking log(exp(x)) for x.
    rounded = lax.optimization_barrier(lax.stop_gradient(value))
    returns = jnp.all(jnp.abs(bijection(d).inv(rounded) - x) < 1.0)
    resolved = jnp.logical_not(here) | (returns & jnp.all(d.support(rounded)))
    return value, jnp.where(here, term, 0.0), resolved


def _position(site: Site, expected: _Coordinates, effect: Effect, value):
    d = effect.distribution
    event_shape = expected.shape[len(expected.present_shape) :]
    _check_shape(site, d, jax.ShapeDtypeStruct(event_shape, expected.dtype))
    return jnp.where(jnp.all(d.support(value)), bijection(d).inv(value), jnp.nan)


# ------------------------------------------------------------------------- the shapes of positions


@dataclass(frozen=True)
class _Coordinates(SiteInfo):
    """A ``sample`` site, with the shape and dtype of its position instead of its value."""

    def __str__(self) -> str:
        return f"the position of {super().__str__()}"


def _shapes(program: Callable, *args, **kwargs) -> dict[Address, jax.ShapeDtypeStruct]:
    infos = _in_coordinates(stage(program, *args, **kwargs)).of_kind("sample")
    return {info.address: jax.ShapeDtypeStruct(info.shape, info.dtype) for info in infos}


def _in_coordinates(staged: Staged) -> Staged:
    """The program with positions in place of the values of its sites, for a look at their shapes."""
    refuse_keys(staged.of_kind("sample"))
    optional = staged.optional
    sites = (
        _coordinates(replace(info, optional=info.address in optional)) if info.kind == "sample" else info
        for info in staged.sites
    )
    return replace(staged, sites=tuple(sites))


def _coordinates(info: SiteInfo) -> _Coordinates:
    if info.unbounded:
        raise UnsupportedError(
            f"site {info} is inside a while_loop: it has no fixed number of values; use lax.scan or lax.fori_loop "
            "with a fixed number of steps"
        )
    if info.optional:
        raise UnsupportedError(
            f"site {info} is missing from some branch, so that the number of dimensions depends on the branch; draw "
            "it in every branch (or before the cond), or give it with ppl.condition"
        )

    def origin(*leaves):
        return _origin(info.site, info.site.effect(leaves).distribution, info.dtype)

    x = jax.eval_shape(origin, *info.site.unbatched(info.operands))
    own = {field.name: getattr(info, field.name) for field in fields(info)}
    return _Coordinates(**{**own, "shape": (*info.present_shape, *x.shape), "dtype": x.dtype})


def _check_shape(site: Site, d: Distribution, x) -> None:
    """The branches of a scalar ``cond`` are seen one by one: all must have the coordinates of the first."""
    shape = _origin(site, d, x.dtype).shape
    if shape != x.shape:
        raise UnsupportedError(
            f"the position of one element of {site} has shape {shape} in this branch, and {x.shape} in another, so "
            "that the number of dimensions depends on the branch; give the sites different names"
        )


def _origin(site: Site, d: Distribution, dtype):
    """The position of one element of a site with all its numbers 0, as precise as ``dtype``."""
    if reason := obstacle(d):
        raise UnsupportedError(f"site {site} {reason}")
    try:
        to_value = bijection(d)
        x = jnp.zeros(to_value.inverse_shape(d.shape()), jnp.finfo(dtype).dtype)
        value = to_value(x)
    except NotImplementedError:
        value = None
    if value is None or (value.shape, jnp.finfo(value.dtype).dtype) != (d.shape(), x.dtype):
        raise UnsupportedError(
            f"site {site}: numpyro has no one-to-one map from R^n onto the support of {family(d)}, so its value has no "
            "position; draw it from a transformed distribution, or move it with another kernel"
        )
    return x
