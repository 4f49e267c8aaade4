"""What is to be said against some draws, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from ..ppl.summary import count
from .diagnostics import FEWEST, energy_bfmi
from .draws import Draws
from .gradient_kernel import Trajectory
from .site_statistics import Statistics, series, spell_number

LARGEST_RHAT = 1.01
SMALLEST_ESS = 100  # for each chain
SMALLEST_BFMI = 0.3


def concerns(draws: Draws, statistics: Mapping[str, Statistics]) -> tuple[str, ...]:
    """Reasons not to trust the draws, the gravest first; none if there is none to be seen.

    The limits are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner, *Rank-normalization, folding, and
    localization: an improved R-hat*, Bayesian Analysis 16 (2021), and of Stan's.
    """
    kinds = (_starts, _not_finite, _stuck_chains, _stuck_sites, _constants, _rhats, _sizes, _one_chain)
    found = [one for kind in kinds for one in kind(draws, statistics)]
    is_trajectory = lambda x: isinstance(x, Trajectory)  # noqa: E731
    for info in jax.tree.leaves(draws.info, is_leaf=is_trajectory):
        if is_trajectory(info):
            found += [*_divergences(info), *_energies(info), *_cut_short(info)]
    return tuple(found)


# ------------------------------------------------------------------------- chains


def bad_starts(started) -> Iterator[str]:
    """Words on the chains that did not start at a density that is finite and not zero, if there are any."""
    bad = np.flatnonzero(~np.asarray(started))
    if len(bad):
        yield (
            f"The log density is not finite where {_chains(bad)} started, and no better start was found. Give mcmc "
            "traces to start from (init=...), or the program a prior under which the data is possible."
        )


def _starts(draws: Draws, statistics) -> Iterator[str]:
    yield from bad_starts(draws.started)


def _not_finite(draws: Draws, statistics) -> Iterator[str]:
    bad = ~np.isfinite(np.asarray(draws.log_density))
    if bad.any():
        yield (
            f"{bad.sum()} of {count(bad.size, 'draw')} have a log density that is not finite, in "
            f"{_chains(np.flatnonzero(bad.any(1)))}: they are no draws from the posterior."
        )


def _stuck_chains(draws: Draws, statistics) -> Iterator[str]:
    stuck = np.flatnonzero(_is_stuck(draws))
    if len(stuck):
        yield (
            f"All draws of {_chains(stuck)} are the same. If the posterior is not certain, look at where they started "
            "and at the step size (draws.state.memory), and warm up for longer."
        )


def _one_chain(draws: Draws, statistics) -> Iterator[str]:
    if len(draws.log_density) == 1:
        yield "There is only one chain, so that R-hat compares its halves. Run four, from different starts."


def _is_stuck(draws: Draws) -> np.ndarray:
    """Whether each chain has the same choices in all its draws, of which there are several."""
    if draws.log_density.shape[1] == 1:
        return np.zeros(len(draws.log_density), bool)
    still = [~_moves(x) for x, _, is_drawn in series(draws).values() if is_drawn]
    return np.all([x.reshape(len(x), -1).all(1) for x in still], axis=0) if still else np.zeros(0, bool)


def _moves(x: np.ndarray) -> np.ndarray:
    """Whether a number changes within a chain: ``[chain, ...]``."""
    return np.any(x != x[:, :1], axis=1)


# ------------------------------------------------------------------------- sites


def _stuck_sites(draws: Draws, statistics) -> Iterator[str]:
    names = []
    for name, (x, _, is_drawn) in series(draws).items():
        still = is_drawn & ~_moves(x).any(0) & np.any(x[:, 0] != x[0, 0], axis=0)
        names += _names(name, still)
    if names and not _is_stuck(draws).all():
        yield (
            f"Different between chains, and the same in all draws of a chain: {_some(names)}. Is there a kernel that "
            "moves it?"
        )


def _constants(draws: Draws, statistics) -> Iterator[str]:
    names = []
    for name, (x, present, is_drawn) in series(draws).items():
        if is_drawn and present is None:
            names += _names(name, np.all(x == x[0, 0], axis=(0, 1)))
    if names and draws.log_density.size > 1:
        yield (
            f"The same in all draws: {_some(names)}. R-hat and the effective sample size say nothing of it: either the "
            "posterior is certain, or there is no kernel that moves it."
        )


def _rhats(draws: Draws, statistics: Mapping[str, Statistics]) -> Iterator[str]:
    worst = _beyond(statistics, lambda of: np.where(np.isnan(of.rhat), 0.0, of.rhat), LARGEST_RHAT)
    if worst:
        yield (
            f"R-hat is {worst[0][0]:.2f} for {_some([name for _, name in worst])}, above {LARGEST_RHAT}: the chains do "
            "not agree on the posterior yet. Warm up and draw for longer; if that does not help, look for several "
            "modes, or for a form of the program that is easier to move in."
        )


def _sizes(draws: Draws, statistics: Mapping[str, Statistics]) -> Iterator[str]:
    least = SMALLEST_ESS * len(draws.log_density)

    def size(of: Statistics):  # constants have size zero, and a word of their own
        smaller = np.minimum(of.ess_bulk, of.ess_tail)
        return np.where(np.isnan(smaller) | (of.sd == 0), np.inf, smaller)

    worst = _beyond(statistics, lambda of: -size(of), -least)
    if worst:
        yield (
            f"The draws are worth only {-worst[0][0]:.0f} independent ones for {_some([name for _, name in worst])} "
            f"(effective sample size; {least} is the least to rely on): draw more, or find a kernel that moves farther."
        )
    if draws.log_density.shape[1] < FEWEST:
        yield f"There are fewer than {FEWEST} draws in a chain: too few to see whether chains agree. Draw more."


def _beyond(statistics: Mapping[str, Statistics], measure, limit: float) -> list[tuple[float, str]]:
    """The numbers whose measure is larger than the limit, the largest first, with their names."""
    found = []
    for name, of in statistics.items():
        values = np.asarray(measure(of))
        found += [
            (float(values[i]), spell_number(name, i)) for i in np.ndindex(values.shape) if values[i] > limit
        ]
    return sorted(found, key=lambda one: -one[0])


# ------------------------------------------------------------------------- trajectories


def _divergences(info: Trajectory) -> Iterator[str]:
    number, draws = int(np.sum(info.divergent)), np.size(info.divergent)
    if number:
        yield (
            f"{number} of {draws} trajectories diverged: somewhere the posterior bends too sharply for this step "
            "size, and the draws miss that place. Ask for smaller steps (target_acceptance=0.95, say), or write the "
            "program so that it bends less: a location plus a scale times a standard site, in place of a site with "
            "that location and scale."
        )


def _energies(info: Trajectory) -> Iterator[str]:
    bfmi = energy_bfmi(info.energy)
    low = np.flatnonzero(bfmi < SMALLEST_BFMI)
    if len(low):
        yield (
            f"The energy changes slowly in {_chains(low)} (E-BFMI {np.min(bfmi[low]):.2f}, below {SMALLEST_BFMI}): the "
            "tails of the posterior are hardly visited. Scales of very different sizes do that; write sites as a "
            "location plus a scale times a standard site."
        )


def _cut_short(info: Trajectory) -> Iterator[str]:
    share = float(np.mean(info.cut_short))
    if share:
        yield (
            f"{share:.1%} of the trajectories were cut short at their largest length, which is slow but not wrong: a "
            "longer warmup, dense=True or another scale of the sites lets them be shorter."
        )


# ------------------------------------------------------------------------- names


def _names(name: str, which: np.ndarray) -> list[str]:
    return [spell_number(name, index) for index in np.ndindex(which.shape) if which[index]]


def _chains(numbers) -> str:
    """
    >>> _chains([2]), _chains([0, 2, 3])
    ('chain 2', 'chains 0, 2 and 3')
    """
    *first, last = map(str, numbers)
    return f"chains {', '.join(first)} and {last}" if first else f"chain {last}"


def _some(names: list[str]) -> str:
    """
    >>> _some(["a", "b"]), _some(["a", "b", "c", "d", "e"])
    ("'a' and 'b'", "'a', 'b', 'c' and 2 others")
    """
    shown = [f"{name!r}" for name in names[:3]]
    if len(names) > 3:
        return f"{', '.join(shown)} and {count(len(names) - 3, 'other')}"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
