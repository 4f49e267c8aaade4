"""Resampling schemes, as distributions over ancestor vectors.

A resampler takes n log weights to a :class:`Resampling`: a numpyro distribution over ``int32[n]``, whose
element j says which particle is the j-th survivor. Each has mean offspring ``n W_i`` for normalised weight
``W_i``, which is all that unbiasedness needs. Each draws in O(n) work, without host callbacks and safely under
``vmap``, has an exact ``log_prob``, and for small n lists its finite support with its probabilities: that is what lets
a whole SMC run be enumerated. A particle of weight zero never has offspring.

Some have a conditional law too, given that particle 0 survives, for conditional SMC.

Sources: Douc, Cappé and Moulines, *Comparison of resampling schemes for particle filtering* (2005); Gerber,
Chopin and Whiteley, *Negative association, ordering and convergence of resampling methods* (2019), for SSP; Chopin
and Singh, *On particle Gibbs sampling*, Bernoulli 21 (2015), for the conditional laws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import Distribution, constraints

from ...ppl import UnsupportedError
from ...ppl.loop import if_anyone


class Resampling(Distribution):
    """A distribution over ancestor vectors, given log weights ``[n]`` (of any scale; minus infinity allowed).

    Subclasses define ``_draw(key)``, ``_log_prob(ancestors)`` and, where it is not all vectors, ``_candidates()``.
    """

    arg_constraints = {"log_weights": constraints.real_vector}
    has_enumerate_support = True

    def __init__(self, log_weights):
        self.log_weights = jnp.asarray(log_weights)
        super().__init__(batch_shape=(), event_shape=self.log_weights.shape[-1:], validate_args=False)

    @property
    def support(self):
        return constraints.independent(constraints.integer_interval(0, self.size - 1), 1)

    @property
    def size(self) -> int:
        return self.log_weights.shape[-1]

    @property
    def weights(self):
        """The normalised weights."""
        return jax.nn.softmax(self.log_weights)

    def sample(self, key, sample_shape=()):
        if sample_shape == ():
            return self._draw(key)
        keys = jax.random.split(key, int(np.prod(sample_shape)))
        return jax.vmap(self._draw)(keys).reshape(*sample_shape, self.size)

    def log_prob(self, value, intermediates=None):
        log_prob = self._log_prob
        for _ in range(jnp.ndim(value) - 1):
            log_prob = jax.vmap(log_prob)
        return log_prob(jnp.asarray(value))

    def enumerate_support(self, expand=True):
        """``int32[K, n]``: every ancestor vector that can occur (perhaps with others, of probability zero)."""
        return self._candidates()

    def enumerate_log_probs(self):
        """The log probabilities ``[K]`` of the rows of ``enumerate_support()``, summing to one."""
        return self.log_prob(self._candidates())

    def conditional(self) -> Resampling:
        """The law of the ancestors given that particle 0 survives, with one of its survivors in place 0.

        With R the law of the ancestor vector a, and c(a) how often it has 0 in it, that is the law

            R(a) c(a) / (n W_0),

        one of the c(a) being moved to place 0, any with the same probability. A fixed place is right for a scheme that
        does not depend on the order of the particles, or only on their cyclic order.

        Raises:
          UnsupportedError: the scheme depends on the order otherwise.
        """
        raise UnsupportedError(
            f"{type(self).__name__} resampling has no conditional law here, which conditional SMC and particle Gibbs "
            "need; use inference.systematic, inference.multinomial, inference.residual or inference.killing"
        )

    def _candidates(self):
        _check_enumerable(self.size**self.size, self)
        return jnp.asarray(list(itertools.product(range(self.size), repeat=self.size)), jnp.int32)


class Systematic(Resampling):
    """One uniform u for all: particle i gets the integers in ``(n C_{i-1} - u, n C_i - u]``, C cumulated weights.

    At most n + 1 ancestor vectors are possible: the intervals of u.
    """

    def _draw(self, key):
        return self._at(jax.random.uniform(key, dtype=self.log_weights.dtype))

    def _at(self, u):
        cumulated, total = _cumulated(self.log_weights)
        counts = jnp.ceil(cumulated * (self.size / total) - u).astype(jnp.int32)
        return _ancestors(jnp.where(cumulated >= total, self.size, counts), self.size)

    def _log_prob(self, ancestors):
        cumulated, total = _cumulated(self.log_weights)
        counts = _cumulated_counts(ancestors, self.size)
        excess = cumulated * (self.size / total) - counts
        inside = cumulated < total  # the others get everybody, whatever u
        low = jnp.max(jnp.where(inside, excess, 0.0), initial=0.0)
        high = jnp.min(jnp.where(inside, excess + 1.0, 1.0), initial=1.0)
        complete = jnp.all(inside | (counts == self.size))
        possible = complete & (high > low) & _is_sorted(ancestors)
        return jnp.where(possible, jnp.log(jnp.where(possible, high - low, 1.0)), -jnp.inf)

    def _edges(self):
        cumulated, total = _cumulated(self.log_weights)
        scaled = cumulated * (self.size / total)
        inner = jnp.where(cumulated < total, scaled - jnp.floor(scaled), 0.0)
        ends = jnp.array([0.0, 1.0], inner.dtype)
        return jnp.sort(jnp.concatenate([inner, ends]))

    def _candidates(self):
        edges = self._edges()
        return jax.vmap(self._at)((edges[1:] + edges[:-1]) / 2)

    def enumerate_log_probs(self):
        return jnp.log(jnp.diff(self._edges()))  # rows may repeat: each stands for its own interval

    def conditional(self) -> Resampling:
        return ConditionalSystematic(self.log_weights)


class ConditionalSystematic(Systematic):
    """Systematic resampling given that particle 0 survives.

    Its survivors are the integers in ``(-u, n C_0 - u]``. A uniform point of ``(0, n W_0)`` is one of them, with the
    offset u that it needs. The vector is turned until that one is in place 0: systematic resampling sees the particles
    as a circle, and a swap would not keep it.
    """

    def _draw(self, key):
        point = self._share * jax.random.uniform(key, dtype=self.log_weights.dtype)
        place = jnp.floor(point)
        return self._turned(self._at(point - place), place.astype(jnp.int32))

    def _log_prob(self, ancestors):
        # What was turned past the end are zeros, as many as the place was. If all are zero it may have been any.
        only = jnp.all(ancestors == 0)
        place = jnp.where(only, 0, jnp.argmax(ancestors[::-1] != 0))
        log_length = super()._log_prob(jnp.roll(ancestors, place))
        possible = (ancestors[0] == 0) & (log_length > -jnp.inf)
        log_ways = jnp.where(only, jnp.log(self.size), 0.0)
        return jnp.where(possible, log_length + log_ways - jnp.log(self._share), -jnp.inf)

    def _candidates(self):
        turns = jax.vmap(self._turned, in_axes=(None, 0))
        vectors = jax.vmap(turns, in_axes=(0, None))(super()._candidates(), jnp.arange(self.size))
        return vectors.reshape(-1, self.size)

    def enumerate_log_probs(self):
        survivors = jnp.sum(super()._candidates() == 0, axis=1)
        log_probs = super().enumerate_log_probs() - jnp.log(self._share)
        possible = jnp.arange(self.size) < survivors[:, None]
        return jnp.where(possible, log_probs[:, None], -jnp.inf).reshape(-1)

    @property
    def _share(self):
        """``n W_0``."""
        cumulated, total = _cumulated(self.log_weights)
        return cumulated[0] * (self.size / total)

    def _turned(self, ancestors, place):
        return jnp.roll(ancestors, -place).at[0].set(0)


class _Sorted(Resampling):
    """A scheme whose ancestor vectors are sorted."""

    def _candidates(self):
        _check_enumerable(math.comb(2 * self.size - 1, self.size), self)
        vectors = itertools.combinations_with_replacement(range(self.size), self.size)
        return jnp.asarray(list(vectors), jnp.int32)


class Stratified(_Sorted):
    """One uniform in each of the n strata ``[j/n, (j+1)/n)``."""

    def _draw(self, key):
        u = jax.random.uniform(key, (self.size,), self.log_weights.dtype)
        cumulated, total = _cumulated(self.log_weights)
        scaled = cumulated * (self.size / total)
        stratum = jnp.clip(jnp.floor(scaled), 0, self.size - 1)
        below = stratum + (u[stratum.astype(jnp.int32)] < scaled - stratum)
        return _ancestors(jnp.where(cumulated >= total, self.size, below.astype(jnp.int32)), self.size)

    def _log_prob(self, ancestors):
        cumulated, total = _cumulated(self.log_weights)
        upper = jnp.where(cumulated >= total, self.size, cumulated * (self.size / total))
        lower = jnp.concatenate([jnp.zeros(1, upper.dtype), upper[:-1]])
        strata = jnp.arange(self.size)
        overlap = jnp.minimum(upper[ancestors], strata + 1) - jnp.maximum(lower[ancestors], strata)
        return jnp.sum(jnp.log(jnp.maximum(overlap, 0.0)))


class Independent(Resampling):
    """A scheme that fills each place independently, and does not depend on the order of the particles."""

    def _log_place(self, place, ancestor):
        """The log probability that each place gets its ancestor."""
        raise NotImplementedError

    def _log_prob(self, ancestors):
        return jnp.sum(self._log_place(jnp.arange(self.size), ancestors))

    def conditional(self) -> Resampling:
        return ConditionalIndependent(self)


class ConditionalIndependent(Resampling):
    """Particle 0 in a place chosen by how probable it is there, which is then swapped with place 0."""

    pytree_data_fields = ("base",)

    def __init__(self, base: Independent):
        self.base = base
        super().__init__(base.log_weights)

    def _draw(self, key):
        where, others = jax.random.split(key)
        place = jax.random.categorical(where, self._log_where())
        ancestors = self.base._draw(others)
        return ancestors.at[place].set(ancestors[0]).at[0].set(0)

    def _log_prob(self, ancestors):
        places = jnp.arange(self.size)
        own = self.base._log_place(places, ancestors).at[0].set(0.0)
        before, after = jnp.cumsum(own)[:-1], jnp.cumsum(own[::-1])[-2::-1]
        others = jnp.pad(before, (1, 0)) + jnp.pad(after, (0, 1))
        swapped = self.base._log_place(0, ancestors).at[0].set(0.0)
        total = jax.nn.logsumexp(self._log_where() + others + swapped)
        return jnp.where(ancestors[0] == 0, total, -jnp.inf)

    def _log_where(self):
        """The log probabilities ``[n]`` of the place: ``P(place has 0) / (n W_0)``."""
        return jax.nn.log_softmax(self.base._log_place(jnp.arange(self.size), 0))

    def _candidates(self):
        _check_enumerable(self.size ** (self.size - 1), self)
        others = itertools.product(range(self.size), repeat=self.size - 1)
        return jnp.asarray([(0, *rest) for rest in others], jnp.int32)


class Multinomial(Independent):
    """n independent draws."""

    def _draw(self, key):
        u = jax.random.uniform(key, (self.size,), self.log_weights.dtype)
        return _search(*_cumulated(self.log_weights), u)

    def _log_place(self, place, ancestor):
        return jnp.broadcast_to(jax.nn.log_softmax(self.log_weights)[ancestor], (self.size,))


class Residual(Independent):
    """``floor(n W_i)`` copies of each, and independent draws from what remains for the rest."""

    def _split(self):
        scaled = self.size * self.weights
        whole = jnp.floor(scaled)
        fixed = jnp.cumsum(whole).astype(jnp.int32)
        return fixed, scaled - whole

    def _draw(self, key):
        fixed, rest = self._split()
        u = jax.random.uniform(key, (self.size,), self.log_weights.dtype)
        drawn = _search(*_cumulate(rest), u)
        return jnp.where(jnp.arange(self.size) < fixed[-1], _ancestors(fixed, self.size), drawn)

    def _log_place(self, place, ancestor):
        fixed, rest = self._split()
        log_rest = jnp.log(rest) - jnp.log(jnp.sum(rest))
        agrees = jnp.where(ancestor == _ancestors(fixed, self.size)[place], 0.0, -jnp.inf)
        return jnp.where(place < fixed[-1], agrees, log_rest[ancestor])


class Killing(Independent):
    """Particle i stays with probability ``w_i / max w``; otherwise its place is taken by an independent draw."""

    def _log_survival(self):
        return self.log_weights - jnp.max(self.log_weights)

    def _draw(self, key):
        stay, replace = jax.random.uniform(key, (2, self.size), self.log_weights.dtype)
        drawn = _search(*_cumulated(self.log_weights), replace)
        own = jnp.arange(self.size, dtype=jnp.int32)
        return jnp.where(stay < jnp.exp(self._log_survival()), own, drawn)

    def _log_place(self, place, ancestor):
        log_survival = self._log_survival()[place]
        stayed = jnp.where(ancestor == place, log_survival, -jnp.inf)
        drawn = jnp.log1p(-jnp.exp(log_survival)) + jax.nn.log_softmax(self.log_weights)[ancestor]
        return jnp.logaddexp(stayed, drawn)


class SSP(_Sorted):
    """Srinivasan's sampling process: ``floor(n W_i)`` or one more copies of each, by resolving the fractional parts two
    at a time. Of minimal variance like systematic resampling, and consistent whatever the order."""

    def _split(self):
        scaled = self.size * self.weights
        return jnp.floor(scaled), scaled - jnp.floor(scaled)

    def _draw(self, key):
        whole, fraction = self._split()
        u = jax.random.uniform(key, (self.size,), fraction.dtype)

        def step(active, new):
            (a, f), (b, g, u) = active, new
            first, one, left = _ssp_pair(f, g)
            keep_a = u < first  # below 1: b drops to zero; else: a rises to one
            resolved = jnp.where(keep_a == one, a, b)
            return (jnp.where(keep_a == one, b, a), left), (resolved, one)

        index = jnp.arange(self.size, dtype=jnp.int32)
        (last, left), (resolved, up) = lax.scan(
            step, (index[0], fraction[0]), (index[1:], fraction[1:], u[1:])
        )
        counts = whole.astype(jnp.int32).at[resolved].add(up.astype(jnp.int32))
        counts = counts.at[last].add((left > 0.5).astype(jnp.int32))
        return _ancestors(jnp.cumsum(counts), self.size)

    def _log_prob(self, ancestors):
        whole, fraction = self._split()
        target = _counts(ancestors, self.size) - whole.astype(jnp.int32)

        # What is still open matters only through its fraction and through whether it is to be raised.
        def step(state, new):
            (mass, f), (g, raised) = state, new
            first, one, left = _ssp_pair(f, g)
            new_active = jnp.where(raised == 1, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
            keep, drop = jnp.where(one, 1 - first, first), jnp.where(one, first, 1 - first)
            settled = jnp.where(one, raised == 1, raised == 0)
            mass = mass * jnp.where(settled, keep, 0.0) + new_active * mass[one.astype(int)] * drop
            return (mass, left), None

        start = jnp.where(target[0] == 1, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])).astype(fraction.dtype)
        (mass, left), _ = lax.scan(step, (start, fraction[0]), (fraction[1:], target[1:]))
        possible = jnp.all((target == 0) | (target == 1)) & _is_sorted(ancestors)
        return jnp.where(possible, jnp.log(mass[(left > 0.5).astype(int)]), -jnp.inf)


class Adaptive(Distribution):
    """Resampling where ``active``, and everybody's own place where not."""

    arg_constraints = {"active": constraints.boolean}
    pytree_data_fields = ("base", "active")
    has_enumerate_support = True

    def __init__(self, base: Resampling, active):
        self.base = base
        self.active = jnp.asarray(active)
        super().__init__(batch_shape=(), event_shape=base.event_shape, validate_args=False)

    @property
    def support(self):
        return self.base.support

    @property
    def _own(self):
        return jnp.arange(self.base.size, dtype=jnp.int32)

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, self.base.size)
        stay = lambda key: jnp.broadcast_to(self._own, shape)  # noqa: E731
        return if_anyone(self.active, lambda key: self.base.sample(key, sample_shape), stay, key)

    def log_prob(self, value, intermediates=None):
        stays = jnp.where(jnp.all(value == self._own, axis=-1), 0.0, -jnp.inf)
        return jnp.where(self.active, self.base.log_prob(value), stays)

    def enumerate_support(self, expand=True):
        moved = self.base.enumerate_support()
        first = jnp.arange(moved.shape[0])[:, None] == 0
        return jnp.where(self.active | ~first, moved, self._own)

    def enumerate_log_probs(self):
        log_probs = self.base.enumerate_log_probs()
        first = jnp.arange(log_probs.shape[0]) == 0
        return jnp.where(self.active, log_probs, jnp.where(first, 0.0, -jnp.inf))


Resampler = Callable[[jax.Array], Resampling]

systematic: Resampler = Systematic
stratified: Resampler = Stratified
multinomial: Resampler = Multinomial
residual: Resampler = Residual
killing: Resampler = Killing
ssp: Resampler = SSP


# ------------------------------------------------------------------------- helpers


def _cumulated(log_weights):
    """Cumulated weights ``C_i``, not normalised, and their total."""
    top = jnp.max(log_weights)
    return _cumulate(jnp.exp(log_weights - jnp.where(jnp.isfinite(top), top, 0.0)))


def _cumulate(weights):
    """The cumulative sum and the total, in fixed point.

    A parallel sum of floats can step down by a rounding error, and so let in a particle of weight zero, which may
    have broken a constraint. Sums of integers are exact, and of finer resolution than float32.
    """
    one, integer = (2.0**62, jnp.int64) if weights.dtype == jnp.float64 else (2.0**30, jnp.int32)
    parts = jnp.round(weights * (one / jnp.sum(weights))).astype(integer)
    cumulated = jnp.cumsum(parts).astype(weights.dtype)
    return cumulated, cumulated[-1]


def _ancestors(cumulated_counts, size: int):
    """From how many survivors descend from particles 0..i, for each i, to the sorted ancestor vector.

    Slot j belongs to the first particle whose cumulated count exceeds j: count, per slot, the particles that end
    there, and cumulate. O(n), no search.
    """
    ends = jnp.zeros(size + 1, jnp.int32).at[cumulated_counts].add(1)
    return jnp.clip(jnp.cumsum(ends)[:size], 0, size - 1)


def _counts(ancestors, size: int):
    return jnp.zeros(size, jnp.int32).at[ancestors].add(1)


def _cumulated_counts(ancestors, size: int):
    return jnp.cumsum(_counts(ancestors, size))


def _is_sorted(ancestors):
    return jnp.all(ancestors[1:] >= ancestors[:-1])


def _search(cumulated, total, u):
    """For each u in [0, 1), the first i with ``cumulated[i] > u total``: inverse-CDF draws.

    Chen and Asau's guide table narrows each search to the particles that end in u's n-th part of the unit interval,
    and bisection does the rest: O(n) work as long as no part holds many particles, O(n log n) at worst.
    """
    size = cumulated.shape[0]
    part = jnp.clip((cumulated * (size / total)).astype(jnp.int32), 0, size)
    ends = jnp.cumsum(
        jnp.zeros(size + 2, jnp.int32).at[part + 1].add(1)
    )  # particles that end before each part
    mine = jnp.clip((u * size).astype(jnp.int32), 0, size - 1)
    point = u * total
    # one particle to either side, for rounding in the choice of the part
    low = jnp.maximum(ends[mine] - 1, 0)
    high = jnp.minimum(ends[mine + 1] + 1, size - 1)

    def halve(bounds):
        low, high = bounds
        middle = (low + high) // 2
        beyond = cumulated[middle] > point
        searching = low < high
        return (
            jnp.where(searching & ~beyond, middle + 1, low),
            jnp.where(searching & beyond, middle, high),
        )

    low, _ = lax.while_loop(lambda bounds: jnp.any(bounds[0] < bounds[1]), halve, (low, high))
    # u total may round up to the total: then the last particle that has weight
    return jnp.minimum(low, jnp.argmax(cumulated >= total)).astype(jnp.int32)


def _ssp_pair(f, g):
    """Resolves one of two fractions f (first) and g: ``(p, one, left)``.

    If ``one`` is false their sum is below one: one of them gets it all, the first with probability p, and the
    other drops to zero. If true, one is raised to one, the first with probability p, and the other keeps the rest.
    """
    total = f + g
    one = total >= 1
    p_low = jnp.where(total > 0, f / jnp.where(total > 0, total, 1.0), 1.0)
    p_high = (1 - g) / jnp.where(one, jnp.maximum(2 - total, jnp.finfo(total.dtype).tiny), 1.0)
    return jnp.where(one, p_high, p_low), one, jnp.where(one, total - 1, total)


def _check_enumerable(count: int, d: Resampling) -> None:
    if count > 100_000:
        raise UnsupportedError(
            f"{type(d).__name__} resampling of {d.size} particles has {count} possible ancestor vectors: "
            "too many to enumerate; use systematic (at most n + 1) or fewer particles"
        )
