"""loo: how well a posterior would predict each element of the data, had it not seen it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...ppl import Masked, UnsupportedError
from ...ppl.choices import flatten, spell
from ...ppl.summary import count
from ...ppl.table import Table
from ..chains.diagnostics import ess_mean
from ..warned import warned, warned_html
from .psis import largest_khat, psis


@dataclass(frozen=True, repr=False)
class Loo:
    """The leave-one-out log predictive density. Its repr is a table with warnings under it.

    Attributes:
      elpd: the sum of those of the elements, ``sum_i log p(y_i | y without y_i)``; larger is better.
      se: its standard error, as if elements were drawn anew.
      effective_parameters: how much larger the density is at the data that was seen.
      pointwise: address -> that of each element.
      khat: address -> the tail of its weights, see :func:`psis`: whether it is to be relied on.
      warnings: reasons not to rely on it, in words.
    """

    elpd: float
    se: float
    effective_parameters: float
    pointwise: Mapping[str, np.ndarray]
    khat: Mapping[str, np.ndarray]
    warnings: tuple[str, ...]

    def difference(self, other: Loo) -> tuple[float, float]:
        """By how much this one is better than that of another program of the same data, and its standard error.

        Raises:
          ValueError: the data is not the same.
        """
        sizes = [{name: x.shape for name, x in of.pointwise.items()} for of in (self, other)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"the elements of the data are not the same: {sizes[0]} and {sizes[1]}")
        return _total(np.concatenate([np.ravel(x - other.pointwise[a]) for a, x in self.pointwise.items()]))

    def __repr__(self) -> str:
        return warned(repr(self._table()), self.warnings)

    def _repr_html_(self) -> str:
        return warned_html(self._table()._repr_html_(), self.warnings)

    def _table(self) -> Table:
        rows = [
            (name, x.size, *(f"{part:.3g}" for part in _total(x)), f"{np.max(self.khat[name]):.2f}")
            for name, x in self.pointwise.items()
        ]
        title = (
            f"LOO: elpd {self.elpd:.4g} ± {self.se:.2g}, {self.effective_parameters:.2g} effective parameters"
        )
        return Table(("address", "elements", "elpd", "se", "largest k-hat"), tuple(rows), title)


def loo(log_likelihood: Mapping) -> Loo:
    """The expected log predictive density of elements that are left out one by one, from draws given all of them.

    A posterior without element i is that with it, weighted by ``1 / p(y_i | choices)``; the weights are smoothed:

        log p(y_i | y without y_i) = log sum_s W_is p(y_i | choices_s)

    Args:
      log_likelihood: what :func:`log_likelihood` returned, nested dicts of arrays ``[chain, draw, ...]``.

    Raises:
      ValueError: a density is zero or NaN at a draw, or there are no axes ``[chain, draw]``, or no sites.
      UnsupportedError: a site is observed in some branches only.

    Source: Vehtari, Gelman and Gabry, *Practical Bayesian model evaluation using leave-one-out cross-validation and
    WAIC*, Statistics and Computing 27 (2017).

    >>> rng = np.random.default_rng(0)
    >>> place = rng.normal(2.0, 0.5, size=(4, 500, 1))
    >>> y = np.array([1.0, 2.0, 3.0, 2.5])
    >>> found = loo({"y": -0.5 * (y - place) ** 2})
    >>> found.pointwise["y"].shape, bool(found.khat["y"].max() < 0.7), found.warnings
    ((4,), True, ())
    """
    pointwise, khat, gain, n = {}, {}, 0.0, 0
    for address, x in flatten(log_likelihood).items():
        found = _checked(spell(address), x)
        n = found.shape[0] * found.shape[1]
        each = np.moveaxis(found.reshape(n, *found.shape[2:]), 0, -1)
        smoothed = psis(-each, _relative_ess(found))
        pointwise[spell(address)] = np.logaddexp.reduce(smoothed.log_weight + each, axis=-1)
        khat[spell(address)] = smoothed.khat
        gain += float(np.sum(np.logaddexp.reduce(each, axis=-1) - math.log(n)))
    if not pointwise:
        raise ValueError("there is no log likelihood: the program observes nothing (a factor is no data)")
    elpd, se = _total(np.concatenate([np.ravel(x) for x in pointwise.values()]))
    return Loo(elpd, se, gain - elpd, pointwise, khat, tuple(_concerns(khat, n)))


def _checked(name: str, x) -> np.ndarray:
    if isinstance(x, Masked):
        raise UnsupportedError(
            f"{name!r} is observed in some branches only: then there is no element to leave out"
        )
    x = np.asarray(x, np.float64)
    if x.ndim < 2:
        raise ValueError(f"the log likelihood of {name!r} has no axes [chain, draw]: its shape is {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(
            f"the log likelihood of {name!r} is not finite in {np.sum(~np.isfinite(x))} of {x.size} places: a draw "
            "from a posterior cannot have density zero at its data; are these of this program, and of this data?"
        )
    return x


def _relative_ess(x: np.ndarray) -> np.ndarray:
    """What a draw is worth for the mean of the likelihood, ``[...]``; 1 where that cannot be seen."""
    share = ess_mean(np.exp(x - x.max((0, 1)))) / (x.shape[0] * x.shape[1])
    return np.where(share > 0, share, 1.0)


def _total(x: np.ndarray) -> tuple[float, float]:
    """The sum, and its standard error."""
    return float(np.sum(x)), float(np.sqrt(x.size * np.var(x)))


def _concerns(khat: Mapping[str, np.ndarray], n: int):
    limit = largest_khat(n)
    bad = {name: int(np.sum(k > limit)) for name, k in khat.items()}
    if any(bad.values()):
        where = " and ".join(
            f"{count(number, 'element')} of {name!r}" for name, number in bad.items() if number
        )
        yield (
            f"{where} cannot be left out by weighting (k-hat above {limit:.2f}): the posterior without one is too far "
            "from that with it. Condition on the rest and run the chains again for these (log_predictive_density), or "
            "use a program that is less surprised by them."
        )
