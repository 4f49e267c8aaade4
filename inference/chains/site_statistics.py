"""The numbers of a summary: of each site, its moments, quantiles and diagnostics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from ...ppl import Masked
from ...ppl.choices import align, flatten, spell
from .diagnostics import ess_bulk, ess_tail, rhat
from .draws import Draws


@dataclass(frozen=True)
class Statistics:
    """Of the draws of one site, all of the site's shape (of one draw).

    Attributes:
      mean, sd, low, median, high: of all draws in which the site is present; low and high are the 5% and 95% quantiles.
      ess_bulk, ess_tail, rhat: see :mod:`~borelax.inference.diagnostics`; NaN where the site is not always present.
      present: the share of draws in which it is present.
      is_drawn: whether the site is a ``sample`` site, not a ``deterministic`` one.
    """

    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    rhat: np.ndarray
    present: np.ndarray
    is_drawn: bool


def statistics(draws: Draws) -> dict[str, Statistics]:
    """Those of every site, by address.

    Raises:
      ValueError: there are axes in front of ``[chain, draw]``.
    """
    if np.ndim(draws.log_density) != 2:
        raise ValueError(
            f"draws are summarised with leading axes [chain, draw]; the log density has the shape "
            f"{np.shape(draws.log_density)}: pick some, as in jax.tree.map(lambda x: x[0], draws)"
        )
    return {name: _of(x, present, is_drawn) for name, (x, present, is_drawn) in series(draws).items()}


def series(draws: Draws) -> dict[str, tuple[np.ndarray, np.ndarray | None, bool]]:
    """The draws of every site ``[chain, draw, ...]``, where it is present (None: always) and whether it is drawn."""
    found = {}
    for is_drawn, tree in ((True, draws.choices), (False, draws.deterministic)):
        found |= {name: (x, present, is_drawn) for name, x, present in numbers(tree)}
    return found


def numbers(tree: Mapping) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """The name, the array and where it is present (None: everywhere) of all in nested dicts that is made of numbers."""
    for address, x in flatten(tree).items():
        value, present = (x.value, x.present) if isinstance(x, Masked) else (x, None)
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            name, leaf = spell(address) + jax.tree_util.keystr(path), np.asarray(leaf)
            if np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool:
                yield name, leaf, _spread(present, leaf)


def spell_number(name: str, index: tuple[int, ...]) -> str:
    """
    >>> spell_number("x", (0, 1)), spell_number("x", ())
    ('x[0,1]', 'x')
    """
    return f"{name}[{','.join(map(str, index))}]" if index else name


def _spread(present, x: np.ndarray) -> np.ndarray | None:
    return None if present is None else np.broadcast_to(np.asarray(align(present, x)), x.shape)


def _of(x: np.ndarray, present: np.ndarray | None, is_drawn: bool) -> Statistics:
    flat = x.reshape(-1, *x.shape[2:]).astype(np.float64)
    diagnostics = [diagnose(x) for diagnose in (ess_bulk, ess_tail, rhat)]
    share = np.ones(x.shape[2:])
    if present is not None:
        share = present.mean((0, 1))
        flat = np.where(present.reshape(flat.shape), flat, np.nan)
        diagnostics = [np.where(share == 1, d, np.nan) for d in diagnostics]
    with np.errstate(invalid="ignore"):
        mean, sd, quantiles = _moments(flat) if present is None else _moments_where_known(flat)
    return Statistics(mean, sd, *quantiles, *diagnostics, share, is_drawn)


_QUANTILES = (0.05, 0.5, 0.95)


def _moments(flat: np.ndarray) -> tuple:
    sd = flat.std(0, ddof=1) if len(flat) > 1 else np.full(flat.shape[1:], np.nan)
    return flat.mean(0), sd, np.quantile(flat, _QUANTILES, axis=0)


def _moments_where_known(flat: np.ndarray) -> tuple:
    """Of the draws that are not NaN; NaN where all of them are, or none."""
    columns = flat.reshape(len(flat), -1).T
    known = [column[~np.isnan(column)] for column in columns]
    moments = [_moments(x) if len(x) else (np.nan, np.nan, np.full(3, np.nan)) for x in known]
    mean, sd, quantiles = (np.reshape(part, (len(columns), -1)) for part in zip(*moments))
    shape = flat.shape[1:]
    return mean.reshape(shape), sd.reshape(shape), quantiles.T.reshape(3, *shape)
