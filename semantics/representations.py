"""Representations: the ways in which a program can stand for a measure, and the arrows between them.

Each has a ``unit``, a ``bind``, a ``sample`` and a ``score`` to write programs with, and a ``meaning``. All but the
first are over sampling: programs that draw, and that return a weighted value, a trace, a population, instead of a
value. An inference algorithm is a composition of arrows, each of which leaves the meaning as it is:

    arrow                                   from        to
    :func:`~borelax.ppl.weigh`              Programs    Weighted
    :func:`~borelax.ppl.trace`              Programs    Traced
    :func:`~borelax.inference.importance`   Programs    Populations
    :func:`~borelax.inference.smc`          Programs    Populations
    :func:`without_choices`                 Traced      Weighted
    :func:`replicate`                       Weighted    Populations
    :func:`resample`                        Populations Populations
    :func:`one_member`                      Populations Programs
    :func:`finish`                          Suspended   Weighted
    :func:`particles`                       Suspended   Populations
    :func:`~borelax.ppl.seed`               Sampling    functions of a PRNG key

Source: Ścibior, Kammar, Vákár, Staton, Yang, Cai, Ostermann, Moss, Heunen and Ghahramani, *Denotational validation of
higher-order Bayesian inference*, POPL 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Categorical, Distribution

from ..ppl import Trace, UnsupportedError, factor, sample, scope, trace
from ..ppl.choices import flatten, nest, spell
from ..ppl.errors import AddressError
from ..ppl.population import Population
from .denoted import Reading, is_weighted, members, spread, weighted
from .meaning import meaning
from .measure import Measure


class Representation:
    """Computations of one kind, and how they are put together. A computation is a program ``(*args) -> result``.

    Attributes:
      scores: whether computations have weights.
      read: the members that a result stands for.
    """

    scores = True
    read: Reading = staticmethod(members)

    def unit(self, value):
        """The computation of a value: nothing is drawn."""
        raise NotImplementedError

    def bind(self, first, then: Callable[[Any], Any]):
        """``first``, and with its value x the computation ``then(x)``. All parts have the same arguments."""
        raise NotImplementedError

    def sample(self, name: str, d: Distribution):
        """A draw from ``d``."""
        raise NotImplementedError

    def score(self, log_weight):
        """Multiplies the weight; its value is ``()``."""
        raise NotImplementedError

    def meaning(self, computation) -> Callable[..., Measure]:
        """``(*args) -> Measure``: what a finite computation stands for, on average over its draws."""
        return lambda *args: spread(meaning(computation)(*args), self.read)


@dataclass(frozen=True)
class Programs(Representation):
    """Programs as they are: a factor is a factor.

    >>> import numpyro.distributions as dist
    >>> programs = Programs()
    >>> heads = programs.bind(programs.sample("x", dist.Bernoulli(0.25)), lambda x: programs.unit(1 - x))
    >>> programs.meaning(heads)()
    Measure on 2 values, total mass 1
      0.75  1
      0.25  0
    """

    def unit(self, value):
        return lambda *args: value

    def bind(self, first, then):
        return lambda *args: then(first(*args))(*args)

    def sample(self, name, d):
        return lambda *args: sample(name, d)

    def score(self, log_weight):
        def scored(*args):
            factor(log_weight)
            return ()

        return scored


@dataclass(frozen=True)
class Sampling(Programs):
    """Programs without weights: what :func:`~borelax.ppl.seed` runs."""

    scores = False

    def score(self, log_weight):
        raise UnsupportedError(
            "sampling has no weights; use Weighted(), Traced(), Populations() or Suspended()"
        )

    def meaning(self, computation):
        def denoted(*args):
            if is_weighted(computation, args):
                raise UnsupportedError(
                    "this program carries weights, so it is not one of sampling; use Programs()"
                )
            return meaning(computation)(*args)

        return denoted


@dataclass(frozen=True)
class Weighted(Representation):
    """Sampling programs that return ``(value, log_weight)``: what :func:`~borelax.ppl.weigh` makes."""

    read = staticmethod(weighted)

    def unit(self, value):
        return lambda *args: (value, jnp.zeros((), float))

    def bind(self, first, then):
        def bound(*args):
            x, before = first(*args)
            y, after = then(x)(*args)
            return y, before + after

        return bound

    def sample(self, name, d):
        return lambda *args: (sample(name, d), jnp.zeros((), float))

    def score(self, log_weight):
        return lambda *args: ((), jnp.asarray(log_weight, float))


@dataclass(frozen=True)
class Traced(Representation):
    """Sampling programs that return a :class:`~borelax.ppl.Trace`: what :func:`~borelax.ppl.trace` makes."""

    def unit(self, value):
        return trace(lambda *args: value)

    def bind(self, first, then):
        def bound(*args):
            one = first(*args)
            other = then(one.value)(*args)
            return Trace(
                other.value,
                _merged(one.choices, other.choices),
                one.log_density + other.log_density,
                one.log_weight + other.log_weight,
                _merged(one.deterministic, other.deterministic),
            )

        return bound

    def sample(self, name, d):
        return trace(lambda *args: sample(name, d))

    def score(self, log_weight):
        return trace(Programs().score(log_weight))


@dataclass(frozen=True)
class Populations(Representation):
    """Sampling programs that return a :class:`~borelax.ppl.population.Population`.

    ``then`` is run for each member on its own, so that sizes multiply.

    Attributes:
      size: how many members ``sample`` draws.
    """

    size: int = 1

    def unit(self, value):
        return replicate(1)(Weighted().unit(value))

    def bind(self, first, then):
        def bound(*args):
            outer = first(*args)
            inner = jax.vmap(lambda x: then(x)(*args), axis_size=outer.size)(outer.value)
            flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
            log_weight = flat(outer.log_weight[:, None] + inner.log_weight)
            return replace(
                outer,
                value=jax.tree.map(flat, inner.value),
                log_weight=log_weight,
                origin=jnp.repeat(outer.origin, inner.log_weight.shape[1]),
                died=_died(outer, inner, jnp.all(log_weight == -jnp.inf)),
                factors=outer.factors + inner.factors,
                exact=outer.exact and inner.exact,
            )

        return bound

    def sample(self, name, d):
        return replicate(self.size)(Weighted().sample(name, d))

    def score(self, log_weight):
        return replicate(1)(Weighted().score(log_weight))


@dataclass(frozen=True)
class Resumption:
    """A computation that stops after each of its statements.

    Attributes:
      first: the sampling program up to the first stop: ``(*args) -> (state, log_weight)``.
      rest: what goes on from a state, ``state -> Resumption``; None if the state is the value. Of one form whatever the
        state is: how many stops there are is known before anything is drawn.
    """

    first: Callable
    rest: Callable[[Any], Resumption] | None = None


@dataclass(frozen=True)
class Suspended(Representation):
    """Computations that can be stopped and gone on with, each a :class:`Resumption`.

    The library's own SMC suspends any program, whose live values it reads off the jaxpr; here they are the state.
    """

    def unit(self, value):
        return Resumption(Weighted().unit(value))

    def bind(self, first, then):
        if first.rest is None:
            return Resumption(first.first, then)
        return Resumption(first.first, lambda state: self.bind(first.rest(state), then))

    def sample(self, name, d):
        return Resumption(Weighted().sample(name, d))

    def score(self, log_weight):
        return Resumption(Weighted().score(log_weight))

    def meaning(self, computation):
        return Weighted().meaning(finish(computation))


# ------------------------------------------------------------------------- arrows


def without_choices(traced: Callable) -> Callable:
    """From :class:`Traced` to :class:`Weighted`."""

    def forgetful(*args):
        run = traced(*args)
        return run.value, run.log_weight

    return forgetful


def replicate(n: int) -> Callable:
    """From :class:`Weighted` to :class:`Populations`: ``n`` independent runs are the members.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> noisy = ppl.weigh(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))
    >>> ppl.seed(replicate(3)(noisy))(jax.random.key(0)).size
    3
    """

    def arrow(computation: Callable) -> Callable:
        def replicated(*args):
            value, log_weight = jax.vmap(lambda: computation(*args), axis_size=n)()
            own = jnp.arange(n, dtype=jnp.int32)
            never = jnp.full((), -1, jnp.int32)
            return Population(value, log_weight, own, jnp.zeros((), jnp.int32), never, initial_size=n)

        return replicated

    return arrow


def resample(resampler: Callable) -> Callable:
    """From :class:`Populations` to itself: members are replaced by those drawn for their weights, with equal weights.

    Args:
      resampler: from log weights to a distribution over ancestor vectors, such as ``inference.systematic``.
    """

    def arrow(computation: Callable) -> Callable:
        def resampled(*args):
            population = computation(*args)
            total = jax.nn.logsumexp(population.log_weight)
            # Where no member has weight all stay without, whoever descends from whom.
            law = resampler(jnp.where(total == -jnp.inf, 0.0, population.log_weight))
            ancestors = sample("ancestors", law)
            return replace(
                population,
                value=jax.tree.map(lambda x: x[ancestors], population.value),
                log_weight=jnp.full(population.size, total - jnp.log(population.size)),
                origin=population.origin[ancestors],
                generations=population.generations + 1,
            )

        return resampled

    return arrow


def one_member(computation: Callable) -> Callable:
    """From :class:`Populations` to :class:`Programs`: a member, each as probable as the others, with its weight."""

    def drawn(*args):
        population = computation(*args)
        i = sample("member", Categorical(jnp.full(population.size, 1 / population.size)))
        factor(population.log_weight[i])
        return jax.tree.map(lambda x: x[i], population.value)

    return drawn


def finish(computation: Resumption) -> Callable:
    """From :class:`Suspended` to :class:`Weighted`: goes on to the end."""

    def finished(*args):
        state, before = computation.first(*args)
        if computation.rest is None:
            return state, before
        value, after = finish(computation.rest(state))(*args)
        return value, before + after

    return finished


def particles(n: int, move: Callable = lambda computation: computation) -> Callable:
    """From :class:`Suspended` to :class:`Populations`: ``n`` runs side by side, moved wherever they stop.

    Args:
      move: an arrow from :class:`Populations` to itself; with :func:`resample` this is sequential Monte Carlo.

    >>> from borelax import inference
    >>> import numpyro.distributions as dist
    >>> s = Suspended()
    >>> coin = s.bind(s.sample("x", dist.Bernoulli(0.25)), lambda x: s.bind(s.score(0.5 * x), lambda _: s.unit(x)))
    >>> smc = particles(2, resample(inference.systematic))(coin)
    >>> Populations().meaning(smc)() == s.meaning(coin)()
    True
    """

    def arrow(computation: Resumption) -> Callable:
        def run(*args):
            population, rest, stop = replicate(n)(computation.first)(*args), computation.rest, 0
            while rest is not None:
                with scope(f"stop {stop}"):
                    population = move(lambda *_: population)(*args)
                population, rest = _resumed(population, rest, args)
                stop += 1
            return population

        return run

    return arrow


# ------------------------------------------------------------------------- helpers


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Stop:
    """Where a member stops, and whether that is the end."""

    state: Any
    log_weight: jax.Array
    over: bool = field(metadata={"static": True})


def _resumed(population: Population, rest: Callable, args: tuple):
    """The population at its next stop, and what goes on from there.

    What goes on may use values of earlier stops, which differ between members. So a state keeps the one before it, and
    the way from there is gone again, up to what was drawn.
    """

    def go_on(state):
        resumption = rest(state)
        after, log_weight = resumption.first(*args)
        over = resumption.rest is None
        return _Stop(after if over else (state, after), log_weight, over)

    stop = jax.vmap(go_on, axis_size=population.size)(population.value)
    population = replace(population, value=stop.state, log_weight=population.log_weight + stop.log_weight)
    return population, None if stop.over else lambda states: rest(states[0]).rest(states[1])


def _merged(one: dict, other: dict) -> dict:
    one, other = flatten(one), flatten(other)
    if both := one.keys() & other.keys():
        raise AddressError(
            f"two parts of a trace have the address {spell(min(both))!r}; rename one, or put one under ppl.scope"
        )
    return nest(one | other)


def _died(outer: Population, inner: Population, dead):
    """The factor after which no member of a population has weight, if it is one of populations."""
    inside = jnp.where(dead & (jnp.max(inner.died) >= 0), len(outer.factors) + jnp.max(inner.died), -1)
    return jnp.where(outer.died >= 0, outer.died, inside).astype(jnp.int32)
