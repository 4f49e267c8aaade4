"""All checks, by name."""

from __future__ import annotations

from . import gradients, kernels, language, populations, text
from .check import Check

CHECKS: dict[str, Check] = {
    found.name: found
    for module in (language, populations, kernels, gradients, text)
    for value in vars(module).values()
    for found in (value if isinstance(value, tuple) else (value,))
    if isinstance(found, Check)
}
