"""Quadrature: the meaning of a program with continuous sites, up to an error that is stated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import starmap

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ..ppl.bijection import bijection, obstacle
from ..ppl.choices import Address, spell
from ..ppl.describe import family
from ..ppl.effects import Site
from ..ppl.errors import AddressError, BorelaxError, UnsupportedError, did_you_mean
from ..ppl.population import Population
from ..ppl.staging import Staged
from .branch import Branch, has_finite_support
from .measure import Measure

# Three rules: the share of the nodes, and how far a density is followed outwards, in nats below its top.
_RULES = ((1, 40.0), (2 / 3, 35.0), (1 / 2, 30.0))
_PILOT = 1_024  # draws, of a fixed key, that say where a distribution lies
_ROUNDING = 1e-13  # relative: what float64 may get wrong in a sum of weights that are exponentials


class QuadratureError(BorelaxError, ValueError):
    """Quadrature is asked for where there is none, or with a number of nodes that makes no rule."""


class Quadrature(Measure):
    """A measure by quadrature: values are nodes, and what it says has an error.

    There are three rules: this one, and two with two thirds and half of its nodes that go less far out. The error that
    is stated is the largest difference between them. Where the integrand is smooth it is far larger than the true one,
    which falls exponentially with the number of nodes; where it jumps or has kinks it is of its size. What no rule
    sees is not in it, such as a peak much narrower than the distance of nodes.

    Attributes:
      coarser: the measures by the two other rules.

    >>> from borelax import ppl, semantics
    >>> import numpyro.distributions as dist
    >>> waiting = lambda: ppl.sample("x", dist.Exponential(2.0))
    >>> measure = semantics.meaning(waiting, quadrature={"x": 65})()
    >>> print(f"{measure.expectation():.6f}", bool(measure.error(lambda x: x) < 1e-5))
    0.500000 True
    """

    coarser: tuple[Measure, ...]

    @classmethod
    def by(cls, rules: Iterable[Measure]) -> Quadrature:
        """From the measures by all rules, the finest first."""
        finest, *coarser = rules
        self = cls.stacked(finest.stack, finest.weights)
        self.coarser = tuple(coarser)
        return self

    @property
    def rules(self) -> tuple[Measure, ...]:
        """The measures by all rules, the finest first."""
        return Measure.stacked(self.stack, self.weights), *self.coarser

    def error(self, f: Callable = lambda x: 1.0):
        """The stated error of ``expectation(f)``; without an f, that of the total mass."""
        size = self.expectation(lambda x: jax.tree.map(lambda y: np.abs(np.asarray(y, np.float64)), f(x)))
        found = [rule.expectation(f) for rule in self.rules]
        return jax.tree.map(lambda size, *xs: np.ptp(xs, axis=0) + _ROUNDING * size, size, *found)

    def normalise(self) -> Quadrature:
        return self.by(rule.normalise() for rule in self.rules)

    def map(self, f: Callable) -> Quadrature:
        return self.by(rule.map(f) for rule in self.rules)

    def bind(self, kernel: Callable) -> Quadrature:
        return self.by(rule.bind(kernel) for rule in self.rules)

    def __rmul__(self, factor: float) -> Quadrature:
        return self.by(factor * rule for rule in self.rules)

    def __add__(self, other: Measure) -> Quadrature:
        others = other.rules if isinstance(other, Quadrature) else [other] * len(self.rules)
        return self.by(one + other for one, other in zip(self.rules, others))

    def _title(self) -> str:
        error = float(self.error())
        return f"Quadrature on {len(self)} values, total mass {self.total:.6g} ± {error:.1g}"


def by_quadrature(
    every_run: Callable[..., Population], staged: Staged, points: Mapping[str, int]
) -> Quadrature:
    """The measure by quadrature at some sites and by enumeration at the others.

    Args:
      every_run: the population of all runs, given what makes a :class:`~borelax.semantics.branch.Branch` policy.
      staged: the program.
      points: the number of nodes for each dimension of a site, by its address.
    """
    declared = _declared(staged, points)

    def measure(share: float, drop: float) -> Measure:
        counts = {address: (round(share * n), dtype) for address, (n, dtype) in declared.items()}
        run = every_run(partial(Nodes, counts=counts, drop=drop))
        return Measure.of(run.value, run.log_weight)

    return Quadrature.by(starmap(measure, _RULES))


class Nodes(Branch):
    """Members branch into one for every node at the declared sites, and for every value of the support at others.

    Args:
      counts: the number of nodes and the dtype of a site, by its address.
      drop: nodes go as far out as the density is above its maximum by ``exp(-drop)``.
    """

    def __init__(self, *, counts: Mapping[Address, tuple], drop: float, prune: bool, most: int):
        super().__init__(prune=prune, most=most)
        self.counts = counts
        self.drop = drop

    def support(self, site: Site, operands) -> Callable:
        if site.name not in self.counts:
            return super().support(site, operands)
        count, dtype = self.counts[site.name]
        copies = int(np.prod([axis.size for axis in site.axes]))

        def nodes(d: Distribution):
            _check_continuous(site, d)
            value, log_mass = _nodes(site, d, copies, count, self.drop)
            return value.astype(dtype), log_mass

        return nodes


# ------------------------------------------------------------------------- the rule


def _nodes(site: Site, d: Distribution, copies: int, count: int, drop: float):
    """Nodes ``[C, *batch, *event]`` and the logs of density times weight, ``[C, *batch]``.

    With ``z = c + A sinh(t)`` the unconstrained coordinates of a value, it is the trapezoid rule for t: a density that
    is smooth, with tails no heavier than a power, goes to zero fast in t, so that the rule converges exponentially.
    Centre c and scale A are those of a fixed sample.

    Source: Takahasi and Mori, *Double exponential formulas for numerical integration*, Publications of RIMS 9 (1974).
    """
    to_value = bijection(d)
    inner = to_value.inverse_shape(d.event_shape)
    dimension = int(np.prod(inner))
    total = copies * int(np.prod(d.batch_shape)) * dimension
    if not 1 <= total <= 2:
        raise UnsupportedError(
            f"{site} has {total} dimensions, and quadrature has one or two at a site: the number of nodes is their "
            "product; draw the components at sites of their own, or sample instead (inference.smc)"
        )
    centre, scale = _pilot(d, to_value, dimension)

    def density(t):
        """The value at ``t[N, *batch, dimension]``, and the log density of t there, ``[N, *batch]``."""
        z = centre + jnp.einsum("...ij,...j->...i", scale, jnp.sinh(t))
        z = z.reshape(*z.shape[:-1], *inner)
        value = to_value(z)
        log_density = d.log_prob(value)
        jacobian = to_value.log_abs_det_jacobian(z, value)
        jacobian = jnp.sum(jacobian, axis=tuple(range(log_density.ndim, jacobian.ndim)))
        stretch = jnp.log(jnp.cosh(t)).sum(-1) + jnp.log(jnp.diagonal(scale, axis1=-2, axis2=-1)).sum(-1)
        return value, log_density + jacobian + stretch

    low, high = _extent(density, len(d.batch_shape), dimension, drop)
    step = (high - low) / (count - 1)
    index = jnp.stack(jnp.meshgrid(*[jnp.arange(count)] * dimension, indexing="ij"), -1)
    index = index.reshape(-1, *(1,) * len(d.batch_shape), dimension)
    value, log_density = density(low + index * step)
    return value, log_density + jnp.log(step).sum(-1)


def _pilot(d: Distribution, to_value, dimension: int):
    """Where the unconstrained coordinates lie: their centre ``[*batch, m]``, and a lower triangular scale."""
    draws = d.sample(jax.random.key(0), (_PILOT,))
    z = to_value.inv(draws).reshape(_PILOT, *d.batch_shape, dimension)
    low, centre, high = jnp.quantile(z, jnp.array([0.25, 0.5, 0.75]), axis=0)
    spread = (high - low) / 1.35
    spread = jnp.where(spread > 0, spread, jnp.nan)  # what lies in one point has no density
    if dimension == 1:
        return centre, spread[..., None]
    u = jnp.clip((z - centre) / spread, -3.0, 3.0)
    correlation = (u[..., 0] * u[..., 1]).mean(0) / jnp.sqrt((u**2).mean(0).prod(-1))
    correlation = jnp.clip(correlation, -0.99, 0.99)
    one, none = jnp.ones_like(correlation), jnp.zeros_like(correlation)
    rows = [jnp.stack([one, none], -1), jnp.stack([correlation, jnp.sqrt(1 - correlation**2)], -1)]
    return centre, jnp.stack(rows, -2) * spread[..., None]


def _extent(density: Callable, batch: int, dimension: int, drop: float):
    """How far t goes, ``[*batch, m]`` both: along its axes and diagonals the density stays above its top by drop."""
    along = jnp.linspace(-40.0, 40.0, 801)
    directions = jnp.array([[1.0]] if dimension == 1 else [[1, 0], [0, 1], [1, 1], [1, -1]])
    t = (along[:, None, None] * directions).reshape(-1, *(1,) * batch, dimension)
    _, log_density = density(t)
    log_density = jnp.where(jnp.isnan(log_density), -jnp.inf, log_density)
    inside = (log_density >= log_density.max(0) - drop)[..., None]
    margin = along[1] - along[0]
    return jnp.where(inside, t, jnp.inf).min(0) - margin, jnp.where(inside, t, -jnp.inf).max(0) + margin


# ------------------------------------------------------------------------- helpers


def _declared(staged: Staged, points: Mapping[str, int]) -> dict[Address, tuple]:
    """The number of nodes and the dtype of each declared site."""
    sites = {spell(info.address): info for info in staged.of_kind("sample")}
    for name, count in points.items():
        if name not in sites:
            raise AddressError(
                f"quadrature is declared at {name!r}, and the program has no such sample site"
                f"{did_you_mean(name, sites)}; it has {', '.join(sites) or 'none'}"
            )
        if not isinstance(count, int) or count < 9:
            raise QuadratureError(
                f"the number of nodes at {sites[name]} is an integer of at least 9, got {count!r}"
            )
    return {sites[name].address: (count, sites[name].dtype) for name, count in points.items()}


def _check_continuous(site: Site, d: Distribution) -> None:
    if has_finite_support(d):
        raise QuadratureError(
            f"{site} has finitely many values, which are all added up: declare no nodes there"
        )
    if reason := obstacle(d):
        raise UnsupportedError(f"there is no quadrature at {site}: its {family(d)} {reason}")
    try:
        bijection(d)
    except NotImplementedError:
        raise UnsupportedError(
            f"there is no quadrature at {site}: numpyro has no map from R^n onto the values of {family(d)}; draw "
            "coordinates of it, or sample instead (inference.smc)"
        ) from None
