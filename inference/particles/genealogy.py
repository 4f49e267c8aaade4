"""Who descends from whom in a run of sequential Monte Carlo, what they weighed, and the effective sample sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ...ppl import AddressError, ChoiceError, Masked, Trace, UnsupportedError
from ...ppl.choices import Address
from ...ppl.effects import deterministic_at
from ...ppl.policy import Cloud
from ...ppl.population import Population
from ..array_module import array_module
from .fixed_lag import fixed_lag

_ESS, _RESAMPLED, _TIME, _LOG_WEIGHT, _LAST = " ess", " resampled", " time", " log weight", " last"


def record(address: Address, cloud: Cloud, ess, resampled, final) -> None:
    """Records, beside the ancestors that are drawn at an address, what else :func:`genealogy` reads.

    These are ``deterministic`` values: where nobody traces the run, they are not even computed.
    """
    beside = {
        _ESS: ess,
        _RESAMPLED: resampled,
        _TIME: cloud.suspensions,
        _LOG_WEIGHT: cloud.log_weight + cloud.log_scale,
    }
    if final is not False:  # at the end of a step
        beside[_LAST] = final
    for what, value in beside.items():
        deterministic_at((*address[:-1], address[-1] + what), value)


def genealogy(trace: Trace, scope: str = "") -> Genealogy:
    """Reads off a trace of ``smc`` who descends from whom. In ``jit`` too, where its arrays are of JAX.

    Args:
      trace: of one run of ``smc``, of ``conditional_smc``, or of a program that calls them.
      scope: the address under which they are called (``"particles"``, ``"outer/inner"``).

    Raises:
      AddressError: nothing was resampled there.
      ChoiceError: the trace is one of many runs (not seen in ``jit``).
      UnsupportedError: in ``jit``, some suspensions are in a branch, so that their number is not known.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 0.25), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> trace = ppl.simulate(inference.smc(walk, 8))(jax.random.key(0), jnp.zeros(5))
    >>> found = inference.genealogy(trace)
    >>> found.ancestors.shape, found.ess.shape
    ((5, 8), (5,))
    >>> path = trace.choices["x"][jnp.arange(5), found.lineages(3)[:5, 0]]
    >>> bool((path == trace.value.value[3]).all())
    True
    """
    choices, computed = _under(scope, trace.choices), _under(scope, trace.deterministic)
    # The program itself may resample too, as a part of it: then its sites have the shorter name.
    names = [name for name, records in computed.items() if name.startswith("resample") and _points(records)]
    if not names:
        raise AddressError(
            f"no resampling was recorded {f'under {scope!r}' if scope else 'in this trace'}: give that of a program "
            "that is suspended after some factor, ppl.simulate(inference.smc(program, n))(key), or the scope in which "
            "smc is called. island_smc and smc(rejuvenate=...) keep no genealogy"
        )
    name = max(names, key=lambda name: (len(name), name))
    if any(site.endswith(" lineage") for site in choices[name]):
        raise AddressError(
            f"the lineages at {name!r} were drawn anew by backward simulation: the values are those of no genealogy"
        )
    points = _points(computed[name])
    ancestors, ess, resampled, log_weight, time = map(
        _concatenate, zip(*(_at_point(choices[name], computed[name], point) for point in points))
    )
    order = array_module(time).argsort(time)
    if not isinstance(time, jax.core.Tracer) and not np.array_equal(time[order], np.arange(len(time))):
        raise ChoiceError(
            f"the trace is not of one run of resampling at {name!r}: its suspensions are numbered "
            f"{time[order].tolist()}; of many runs pick one, with jax.tree.map(lambda x: x[0], trace)"
        )
    midway = any(_suspends_midway(computed[name], point) for point in points)
    return Genealogy(ancestors[order], ess[order], resampled[order], log_weight[order], time, midway)


@dataclass(frozen=True, repr=False)
class Genealogy:
    """The slots of a population of n, over T suspensions.

    Time t is before the suspension t, and time T the end of the program.

    Attributes:
      ancestors: the slot at time t of which slot j is a copy at time t + 1.
      ess: the effective sample size that each suspension met with (by weight and twist, if there is one).
      resampled: whether the population was then resampled.
      log_weight: what the slots weighed then, before that, without twists and as in a ``Population``: ``logmeanexp`` of
        a row is the log evidence so far.
      time: the time of each suspension, in the order in which a trace has them: each loop after what comes before it,
        and that of a loop that runs backwards from its last step to its first.
      midway: whether a loop suspends before its step is over, so that the step draws values at two times.
    """

    ancestors: Int[np.ndarray, "T n"]
    ess: Float[np.ndarray, " T"]
    resampled: Bool[np.ndarray, " T"]
    log_weight: Float[np.ndarray, "T n"]
    time: Int[np.ndarray, " T"]
    midway: bool = False

    @property
    def size(self) -> int:
        return self.ancestors.shape[1]

    def lineages(self, members: int | Sequence[int] | None = None) -> Int[np.ndarray, "T+1 k"]:
        """The slots in which members of the final population were at each time; of all if None.

        Raises:
          IndexError: there is no such member.
        """
        last = np.arange(self.size) if members is None else np.atleast_1d(np.asarray(members, int))
        if not np.all((0 <= last) & (last < self.size)):
            raise IndexError(f"members are numbered from 0 to {self.size - 1}, got {last.tolist()}")
        slots = [last]
        for ancestors in self.ancestors[::-1]:
            slots.append(ancestors[slots[-1]])
        return np.stack(slots[::-1])

    @property
    def survivors(self) -> Int[np.ndarray, " T+1"]:
        """How many slots of each time have descendants at the end."""
        return np.array([len(np.unique(row)) for row in self.lineages()])

    @property
    def common_ancestor(self) -> int | None:
        """The last time at which one slot is the ancestor of all that are there at the end; None if there is none."""
        times = np.flatnonzero(self.survivors == 1)
        return int(times[-1]) if len(times) else None

    def fixed_lag(self, values: Any, lag: int) -> Population:
        """What slots held at each time, as it is known ``lag`` suspensions later: a smoother of long series.

        A batch ``[T]`` of populations. That of time t has the members of time ``s = min(t + lag, T - 1)``, with their
        weights then, and of each the value that its ancestor had at time t. It is properly weighted *for what was known
        at time s*: of a state-space model, for x_t given y_0, ..., y_s. With ``lag=0`` that is filtering. With
        ``lag=T - 1`` it is the smoother that the paths of ``smc`` are: right, but the early values are copies of a few.

        Lags in between are an approximation to x_t given all of the data, and unlike what is properly weighted a biased
        one, however many particles there are: it ignores what comes after s. The bias falls geometrically in the lag
        where the chain forgets where it was; the variance does not grow with T. A lag of a few times the memory of the
        chain will do. Without bias, at O(T n^2), there is ``backward_simulation``.

        Works in ``jit`` and ``vmap``, in O(T n log(lag)).

        Args:
          values: a pytree with leaves ``[T, n, ...]``, such as ``trace.choices["x"]``: what slots held when each
            suspension came, drawn since the last one. In the order in which a trace has them, which is that of the
            result: of a loop that runs backwards, t + lag is an earlier row. A suspension before the loop, say after a
            factor of the first state, has the first row: ``jnp.concatenate([start[None], x])``.
          lag: a number of suspensions. What the program weighs after the last one does not count.

        Raises:
          ChoiceError: there is not one row of values for each suspension, or not one value for each slot; some values
            are absent, and ``Masked``.
          UnsupportedError: a loop suspends midway in its step. Which of its values were drawn before that is not known:
            let it draw all it draws, and then observe.
          ValueError: the lag is none.

        Source: Kitagawa, *Monte Carlo filter and smoother for non-Gaussian nonlinear state space models*, JCGS 5
        (1996); for the bias and the variance, Olsson, Cappé, Douc and Moulines, *Sequential Monte Carlo smoothing with
        application to parameter estimation in nonlinear state space models*, Bernoulli 14 (2008).

        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from borelax import inference, ppl
        >>> def walk(ys):
        ...     def step(x, y):
        ...         x = ppl.sample("x", dist.Normal(0.5 * x, 1.0))
        ...         ppl.observe("y", dist.Normal(x, 0.5), y)
        ...         return x, None
        ...     return jax.lax.scan(step, 0.0, ys)[0]
        >>> @jax.jit
        ... def smoothed(key, ys):
        ...     trace = ppl.simulate(inference.smc(walk, 100))(key, ys)
        ...     return inference.genealogy(trace).fixed_lag(trace.choices["x"], 5).expectation()
        >>> smoothed(jax.random.key(0), jnp.zeros(50)).shape
        (50,)
        """
        return fixed_lag(self, values, lag)

    def plot(self):
        """A matplotlib figure: the effective sample size over time, with a mark where the population was resampled, and
        under it the lineages, those that lead to the end darker."""
        from .genealogy_plot import plot

        return plot(self)

    def __repr__(self) -> str:
        steps, least = len(self.ess), int(np.argmin(self.ess))
        since = self.common_ancestor
        coalesced = "no ancestor of all" if since is None else f"one ancestor of all at time {since}"
        return (
            f"Genealogy of {self.size} over {steps} suspension{'s' * (steps != 1)}: resampled {self.resampled.sum()} "
            f"times, least ESS {self.ess[least]:.1f} at {least}\n"
            f"  {self.survivors[0]} of the first {self.size} have descendants at the end; {coalesced}"
        )


def uncrossed(ancestors: Int[np.ndarray, "T n"]) -> Int[np.ndarray, "T+1 n"]:
    """The row in which to draw each slot at each time, so that no two lineages cross.

    >>> uncrossed(np.array([[1, 0]])).tolist()
    [[0, 1], [1, 0]]
    """
    rows = [np.arange(ancestors.shape[1])]
    for step in ancestors:
        rows.append(np.argsort(np.argsort(rows[-1][step], kind="stable"), kind="stable"))
    return np.stack(rows)


# ------------------------------------------------------------------------- helpers


def _under(scope: str, tree: dict) -> dict:
    for part in scope.split("/") if scope else ():
        tree = tree.get(part, {})
        tree = tree if isinstance(tree, dict) else {}
    return tree


def _points(records) -> list[str]:
    """The suspension points that there are records of, in the order of the program."""
    names = records if isinstance(records, dict) else ()
    points = (name.removesuffix(_ESS) for name in names if name.endswith(_ESS))
    return sorted(points, key=lambda point: (len(point), point))


def _at_point(choices: dict, records: dict, point: str) -> list:
    """Ancestors, ESS, whether resampled, log weights and time, of each suspension at a point that was reached."""
    ancestors, log_weight = (_unmasked(x)[0] for x in (choices[point], records[point + _LOG_WEIGHT]))
    if f"{point} ancestor" in choices:
        # Of member 0, before. The others were turned with it: see ancestor_sampling.py.
        first = _unmasked(choices[f"{point} ancestor"])[0][..., None]
        xp, n = array_module(ancestors), ancestors.shape[-1]
        ancestors = (ancestors + first) % n
        log_weight = xp.take_along_axis(log_weight, (xp.arange(n) - first) % n, -1)
    (ess, reached), (resampled, _), (time, _) = (
        _unmasked(records[point + x]) for x in (_ESS, _RESAMPLED, _TIME)
    )
    rows = ancestors, ess, resampled, log_weight, time
    flat = [x.reshape(-1, *x.shape[ess.ndim :]) for x in rows]
    return flat if reached is None else [x[reached.reshape(-1)] for x in flat]


def _suspends_midway(records: dict, point: str) -> bool:
    """Whether a point is in a loop, and not at the end of its steps."""
    return np.ndim(_unmasked(records[point + _ESS])[0]) > 0 and point + _LAST not in records


def _concatenate(parts: Sequence):
    in_jit = any(isinstance(x, jax.core.Tracer) for x in parts)
    return (jnp if in_jit else np).concatenate(parts)


def _unmasked(x) -> tuple:
    """A record, and where there is one (None: everywhere)."""
    if not isinstance(x, Masked):
        return _known(x), None
    if isinstance(x.present, jax.core.Tracer):
        raise UnsupportedError(
            "some suspensions are in a branch that may not be taken: how many there are is not known inside jit; let "
            "the trace be what is compiled, and read its genealogy outside"
        )
    return _known(x.value), np.asarray(x.present)


def _known(x):
    """An array of NumPy, if its numbers are known by now."""
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)
