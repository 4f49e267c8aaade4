"""Run: what a query for one run of a program returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """A run of a program.

    Attributes:
      value: what the program returned.
      choices: nested dicts of the values of its ``sample`` sites, as ``ppl.simulate`` has them.
      log_density: of the program at these choices, factors included.
    """

    value: Any
    choices: dict
    log_density: jax.Array
