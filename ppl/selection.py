"""Selections: sets of addresses, with the algebra of sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .choices import Address, flatten, nest, spell
from .errors import AddressError, did_you_mean


class Selection:
    """A set of addresses; made by :func:`select`.

    ``a | b``, ``a & b``, ``~a`` and ``a - b`` are union, intersection, complement and difference; ``"block/x" in a``
    asks for one address; ``a.of(choices)`` is the part of some choices that is selected.
    """

    def __init__(self, contains: Callable[[Address], bool], named: frozenset[Address], spelled: str):
        self._contains = contains
        self._named = named
        self._spelled = spelled

    def __contains__(self, address: str) -> bool:
        return self._contains(tuple(address.split("/")))

    def __or__(self, other: Selection) -> Selection:
        return self._with(other, lambda a: self._contains(a) or other._contains(a), "|")

    def __and__(self, other: Selection) -> Selection:
        return self._with(other, lambda a: self._contains(a) and other._contains(a), "&")

    def __sub__(self, other: Selection) -> Selection:
        return self._with(other, lambda a: self._contains(a) and not other._contains(a), "-")

    def __invert__(self) -> Selection:
        return Selection(lambda a: not self._contains(a), self._named, f"~{self._spelled}")

    def __repr__(self) -> str:
        return self._spelled

    def of(self, choices: Mapping) -> dict:
        """The selected part of nested choices, nested likewise.

        Raises:
          AddressError: an address was named of which the choices have no site.

        >>> (~select("block/x")).of({"block": {"x": 1, "y": 2}, "z": 3})
        {'block': {'y': 2}, 'z': 3}
        """
        flat = flatten(choices)
        chosen = self.among(flat)
        return nest({address: value for address, value in flat.items() if address in chosen})

    def among(self, addresses: Iterable[Address]) -> set[Address]:
        """The selected ones of these addresses.

        Raises:
          AddressError: an address was named that is none of these, and no scope of one.
        """
        known = list(addresses)
        for name in sorted(self._named):
            if not any(address[: len(name)] == name for address in known):
                spelled = [spell(address) for address in known]
                raise AddressError(
                    f"the selection names {spell(name)!r}, which is no site here"
                    f"{did_you_mean(spell(name), spelled)}; there are {', '.join(map(repr, spelled)) or 'none'}"
                )
        return {address for address in known if self._contains(address)}

    def _with(self, other: Selection, contains, operator: str) -> Selection:
        return Selection(
            contains, self._named | other._named, f"({self._spelled} {operator} {other._spelled})"
        )


def select(*what: str | Callable[[str], bool]) -> Selection:
    """The addresses that are any of ``what``.

    Args:
      what: an address such as ``"x"`` or ``"block/x"``; a scope, which stands for all that is under it; or a
        predicate, called with the spelled address.

    >>> some = select("block", lambda address: address.endswith("z"))
    >>> "block/x" in some, "z" in some, "y" in some
    (True, True, False)
    >>> some.of({"block": {"x": 1}, "y": 2, "z": 3})
    {'block': {'x': 1}, 'z': 3}
    """
    for one in what:
        if not isinstance(one, str) and not callable(one):
            raise TypeError(f"a selection is made of addresses and predicates, got {one!r}")
    names = [tuple(one.split("/")) for one in what if isinstance(one, str)]
    predicates = [one for one in what if not isinstance(one, str)]

    def contains(address: Address) -> bool:
        by_name = any(address[: len(name)] == name for name in names)
        return by_name or any(predicate(spell(address)) for predicate in predicates)

    return Selection(contains, frozenset(names), f"select({', '.join(map(repr, what))})")
