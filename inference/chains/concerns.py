"""What is to be said against some draws, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from ...ppl.summary import count
from ..kernels.gradient_kernel import Trajectory
from .diagnostics import FEWEST, energy_bfmi, rhat
from .draws import Draws
from .site_statistics import Statistics, series, spell_number

LARGEST_RHAT = 1.01
FAR_RHAT = 1.1
SMALLEST_ESS = 100  # for each chain
SMALLEST_BFMI = 0.3
MOST_IN_PAIRS = 50  # numbers
LARGEST_CORRELATION = 0.999
ONE_AND_THE_SAME = 1e-10  # how close to one a correlation is
SMALLEST_STEP = 1e-3  # in units of the widths that were learnt
LARGEST_ROUNDING = 0.01  # of a log density


def concerns(draws: Draws, statistics: Mapping[str, Statistics]) -> tuple[str, ...]:
    """Reasons not to trust the draws, the gravest first; none if there is none to be seen.

    The limits are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner, *Rank-normalization, folding, and
    localization: an improved R-hat*, Bayesian Analysis 16 (2021), and of Stan's.
    """
    kinds = (
        _starts,
        _not_finite,
        _stuck_chains,
        _stuck_sites,
        _constants,
        _rounding,
        _rhats,
        _sizes,
        _ridges,
        _one_chain,
    )
    found = [one for kind in kinds for one in kind(draws, statistics)]
    is_trajectory = lambda x: isinstance(x, Trajectory)  # noqa: E731
    for info in jax.tree.leaves(draws.info, is_leaf=is_trajectory):
        if is_trajectory(info):
            found += [*_lost_steps(draws, info), *_divergences(info), *_energies(info), *_cut_short(info)]
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
        advice = (
            "Warm up and draw for longer; if that does not help, look for several modes, or for a form of the program "
            "that is easier to move in."
        )
        if _agree_with_themselves(_numbers(draws)[worst[0][1]]):
            advice = (
                "Each agrees with itself, so that to draw for longer will hardly help. Look where each of them is: if "
                "the posterior has several modes, no chain finds the way from one to another; if they differ by labels "
                "that can be exchanged, put these in order."
            )
        yield (
            f"R-hat is {worst[0][0]:.3f} for {_some([name for _, name in worst])}, above {LARGEST_RHAT}: the chains do "
            f"not agree on the posterior yet. {advice}"
        )


def _agree_with_themselves(x: np.ndarray) -> bool:
    """Whether it is from each other alone that chains differ."""
    return bool(rhat(x) > FAR_RHAT and all(rhat(chain[None]) < FAR_RHAT for chain in x))


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


def _ridges(draws: Draws, statistics: Mapping[str, Statistics]) -> Iterator[str]:
    """Of drawn numbers that chains are slow in, two that go together, though neither is computed from the other."""
    drawn = {name: of for name, of in statistics.items() if of.is_drawn}
    least = SMALLEST_ESS * len(draws.log_density)
    slow = _beyond(drawn, lambda of: np.where(of.sd > 0, -of.ess_bulk, -np.inf), -least)[:MOST_IN_PAIRS]
    if len(slow) < 2:
        return
    names, numbers = [name for _, name in slow], _numbers(draws)
    correlations = np.corrcoef([np.ravel(numbers[name]).astype(np.float64) for name in names])
    # Shares of a whole, or elements of a symmetric matrix, are one number by their support.
    correlations[1 - np.abs(correlations) < ONE_AND_THE_SAME] = 0.0
    i, j = np.unravel_index(np.argmax(np.abs(correlations)), correlations.shape)
    if abs(correlations[i, j]) > LARGEST_CORRELATION:
        yield (
            f"{names[i]!r} and {names[j]!r} go together (their correlation is {correlations[i, j]:.4f}): the data tell "
            "some combination of them, and hardly the one from the other. Leave one of them out, or give it a narrower "
            "prior; or write the program in terms of that combination."
        )


def _numbers(draws: Draws) -> dict[str, np.ndarray]:
    """The draws ``[chain, draw]`` of every number, by its name."""
    return {
        spell_number(site, index): x[:, :, *index]
        for site, (x, _, _) in series(draws).items()
        for index in np.ndindex(x.shape[2:])
    }


def _beyond(statistics: Mapping[str, Statistics], measure, limit: float) -> list[tuple[float, str]]:
    """The numbers whose measure is larger than the limit, the largest first, with their names."""
    found = []
    for name, of in statistics.items():
        values = np.asarray(measure(of))
        found += [
            (float(values[i]), spell_number(name, i)) for i in np.ndindex(values.shape) if values[i] > limit
        ]
    return sorted(found, key=lambda one: -one[0])


# ------------------------------------------------------------------------- precision

DOUBLE = 'in double precision, after jax.config.update("jax_enable_x64", True) (float64)'


def _rounding(draws: Draws, statistics) -> Iterator[str]:
    log_density = np.asarray(draws.log_density)
    largest = np.max(np.abs(log_density), initial=0.0, where=np.isfinite(log_density))
    if np.spacing(largest) > LARGEST_ROUNDING:
        yield (
            f"Log densities are as large as {largest:.2g}, where numbers are {np.spacing(largest):.2g} apart: what is "
            f"accepted is decided by rounding. Run {DOUBLE}."
        )


# ------------------------------------------------------------------------- trajectories


def _lost_steps(draws: Draws, info: Trajectory) -> Iterator[str]:
    smallest = float(np.min(info.step_size))
    if np.any(info.divergent) and smallest < SMALLEST_STEP and draws.log_density.dtype == np.float32:
        yield (
            f"The step size went down to {smallest:.1e}, and trajectories diverge all the same. That is what rounding "
            f"looks like, of a covariance matrix that is nearly singular, for one. Run {DOUBLE}; a larger term on the "
            "diagonal of the matrix (jitter) helps, too."
        )


def _divergences(info: Trajectory) -> Iterator[str]:
    number, draws = int(np.sum(info.divergent)), np.size(info.divergent)
    if number:
        yield (
            f"{number} of {draws} trajectories diverged: somewhere the posterior bends too sharply for this step "
            "size, and the draws miss that place. Ask for smaller steps (target_acceptance=0.95, say; of meads, a "
            "smaller step_size), or write the program so that it bends less: a location plus a scale times a standard "
            "site, in place of a site with that location and scale."
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
            f"{share:.1%} of the trajectories were cut short at the most steps they may take, which is slow but not "
            "wrong: a longer warmup, another scale of the sites or, of nuts, dense=True lets them be shorter; a larger "
            "max_doublings or max_steps lets them go on."
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
