"""Every run of a plain Python program over coin tosses: what the transformations of real programs are held against.

Such a program is a function ``(bit, factor) -> value`` without JAX, loops written out. ``bit(name, p)`` returns 1 with
probability p and else 0; ``factor(log_weight)`` multiplies the weight. A program is run once for each sequence of
tosses that it can ask for, by replaying: nothing is shared with the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """One run.

    Attributes:
      tosses: the outcomes to begin with; 0 from there on.
      choices: the outcome of each toss by name, in program order.
      log_prob: the log probability of each outcome by name.
      log_weight: the sum of the factors.
      value: what the program returned.
    """

    tosses: tuple[int, ...]
    choices: dict[str, int] = field(default_factory=dict)
    log_prob: dict[str, float] = field(default_factory=dict)
    log_weight: float = 0.0
    value: Any = None

    def bit(self, name: str, p: float) -> int:
        index = len(self.choices)
        outcome = self.tosses[index] if index < len(self.tosses) else 0
        self.choices[name] = outcome
        self.log_prob[name] = math.log(p if outcome else 1.0 - p)
        return outcome

    def factor(self, log_weight: float) -> None:
        self.log_weight += log_weight

    @property
    def prior(self) -> float:
        """The probability of the run's tosses."""
        return math.exp(sum(self.log_prob.values()))

    @property
    def log_density(self) -> float:
        return sum(self.log_prob.values()) + self.log_weight


def all_runs(plain: Callable) -> list[Run]:
    """Every run of ``plain``."""
    finished, waiting = [], [()]
    while waiting:
        run = Run(waiting.pop())
        run.value = plain(run.bit, run.factor)
        finished.append(run)
        outcomes = tuple(run.choices.values())
        waiting += [(*outcomes[:i], 1) for i in range(len(run.tosses), len(outcomes))]
    return finished
