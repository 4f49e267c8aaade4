"""How long trajectories are to be: chees, meads, nuts and hmc on a Gaussian whose widths no diagonal matrix evens out.

Chains side by side, as many draws of each. Reported are effective draws per thousand gradients, of the coordinate or
the square that has fewest, with the gradients of the warmup left out: those that a chain takes itself, and those that
are computed when all chains wait for the longest trajectory, as they do side by side.

    python benchmarks/trajectories.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from borelax import inference, ppl
from borelax.inference.chains.diagnostics import ess_mean


def rotated(dimension: int, condition: float) -> Callable:
    """A Gaussian program: variances from 1 down to ``1 / condition``, along axes that are drawn."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dimension, dimension)))
    more = jnp.asarray(axes * (condition ** np.linspace(0.0, 1.0, dimension) - 1) @ axes.T, jnp.float32)

    def program():
        x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([dimension]))
        ppl.factor(-x @ more @ x / 2)

    return program


KERNELS = {
    "chees": inference.chees,
    "nuts": inference.nuts,
    "hmc, 10 steps": lambda program: inference.hmc(program, num_steps=10),
    "hmc, 30 steps": lambda program: inference.hmc(program, num_steps=30),
    "hmc, 100 steps": lambda program: inference.hmc(program, num_steps=100),
    "meads": inference.meads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dimension", type=int, default=30)
    parser.add_argument("--condition", type=float, default=1000.0)
    parser.add_argument("--chains", type=int, default=16)
    options = parser.parse_args()
    program = rotated(options.dimension, options.condition)
    for name, make in KERNELS.items():
        thin = 20 if name == "meads" else 1
        run = inference.mcmc(make(program), 500, 1000, options.chains, thin)
        draws = run(jax.random.key(0))
        x, steps = np.asarray(draws.choices["x"], float), np.asarray(draws.info.num_steps) * thin
        size = min(float(np.min(ess_mean(z))) for z in (x, x**2))
        alone, together = (1000 * size / count for count in (steps.sum(), steps.max(0).sum() * len(steps)))
        length = float(np.mean(steps * np.asarray(draws.info.step_size)))
        print(
            f"{name:15s} {alone:8.2f} per thousand gradients, {together:8.2f} if all wait; mean length {length:5.2f}, "
            f"{steps.mean():6.1f} steps",
            flush=True,
        )


if __name__ == "__main__":
    main()
