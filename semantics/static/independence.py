"""independent: which sites of a program are independent given others, read off its dependences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from numpyro.distributions import Distribution, MaskedDistribution

from ...ppl import AddressError
from ...ppl.choices import spell
from ...ppl.errors import did_you_mean
from ...ppl.laws import parts
from ...ppl.staging import stage
from ...ppl.table import Table
from .origins import Origins


@dataclass(frozen=True, repr=False)
class Independence:
    """Whether two sites are proved to be independent.

    Attributes:
      holds: whether they are. If not, they may still be: dependence is not proved.
      through: a chain of dependences that joins them, if there is one.
    """

    a: str
    b: str
    given: tuple[str, ...]
    holds: bool
    through: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        given = f" given {', '.join(map(repr, self.given))}" if self.given else ""
        if self.holds:
            return f"{self.a!r} and {self.b!r} are independent{given}"
        return f"{self.a!r} and {self.b!r} may depend on each other{given}: {' - '.join(self.through)}"


def independent(program: Callable, a: str, b: str, given: Iterable[str] = ()) -> Callable:
    """``(*args) -> Independence``: are two sites independent given others, and given all that is observed?

    The measure is that of the program at these arguments, normalised; for a site in a loop or under vmap, what is
    asked is about all its values together. The answer is that of separation in the moral graph: what flows into one
    site, or into one factor, or decides whether a site is reached, is joined; sites that lead to neither ``a`` nor
    ``b`` nor what is given nor any weight are left out, since their densities integrate to one; then ``a`` and ``b``
    are independent if every chain between them passes a site that is given. A proposal is not part of the model.

    This proves independence. It never proves dependence: ``0 * x`` comes from ``x``, and the vmapped copies of a site
    count as one. A site that observes a value computed from draws is not taken as given.

    Args:
      a, b: addresses of sites, such as ``"x"`` or ``"block/x"``.
      given: addresses of sites whose values are known besides.

    Raises:
      AddressError: an address that the program does not have.

    Source: Lauritzen, Dawid, Larsen and Leimer, *Independence properties of directed Markov fields*, Networks 20
    (1990).

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def model():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     y = ppl.sample("y", dist.Normal(x, 1.0))
    ...     ppl.sample("z", dist.Normal(y, 1.0))
    >>> semantics.independent(model, "x", "z", given=["y"])()
    'x' and 'z' are independent given 'y'
    >>> semantics.independent(model, "x", "z")()
    'x' and 'z' may depend on each other: x - y - z
    """
    given = (given,) if isinstance(given, str) else tuple(given)

    def asked(*args, **kwargs) -> Independence:
        model = _Model(Origins(stage(program, *args, **kwargs)))
        for address in (a, b, *given):
            model.check(address)
        through = model.chain(a, b, given)
        return Independence(a, b, given, not through, through)

    return asked


def independences(program: Callable, given: Iterable[str] = ()) -> Callable:
    """``(*args) -> Table``: :func:`independent` for every two ``sample`` sites that are not given.

    >>> import numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def model():
    ...     a, b = (ppl.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
    ...     ppl.observe("sum", dist.Normal(a + b, 1.0), 2.0)
    ...     ppl.sample("c", dist.Normal(0.0, 1.0))
    >>> semantics.independences(model)()
    2 of 3 pairs of sites are independent
      sites  independent  joined by
      a, b                a - b
      a, c   yes
      b, c   yes
    """
    given = (given,) if isinstance(given, str) else tuple(given)

    def tabled(*args, **kwargs) -> Table:
        model = _Model(Origins(stage(program, *args, **kwargs)))
        for address in given:
            model.check(address)
        pairs = list(combinations([name for name in model.drawn if name not in given], 2))
        chains = [model.chain(*pair, given) for pair in pairs]
        rows = tuple(
            (", ".join(pair), "" if chain else "yes", " - ".join(chain)) for pair, chain in zip(pairs, chains)
        )
        under = f" given {', '.join(given)}" if given else ""
        title = f"{sum(not chain for chain in chains)} of {len(pairs)} pairs of sites are independent{under}"
        return Table(("sites", "independent", "joined by"), rows, title)

    return tabled


class _Model:
    """The dependences among the sites of a program, by name. Factors have names of their own, with a number.

    Attributes:
      parents: what flows into each site.
      fixed: the sites that observe a value which comes from no site.
      weights: the sites that must not be left out, since their densities do not integrate to one.
      drawn: the ``sample`` sites.
    """

    def __init__(self, origins: Origins):
        names = {
            place: spell(o.site.name) if o.kind != "factor" else f"{spell(o.site.name)} #{number}"
            for number, (place, o) in enumerate(origins.sites.items())
        }
        self.parents: dict[str, set[str]] = defaultdict(set)
        self.fixed, self.weights, varying = set(), set(), set()
        for place, origin in origins.sites.items():
            self.parents[names[place]] |= {names[source] for source in origin.sources}
            if origin.kind in ("observe", "factor") or _is_weight(origin):
                self.weights.add(names[place])
            if origin.kind == "observe":
                (varying if origin.value else self.fixed).add(names[place])
        self.fixed -= varying
        self.factors = {names[place] for place, o in origins.sites.items() if o.kind == "factor"}
        self.drawn = list(
            dict.fromkeys(names[place] for place, o in origins.sites.items() if o.kind == "sample")
        )

    def check(self, address: str) -> None:
        known = [name for name in self.parents if name not in self.factors]
        if address not in known:
            raise AddressError(
                f"{address!r} is no site of the program{did_you_mean(address, known)}; it has "
                f"{', '.join(map(repr, known)) or 'none'}"
            )

    def chain(self, a: str, b: str, given: Iterable[str]) -> tuple[str, ...]:
        """A chain from ``a`` to ``b`` that passes nothing that is given; empty if there is none."""
        blocked = self.fixed | set(given)
        if a in blocked or b in blocked:
            return ()
        kept = self._ancestors({a, b, *given, *self.weights})
        joined = defaultdict(set)
        for site in kept:
            together = self.parents[site] | ({site} - self.factors)
            for one in together:
                joined[one] |= together
        came_from, frontier = {a: a}, [a]
        while frontier and b not in came_from:
            reached = [(site, other) for site in frontier for other in sorted(joined[site] - blocked)]
            frontier = []
            for site, other in reached:
                if other not in came_from:
                    came_from[other] = site
                    frontier.append(other)
        if b not in came_from:
            return ()
        chain = [b]
        while chain[-1] != a or len(chain) == 1:
            chain.append(came_from[chain[-1]])
        return tuple(reversed(chain))

    def _ancestors(self, sites: set[str]) -> set[str]:
        found, frontier = set(sites), set(sites)
        while frontier:
            frontier = {parent for site in frontier for parent in self.parents[site]} - found
            found |= frontier
        return found


def _is_weight(origin) -> bool:
    """Whether a site's density may not integrate to one."""
    d: Distribution | None = origin.site.effect([0] * origin.site.tree.num_leaves).distribution
    return d is not None and any(isinstance(part, MaskedDistribution) for part in parts(d))
