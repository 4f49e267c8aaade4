"""key_reuse: PRNG keys of which random numbers are made more than once."""

from __future__ import annotations

from collections import defaultdict

from ...ppl.staging import Staged
from .abstract import Abstract, Use
from .finding import Finding


def key_reuse(staged: Staged, abstract: Abstract | None = None) -> tuple[Finding, ...]:
    """A warning for each key from which a program draws or splits more than once: the draws are then not independent.

    Two keys are the same if they are computed in the same way, from ``jax.random.key(0)`` on, or by the same fold_in.
    A key is used twice by two calls that can both happen in one run, or by one call in a loop around which it does not
    change. Within the functions of JAX and NumPyro nothing is looked for, nor after keys that the program draws itself.
    fold_in does not use a key.

    >>> from borelax import ppl
    >>> from borelax.ppl.staging import stage
    >>> import jax
    >>> def noise(key):
    ...     return jax.random.normal(key) + jax.random.uniform(key)
    >>> [finding.severity for finding in key_reuse(stage(noise, jax.random.key(0)))]
    ['warning']
    """
    abstract = Abstract(staged) if abstract is None else abstract
    by_key: dict[int, list[Use]] = defaultdict(list)
    for use in abstract.uses.values():
        by_key[use.number].append(use)
    found = {}
    for uses in by_key.values():
        places = _conflict(uses, abstract)
        if len(places) > 1:
            lines = [use.source for use in places]
            what = f"a PRNG key is used here that is used at {lines[0]} already: the random numbers are not independent"
            found[lines[-1], what] = Finding("warning", what, lines[-1], _REMEDY)
    for use in abstract.last.values():
        if _repeats(use):
            what = "a PRNG key is used in a loop around which it does not change: each step has the same random numbers"
            found[use.source, what] = Finding("warning", what, use.source, _REMEDY)
    return tuple(found.values())


_REMEDY = "split it (jax.random.split) and use each part once"


def _conflict(uses: list[Use], abstract: Abstract) -> list[Use]:
    """Two uses of a key that can both happen in one run."""
    for i, one in enumerate(uses):
        for other in uses[i + 1 :]:
            if one.place != other.place and not abstract.exclusive(one.place, other.place):
                return [one, other]
    return []


def _repeats(use: Use) -> bool:
    """Whether a key is used in a loop that does not change it."""
    return any(plate.size not in (0, 1) for plate in use.plates[use.level :])
