"""to_arviz: draws as ArviZ has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import jax
import numpy as np

from ...ppl import BorelaxError
from ..kernels.gradient_kernel import Trajectory
from ..predicting.predictive import Prediction
from .draws import Draws
from .site_statistics import numbers

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


def to_arviz(
    draws: Draws,
    *,
    log_likelihood: Mapping | None = None,
    posterior_predictive: Prediction | None = None,
    prior: Prediction | None = None,
    observed_data: Mapping | None = None,
):
    """An ``xarray.DataTree`` with ArviZ 1, an ``arviz.InferenceData`` with older ones.

    Its groups are ``posterior`` (``sample`` and ``deterministic`` sites; NaN where a site is not present) and
    ``sample_stats`` (the log density as ``lp``, and what trajectories say of themselves; with several gradient kernels
    in a cycle, those of the first have ArviZ's names, those of the others a number behind). Scopes are joined by dots.
    Further groups are made of what is given:

    Args:
      log_likelihood: what :func:`log_likelihood` returned of these draws.
      posterior_predictive: what :func:`predictive` returned of them; the group has its observed sites.
      prior: what :func:`prior_predictive` returned, for the groups ``prior`` and ``prior_predictive``, of one chain.
      observed_data: nested dicts of the data by the addresses at which it is observed.

    Raises:
      MissingExtraError: ArviZ is not installed.
      ValueError: a group has other chains and draws than ``draws``.
    """
    arviz = load_arviz()
    groups = {
        "posterior": _arrays(draws.choices) | _arrays(draws.deterministic),
        "sample_stats": _stats(draws),
    }
    if posterior_predictive is not None:
        groups["posterior_predictive"] = _arrays(posterior_predictive.observed)
    if log_likelihood is not None:
        groups["log_likelihood"] = _arrays(log_likelihood)
    _check_axes(groups, np.shape(draws.log_density))
    if prior is not None:
        groups["prior"] = _of_one_chain(_arrays(prior.choices) | _arrays(prior.deterministic))
        groups["prior_predictive"] = _of_one_chain(_arrays(prior.observed))
    if observed_data is not None:
        groups["observed_data"] = _arrays(observed_data)
    groups = {name: group for name, group in groups.items() if group}
    if is_before_1(arviz):
        return arviz.from_dict(**groups)
    return arviz.from_dict(groups)


def load_arviz():
    """The library, of whatever version."""
    try:
        import arviz
    except ImportError as error:
        raise MissingExtraError("this takes ArviZ: pip install 'borelax[arviz]'") from error
    return arviz


def is_before_1(arviz) -> bool:
    """Whether it has the interface of the versions before 1."""
    return int(arviz.__version__.split(".")[0]) < 1


def _arrays(tree: Mapping) -> dict[str, np.ndarray]:
    """Those of all sites, by names that ArviZ takes."""
    return {
        name.replace("/", "."): x if present is None else np.where(present, x, np.nan)
        for name, x, present in numbers(tree)
    }


def _of_one_chain(group: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: x[None] for name, x in group.items()}


def _stats(draws: Draws) -> dict[str, np.ndarray]:
    found = {"lp": np.asarray(draws.log_density)}
    is_trajectory = lambda x: isinstance(x, Trajectory)  # noqa: E731
    infos = filter(is_trajectory, jax.tree.leaves(draws.info, is_leaf=is_trajectory))
    for number, info in enumerate(infos):
        for field in fields(info):
            name = _NAMES.get(field.name, field.name) + (f"_{number}" if number else "")
            found[name] = np.asarray(getattr(info, field.name))
    return found


def _check_axes(groups: Mapping[str, Mapping[str, np.ndarray]], axes: tuple[int, ...]) -> None:
    for group, arrays in groups.items():
        for name, x in arrays.items():
            if x.shape[:2] != axes:
                raise ValueError(
                    f"{name!r} of {group} has the shape {x.shape}, but there are {axes[0]} chains of {axes[1]} draws"
                )
