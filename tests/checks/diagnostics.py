"""Checks of diagnostics, against the published formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from plain_diagnostics import halves, larger_rhat, normal_scores, of_the_tails, plain_bfmi, plain_ess

from .check import Check, near

_NOISE = np.random.default_rng(0).normal(size=(3, 61))
_CHAINS = np.linspace(0, 1, 60) + _NOISE[:, 1:] + 0.5 * _NOISE[:, :-1]  # that drift, and remember a step

_RIGHT = {
    "rhat": lambda x: larger_rhat(halves(x)),
    "ess_bulk": lambda x: plain_ess(normal_scores(halves(x))),
    "ess_tail": lambda x: of_the_tails(halves(x)),
    "ess_mean": lambda x: plain_ess(halves(x)),
    "energy_bfmi": lambda x: [plain_bfmi(chain) for chain in x],
}


def _as_published(name: str):
    def run(lib):
        diagnose, right = getattr(lib.inference, name), np.asarray(_RIGHT[name](_CHAINS))
        at_once, in_jit = diagnose(_CHAINS), jax.jit(diagnose)(jnp.asarray(_CHAINS, jnp.float32))
        shares = [1 + 1e4 * (at_once / right - 1), in_jit / right]
        return near(lib, f"{name} is as published", shares, np.ones_like(shares), 1e-3)

    return run


OF_CHAINS = tuple(
    Check(f"{name}_is_as_published", (f"inference.{name}",), _as_published(name)) for name in _RIGHT
)
