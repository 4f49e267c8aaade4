"""Whether an algorithm draws from posteriors: the ranks of true values among its draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ..ppl import AddressError, ChoiceError, Masked, do, log_density, sample, scope, weigh
from ..ppl.choices import align, spell, unmasked
from ..ppl.given import check_given
from ..ppl.population import Population
from ..ppl.staging import stage
from .budget import Budget, batches
from .report import Counterexample, Report, asserting, name_of
from .target import Observed, Target, choices_of, seen, trace_at
from .uniform_ranks import Uniformity, count_ranks, ecdf_bands, ecdf_difference, uniform_ranks


def log_likelihood(target: Target, choices: Mapping, *args):
    """A test quantity: the log density of the data given the choices."""
    values = jax.tree.map(unmasked, choices, is_leaf=lambda x: isinstance(x, Masked))
    return weigh(do(target, values))(*args)[1]


def joint_log_density(target: Target, choices: Mapping, *args):
    """A test quantity: the log density of the choices and the data together."""
    return log_density(target)(choices, *args)


# From a target, choices and its arguments to a real: functions of the data, too, whose ranks are looked at.
DENSITIES: Mapping[str, Callable] = MappingProxyType(
    {"log likelihood": log_likelihood, "log density": joint_log_density}
)


@dataclass(frozen=True, repr=False)
class CalibrationReport(Report):
    """A :class:`~borelax.semantics.Report` with the ranks.

    Attributes:
      ranks: of each component, int ``[replications]``: how many of the draws are below the true value.
      draws: how many draws there are, so that ranks are 0 to ``draws``.
    """

    ranks: Mapping[str, np.ndarray] = field(default_factory=dict)
    draws: int = 0

    def ecdf_difference(self) -> dict[str, np.ndarray]:
        """Of each component, the distribution function of its ranks less that of uniform ones, ``[draws + 1]``."""
        counts = count_ranks(np.stack(list(self.ranks.values()), -1), self.draws + 1)
        return dict(zip(self.ranks, ecdf_difference(counts)))

    def ecdf_bands(self, probability: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Between which functions, ``[draws + 1]``, the differences of one component stay with this probability."""
        number = len(next(iter(self.ranks.values())))
        return ecdf_bands(number, self.draws + 1, probability)

    def plot(self, probability: float = 0.95):
        """A figure of the differences and bands, a panel for each component, the worst first. It takes matplotlib.

        Where draws are too narrow the curve is above zero on the left and below on the right; where too wide, the
        reverse; where too large it is above throughout, where too small below.
        """
        from .plots import plot_ranks

        return plot_ranks(self.ecdf_difference(), self.ecdf_bands(probability), probability)


def simulation_based_calibration(
    program: Callable,
    observed: Observed,
    posterior: Callable,
    budget: Budget | None = None,
    draws: int = 63,
    thin: int = 1,
    warmup: int | None = None,
    quantities: Mapping[str, Callable] = DENSITIES,
) -> Callable:
    """``(*args) -> CalibrationReport``: whether an algorithm draws from the posterior of a program.

    Choices are drawn by running the program, those of ``observed`` are taken as data, and the algorithm draws from the
    posterior given them. The rank of what was drawn first among these draws is then uniform, whatever is ranked: each
    scalar of each site, and each of ``quantities``. That is tested by :func:`~borelax.semantics.uniform_ranks`.

    Args:
      program: any program without weights: what it observes it has to sample.
      observed: an address, several, or a selection.
      posterior: called with a :class:`~borelax.semantics.Target`, which is the program conditioned on the data, and
        returns one of

        - a program of choices with a leading axis: draws. An algorithm that looks at data, or takes a key, is
          ``lambda target: semantics.keyed(lambda key, *args: draw(key, target.data["y"], *args))``. What is tested is
          that the draws are independent and exact.
        - a program of a population, such as ``partial(inference.importance, n=100)``: ``draws`` members are picked by
          weight. Where none has weight all ranks count as 0. The same is tested: approximations are found wrong.
        - a :class:`~borelax.inference.Kernel`. With ``warmup=None`` the true value is put at a random place of a chain
          that goes from it both ways by the same kernel. Ranks are uniform for every kernel that is reversible for the
          posterior, however slowly it mixes. The cycle of two such kernels is not one: take the palindrome
          ``cycle(a, b, b, a)``, or :func:`joint_distribution_test`. A kernel that never moves passes.
          With a number, the chain starts at another draw from the prior, and that many steps are discarded. What is
          tested then is that the chain has forgotten its start, and that draws ``thin`` steps apart are independent.
      draws: how many, where the algorithm does not say; one less than a power of two is best.
      thin: how many steps of a kernel there are from draw to draw.
      quantities: name -> ``(target, choices, *args) -> real``. The densities, on by default, see what no coordinate
        does: draws from the prior, for one.

    Optional sites (:class:`~borelax.ppl.Masked`) rank below everything where they are not present; ties are broken at
    random. By default 2048 replications are made, all in one compiled function; the budget says otherwise.

    Raises:
      AddressError, UnsupportedError: see :func:`~borelax.semantics.target.seen`.
      ChoiceError: what was drawn are not choices of the program.

    Sources: Talts, Betancourt, Simpson, Vehtari and Gelman, *Validating Bayesian inference algorithms with simulation-
    based calibration*, 2018; Modrák et al., *Simulation-based calibration checking for Bayesian computation: the choice
    of test quantities shapes sensitivity*, Bayesian Analysis 2023; for kernels Besag and Clifford, *Generalized Monte
    Carlo significance tests*, Biometrika 76 (1989).

    >>> from borelax import ppl, semantics
    >>> def model():
    ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ...     ppl.sample("y", dist.Normal(x, 1.0))
    >>> def too_narrow(target):
    ...     d = dist.Normal(target.data["y"] / 2, 0.5)
    ...     return lambda: {"x": ppl.sample("draws", d.expand([63]))}
    >>> semantics.simulation_based_calibration(model, "y", too_narrow)().holds
    False
    """
    budget = budget or Budget(draws=2_048, batch=256)
    claim = f"the algorithm draws from the posterior of {name_of(program)}"
    replication = replicate(program, observed, posterior, draws, thin, warmup, quantities)

    def checked(*args) -> CalibrationReport:
        replications = batches(replication, args, budget)
        ranks, number = first = next(replications)
        names = [name for site, rank in ranks.items() for name in _names(site, rank.shape[1:])]
        drawn = (_columns(ranks) for ranks, _ in chain([first], replications))
        found = uniform_ranks(drawn, int(number[0]) + 1, budget)
        return _report(claim, name_of(program), args, names, found, budget)

    return checked


assert_simulation_based_calibration = asserting(simulation_based_calibration)


def replicate(
    program: Callable,
    observed: Observed,
    posterior: Callable,
    draws: int,
    thin: int = 1,
    warmup: int | None = None,
    quantities: Mapping[str, Callable] = DENSITIES,
) -> Callable:
    """The program of one replication: it returns ranks, a dict of arrays shaped like sites, and the number of draws.

    If all that it uses is finite, its :func:`~borelax.semantics.meaning` is the exact law of the ranks.
    """
    for name, count, least in (("draws", draws, 1), ("thin", thin, 1), ("warmup", warmup or 0, 0)):
        if not isinstance(count, int) or count < least:
            raise ValueError(f"{name} is a whole number from {least} on, got {count!r}")

    def replication(*args):
        selection = seen(program, observed, args)
        with scope("truth"):
            choices = choices_of(program)(*args)
        target = Target(program, selection.of(choices))
        truth = (~selection).of(choices)
        algorithm = posterior(target)
        place, has_weight = None, True
        if not hasattr(algorithm, "program"):
            with scope("posterior"):
                others, has_weight = _drawn(algorithm(*args), draws)
        elif warmup is None:
            place = _place(draws)
            with scope("chain"):
                others = _chain(algorithm, truth, draws, thin, 0, args, turn=place)
        else:
            with scope("start"):
                start = (~selection).of(choices_of(program)(*args))
            with scope("chain"):
                others = _chain(algorithm, start, draws, thin, warmup, args)
        number = _number(others, truth)
        place = _place(number) if place is None else place
        values = jax.vmap(lambda x: _reals(target, x, quantities, args))(_insert(truth, others, place))
        with scope("tie"):
            ranks = {name: _rank(str(i), x, place) for i, (name, x) in enumerate(values.items())}
        return jax.tree.map(lambda rank: jnp.where(has_weight, rank, 0), ranks), jnp.array(number)

    return replication


# ------------------------------------------------------------------------- draws from the posterior


def _drawn(result, draws: int):
    """Choices with a leading axis, and whether there was any weight to draw them by."""
    if not isinstance(result, Population):
        return result, True
    has_weight = jnp.isfinite(jnp.max(result.log_weight))
    logits = jnp.where(has_weight, result.log_weight, 0.0)
    picked = sample("picked", dist.Categorical(logits=logits).expand([draws]))
    return jax.tree.map(lambda x: x[picked], result.value), has_weight


def _chain(kernel, start: Mapping, draws: int, thin: int, warmup: int, args: tuple, turn=None) -> dict:
    """The choices along a chain. At draw ``turn`` it goes back to its start, and from there the other way."""
    with scope("init"):
        first = kernel.init(trace_at(kernel.program, start, *args), *args)

    def walk(state, steps: int):
        return lax.scan(lambda state, _: (kernel(state, *args), None), state, None, length=steps)[0]

    def draw(state, i):
        if turn is not None:
            state = jax.tree.map(lambda x, y: jnp.where(i == turn, x, y), first, state)
        state = walk(state, thin)
        return state, state.trace.choices

    with scope("warmup"):
        state = walk(first, warmup)
    return lax.scan(draw, state, jnp.arange(draws))[1]


def _number(others, truth: Mapping) -> int:
    """How many draws there are, if they are like the true choices."""
    like = jax.tree.structure(others) == jax.tree.structure(truth)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(side)] for side in (others, truth)]
    if not like or not all(x and x == (shapes[0][0][0], *y) for x, y in zip(*shapes)):
        drawn, expected = (jax.tree.map(jnp.shape, side) for side in (others, truth))
        raise ChoiceError(
            f"draws are choices of every site that is not observed, with one leading axis; here those of one draw have "
            f"the shapes {expected}, but what was drawn has the shapes {drawn}"
        )
    return shapes[0][0][0]


# ------------------------------------------------------------------------- ranks


def _place(draws: int):
    """Where the true value stands among the draws: anywhere, so that it is treated like any of them."""
    return sample("place", dist.Categorical(jnp.full(draws + 1, 1 / (draws + 1))))


def _insert(truth: Mapping, others: Mapping, place):
    def one(x, rest):
        at = jnp.arange(len(rest) + 1)
        rest = jnp.asarray(rest)[jnp.clip(at - (at > place), 0, len(rest) - 1)]
        return jnp.where(align(at == place, rest), jnp.asarray(x)[None], rest)

    return jax.tree.map(one, truth, others)


def _reals(target: Target, choices: Mapping, quantities: Mapping[str, Callable], args: tuple) -> dict:
    """What is ranked: the choices by address, as reals, and the test quantities."""
    given = check_given(stage(target, *args), choices, complete=True)
    reals = {spell(address): _real(x) for address, x in given.items()}
    for name, quantity in quantities.items():
        if name in reals:
            raise AddressError(f"{name!r} is a site of the program: give the test quantity another name")
        reals[name] = jnp.asarray(quantity(target, choices, *args), float)
    return reals


def _real(choice):
    if isinstance(choice, Masked):
        return jnp.where(align(choice.present, choice.value), jnp.asarray(choice.value, float), -jnp.inf)
    return jnp.asarray(choice, float)


def _rank(name: str, values, place):
    """How many are below the true one, with ties broken at random: of values ``[L + 1, ...]``, int ``[...]``."""
    true = values[place]
    below = jnp.sum(values < true, axis=0)
    equal = jnp.maximum(jnp.sum(values == true, axis=0), 1)  # itself included, unless it is not a number
    possible = jnp.arange(len(values)) < equal[..., None]
    return below + sample(name, dist.Categorical(probs=possible / equal[..., None]))


# ------------------------------------------------------------------------- the report


def _names(site: str, shape: tuple[int, ...]) -> list[str]:
    return [f"{site}[{','.join(map(str, index))}]" if index else site for index in np.ndindex(*shape)]


def _columns(ranks: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([rank.reshape(len(rank), -1) for rank in ranks.values()], axis=1)


def _report(
    claim: str, program: str, args: tuple, names: list[str], found: Uniformity, budget: Budget
) -> CalibrationReport:
    difference = ecdf_difference(count_ranks(found.ranks, found.bins))
    details = []
    for i in np.argsort(-found.log_wealth, kind="stable")[:5]:
        k = int(np.argmax(np.abs(difference[i])))
        uniform = (k + 1) / found.bins
        details.append(
            (
                f"share of ranks of {names[i]} up to {k} of {found.bins - 1}",
                uniform,
                uniform + difference[i, k],
            )
        )
    number = len(found.ranks)
    how = (
        f"by a test on {number} replications, p = {found.p_value:.2g} at a false-alarm rate of "
        f"{budget.false_alarm_rate:.2g}"
    )
    if not found.rejected:
        how += f", which would have seen a difference of {found.bound:.2g}"
    where, uniform, share = details[0]
    return CalibrationReport(
        claim=claim,
        holds=not found.rejected,
        error=found.error,
        unit="largest difference of the distribution of ranks",
        how=how,
        p_value=found.p_value,
        counterexample=Counterexample(program, args, f"the {where}", uniform, float(share))
        if found.rejected
        else None,
        details=tuple((where, f"{uniform:.4g}", f"{share:.4g}") for where, uniform, share in details),
        ranks={name: found.ranks[:, i] for i, name in enumerate(names)},
        draws=found.bins - 1,
    )
