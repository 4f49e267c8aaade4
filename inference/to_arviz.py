"""to_arviz: draws as ArviZ has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import jax
import numpy as np

from ..ppl import BorelaxError
from .draws import Draws
from .gradient_kernel import Trajectory
from .site_statistics import series

# What ArviZ calls the fields of a trajectory.
_NAMES = {
    "acceptance_rate": "acceptance_rate",
    "divergent": "diverging",
    "energy": "energy",
    "num_steps": "n_steps",
    "cut_short": "reached_max_treedepth",
    "step_size": "step_size",
}


class MissingExtraError(BorelaxError, ImportError):
    """An optional library is not installed."""


def to_arviz(draws: Draws):
    """An ``xarray.DataTree`` with ArviZ 1, an ``arviz.InferenceData`` with older ones.

    Its groups are ``posterior`` (``sample`` and ``deterministic`` sites; NaN where a site is not present) and
    ``sample_stats`` (the log density as ``lp``, and what trajectories say of themselves; with several gradient kernels
    in a cycle, those of the first have ArviZ's names, those of the others a number behind). There is no
    ``log_likelihood``: it would take the density of every observation at every draw. Scopes are joined by dots.

    Raises:
      MissingExtraError: ArviZ is not installed.
    """
    try:
        import arviz
    except ImportError as error:
        raise MissingExtraError("to_arviz takes ArviZ: pip install 'borelax[arviz]'") from error
    groups = {"posterior": _posterior(draws), "sample_stats": _sample_stats(draws)}
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.from_dict(**groups)
    return arviz.from_dict(groups)


def _posterior(draws: Draws) -> Mapping[str, np.ndarray]:
    found = {}
    for name, (x, present, _) in series(draws).items():
        found[name.replace("/", ".")] = x if present is None else np.where(present, x, np.nan)
    return found


def _sample_stats(draws: Draws) -> Mapping[str, np.ndarray]:
    found = {"lp": np.asarray(draws.log_density)}
    is_trajectory = lambda x: isinstance(x, Trajectory)  # noqa: E731
    infos = filter(is_trajectory, jax.tree.leaves(draws.info, is_leaf=is_trajectory))
    for number, info in enumerate(infos):
        for field in fields(info):
            name = _NAMES[field.name] + (f"_{number}" if number else "")
            found[name] = np.asarray(getattr(info, field.name))
    return found
