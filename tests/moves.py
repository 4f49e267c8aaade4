"""Markov kernels on finite programs, exactly: where they go from where, with which probability."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from borelax import ppl, semantics


def moves(kernel, *args) -> dict[tuple[str, str], float]:
    """The mass that a step takes from choices x to choices y, started from the kernel's own target."""

    def before_and_after(*args):
        trace = ppl.trace(kernel.program)(*args)
        ppl.factor(trace.log_weight)
        with ppl.scope("kernel"):
            new = kernel(kernel.init(trace, *args), *args)
        return shown(trace.choices), shown(new.trace.choices)

    mass: dict = {}
    for pair, weight in semantics.meaning(before_and_after)(*args):
        key = tuple(map(spelled, pair))
        mass[key] = mass.get(key, 0.0) + weight
    return mass


def imbalance(mass) -> float:
    """How far the kernel is from keeping its target: the largest difference between what leaves and what arrives."""
    net: dict = {}
    for (x, y), weight in mass.items():
        net[x] = net.get(x, 0.0) + weight
        net[y] = net.get(y, 0.0) - weight
    return max(map(abs, net.values()))


def irreversibility(mass) -> float:
    """How far the kernel is from detailed balance."""
    return max(abs(weight - mass.get((y, x), 0.0)) for (x, y), weight in mass.items())


def moved(mass) -> float:
    """The part of the mass that does not stay."""
    return sum(weight for (x, y), weight in mass.items() if x != y) / sum(mass.values())


def shown(choices):
    """Choices without what is not present, and what is present."""
    is_masked = lambda x: isinstance(x, ppl.Masked)  # noqa: E731
    show = lambda x: (jnp.where(x.present, x.value, 0), x.present) if is_masked(x) else x  # noqa: E731
    return jax.tree.map(show, choices, is_leaf=is_masked)


def spelled(choices) -> str:
    return repr(jax.tree.map(lambda x: np.asarray(x).tolist(), choices))
