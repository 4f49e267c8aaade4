"""The errors borelax raises on purpose. Each says what was wrong, where, and what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BorelaxError(Exception):
    """Base of every error raised on purpose by borelax."""


class AddressError(BorelaxError, KeyError):
    """An address is unknown, missing or used twice."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class ChoiceError(BorelaxError, ValueError):
    """A value given for a site has the wrong shape or dtype, or lies outside the site's support."""


class SiteError(BorelaxError, TypeError, ValueError):
    """A site was called with arguments that no site can have."""


class UnseededError(BorelaxError, RuntimeError):
    """An effect reached JAX itself: the program ran without a transformation that handles its effects."""


class LeakError(BorelaxError, TypeError):
    """A value is used outside the run, or the part of a run, that it belongs to."""


class UnsupportedError(BorelaxError, TypeError):
    """A transformation cannot treat a construct correctly, and refuses it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known word, or the empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
