"""The axes that draws have in front of the shapes of their sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ppl import ChoiceError, Masked
from ...ppl.choices import Address, spell
from ...ppl.partly import Partly, Prefix
from ...ppl.staging import Staged
from .draws import Draws


def choices_of(draws: Draws | Mapping) -> Mapping:
    """The choices of draws, or what is given as such."""
    return draws.choices if isinstance(draws, Draws) else draws


def draw_axes(staged: Staged, given: Mapping[Address, Any]) -> tuple[int, ...]:
    """The leading axes that the choices of all sites have, ``[chain, draw]`` of those of chains.

    Raises:
      ChoiceError: they differ, or a choice is known in part.
    """
    shapes = {info.address: info.shape for info in staged.of_kind("sample")}
    found = {}
    for address, x in given.items():
        if isinstance(x, Partly | Prefix):
            raise ChoiceError(f"the draws of {spell(address)!r} are to be whole, not known in part")
        shape = np.shape(x.value if isinstance(x, Masked) else x)
        if address in shapes:  # whoever gives them to the program finds those that it does not have
            found[spell(address)] = shape[: max(len(shape) - len(shapes[address]), 0)]
    if len(set(found.values())) > 1:
        raise ChoiceError(f"the draws of the sites have different leading axes: {found}")
    return next(iter(found.values()), ())
