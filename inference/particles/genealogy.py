"""Who descends from whom in a run of sequential Monte Carlo, and how the effective sample size went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ...ppl import AddressError, ChoiceError, Masked, Trace
from ...ppl.choices import Address
from ...ppl.effects import deterministic_at
from ...ppl.policy import Cloud

_ESS, _RESAMPLED, _TIME = " ess", " resampled", " time"


def record(address: Address, cloud: Cloud, ess, resampled) -> None:
    """Records, beside the ancestors that are drawn at an address, what else :func:`genealogy` reads.

    These are ``deterministic`` values: where nobody traces the run, they are not even computed.
    """
    beside = {_ESS: ess, _RESAMPLED: resampled, _TIME: cloud.suspensions}
    for what, value in beside.items():
        deterministic_at((*address[:-1], address[-1] + what), value)


def genealogy(trace: Trace, scope: str = "") -> Genealogy:
    """Reads off a trace of ``smc`` who descends from whom.

    Args:
      trace: of one run of ``smc``, of ``conditional_smc``, or of a program that calls them.
      scope: the address under which they are called (``"particles"``, ``"outer/inner"``).

    Raises:
      AddressError: nothing was resampled there.
      ChoiceError: the trace is one of many runs.

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
            "smc is called"
        )
    name = max(names, key=lambda name: (len(name), name))
    points = [_at_point(choices[name], computed[name], point) for point in _points(computed[name])]
    ancestors, ess, resampled, time = (np.concatenate(parts) for parts in zip(*points))
    order = np.argsort(time, kind="stable")
    if not np.array_equal(time[order], np.arange(len(time))):
        raise ChoiceError(
            f"the trace is not of one run of resampling at {name!r}: its suspensions are numbered "
            f"{time[order].tolist()}; of many runs pick one, with jax.tree.map(lambda x: x[0], trace)"
        )
    return Genealogy(ancestors[order], ess[order], resampled[order])


@dataclass(frozen=True, repr=False)
class Genealogy:
    """The slots of a population of n, over T suspensions.

    Time t is before the suspension t, and time T the end of the program.

    Attributes:
      ancestors: the slot at time t of which slot j is a copy at time t + 1.
      ess: the effective sample size that each suspension met with (by weight and twist, if there is one).
      resampled: whether the population was then resampled.
    """

    ancestors: Int[np.ndarray, "T n"]
    ess: Float[np.ndarray, " T"]
    resampled: Bool[np.ndarray, " T"]

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
    """The suspension points that there are records of."""
    names = records if isinstance(records, dict) else ()
    return [name.removesuffix(_ESS) for name in names if name.endswith(_ESS)]


def _at_point(choices: dict, records: dict, point: str) -> list[np.ndarray]:
    """Ancestors, ESS, whether resampled and time, of each suspension at a point that was reached."""
    ancestors = _unmasked(choices[point])[0]
    if f"{point} ancestor" in choices:
        # Of member 0, before. The others were turned with it: see ancestor_sampling.py.
        first = _unmasked(choices[f"{point} ancestor"])[0]
        ancestors = (ancestors + first[..., None]) % ancestors.shape[-1]
    (ess, reached), (resampled, _), (time, _) = (
        _unmasked(records[point + x]) for x in (_ESS, _RESAMPLED, _TIME)
    )
    flat = [ancestors.reshape(-1, ancestors.shape[-1]), *(x.reshape(-1) for x in (ess, resampled, time))]
    return [x[reached.reshape(-1)] for x in flat]


def _unmasked(x) -> tuple[np.ndarray, np.ndarray]:
    """A record, and where there is one."""
    if isinstance(x, Masked):
        return np.asarray(x.value), np.asarray(x.present)
    return np.asarray(x), np.ones(np.shape(x), bool)
