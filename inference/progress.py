"""A line that says how far a run is, while it is compiled code that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import jax
from jax import lax

_UPDATES = 50  # of a loop
_PAUSE = 0.1  # seconds between two that are shown


@dataclass
class Progress:
    """A bar for a loop of ``total`` steps, of which the first ``num_warmup`` are warmup.

    Calling it with the number of steps that were taken shows that, now and then: fifty times in the whole loop. It
    may be called in ``jit``, in loops, and in ``vmap``, where the number must not be mapped: then there is one bar for
    all. Runs of one compiled function take turns with the bar.

    Attributes:
      stream: where to write; stderr if None.
      clock: seconds since whenever.
      unit: what is counted, after the warmup.
    """

    total: int
    num_warmup: int = 0
    stream: TextIO | None = None
    clock: Callable[[], float] = time.monotonic
    unit: str = "draws"
    _begun: tuple[int, float] = field(default=(0, 0.0), init=False)
    _last: int | None = field(default=None, init=False)
    _shown: float = field(default=0.0, init=False)

    def __call__(self, number) -> None:
        every = max(self.total // _UPDATES, 1)
        is_shown = (number == 1) | (number % every == 0) | (number == self.total)
        lax.cond(is_shown, lambda: jax.debug.callback(self.show, number), lambda: None)

    def show(self, number) -> None:
        """Writes the line over the one before, unless that was just now."""
        number, now = int(number), self.clock()
        is_first = self._last is None or number <= self._last  # of this run
        self._last = number
        if is_first:
            self._begun = number, now
        elif now < self._shown + _PAUSE and number < self.total:
            return
        self._shown = now
        first, begun = self._begun
        left = (now - begun) / max(number - first, 1) * (self.total - number)
        what = "warmup" if number < self.num_warmup else self.unit
        clock = f"{_spell(now - begun)}, {_spell(left)} to go" if number < self.total else _spell(now - begun)
        bar = "#" * (24 * number // self.total)
        line = f"{what:<6} [{bar:<24}] {number}/{self.total}  {clock}"
        stream = self.stream or sys.stderr
        stream.write(f"\r{line:<79}" + ("\n" if number == self.total else ""))
        stream.flush()


def _spell(seconds: float) -> str:
    """
    >>> _spell(7.4), _spell(75), _spell(3700)
    ('7 s', '1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
