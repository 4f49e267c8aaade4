"""All checks, by name."""

from __future__ import annotations

from . import diagnostics, exact, gradients, kernels, language, populations, predictions, text
from .check import Check

CHECKS: dict[str, Check] = {
    found.name: found
    for module in (language, populations, exact, kernels, gradients, predictions, diagnostics, text)
    for value in vars(module).values()
    for found in (value if isinstance(value, tuple) else (value,))
    if isinstance(found, Check)
}
