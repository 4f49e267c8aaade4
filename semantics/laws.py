"""The laws that a representation of measures keeps, as exact checks and as a class of tests to inherit."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Categorical, Distribution

from .measure import Measure
from .report import Report
from .representations import Representation
from .verdict import exactly


def _law(check: Callable) -> Callable[[Representation], Report]:
    """A law. Its computations are made in float64, as they are enumerated."""

    @wraps(check)
    def checked(r: Representation) -> Report:
        with jax.enable_x64(True):
            return check(r)

    return checked


@_law
def unit_is_one_value(r: Representation) -> Report:
    """``unit(x)`` means the value x, with weight 1."""
    return _compared(r, "unit(x) is the point mass at x", Measure([2], [1.0]), _meant(r, r.unit(2)))


@_law
def sample_is_its_distribution(r: Representation) -> Report:
    """``sample(name, d)`` means d."""
    return _compared(r, "sample(name, d) is d", Measure([0, 1], _ROWS[0]), _meant(r, r.sample("x", _row(0))))


@_law
def left_unit(r: Representation) -> Report:
    """``bind(unit(x), f) = f(x)``."""
    f = _kernel(r, "y")
    return _equal(r, "bind(unit(x), f) = f(x)", f(jnp.array(1)), r.bind(r.unit(jnp.array(1)), f))


@_law
def right_unit(r: Representation) -> Report:
    """``bind(m, unit) = m``."""
    m = _draw(r, "x")
    return _equal(r, "bind(m, unit) = m", m, r.bind(m, r.unit))


@_law
def associativity(r: Representation) -> Report:
    """``bind(bind(m, f), g) = bind(m, x -> bind(f(x), g))``."""
    m, f, g = _draw(r, "x"), _kernel(r, "y"), _kernel(r, "z")
    return _equal(
        r,
        "bind(bind(m, f), g) = bind(m, x -> bind(f(x), g))",
        r.bind(m, lambda x: r.bind(f(x), g)),
        r.bind(r.bind(m, f), g),
    )


@_law
def commutativity(r: Representation) -> Report:
    """Two statements that do not use each other can change places (Fubini)."""
    m, n = _draw(r, "x"), _kernel(r, "y")(jnp.array(1))
    return _equal(
        r,
        "x <- m, y <- n, (x, y) is y <- n, x <- m, (x, y)",
        r.bind(m, lambda x: r.bind(n, lambda y: r.unit((x, y)))),
        r.bind(n, lambda y: r.bind(m, lambda x: r.unit((x, y)))),
    )


@_law
def naturality(r: Representation) -> Report:
    """``meaning(bind(m, f))`` is ``meaning(m).bind(x -> meaning(f(x)))``, whose bind is the sum over values."""
    m, f = _draw(r, "x"), _kernel(r, "y")
    expected = _meant(r, m).bind(lambda x: _meant(r, f(jnp.asarray(x))))
    return _compared(r, "bind means the bind of measures", expected, _meant(r, r.bind(m, f)))


@_law
def score_is_weight(r: Representation) -> Report:
    """``score(w)`` means ``()``, with weight ``exp(w)``."""
    expected = Measure([()], [np.exp(0.75)])
    return _compared(r, "score(w) is the weight exp(w)", expected, _meant(r, r.score(0.75)))


@_law
def scores_add(r: Representation) -> Report:
    """``score(a)``, then ``score(b)``, is ``score(a + b)``; and ``score(0)`` is ``unit(())``."""
    both = r.bind(r.score(0.5), lambda _: r.bind(r.score(-1.25), lambda _: r.score(0.0)))
    return _equal(r, "score(a) and score(b) are score(a + b)", r.score(-0.75), both)


@_law
def importance(r: Representation) -> Report:
    """A draw from q that is scored by ``log d - log q`` is a draw from d."""
    d, q = jnp.asarray(_ROWS[0]), jnp.asarray(_ROWS[1])
    weighed = r.bind(
        r.sample("x", _row(1)), lambda x: r.bind(r.score(jnp.log(d[x] / q[x])), lambda _: r.unit(x))
    )
    return _equal(r, "a draw from q scored by d / q is a draw from d", r.sample("x", _row(0)), weighed)


LAWS: tuple[Callable[[Representation], Report], ...] = (
    unit_is_one_value,
    sample_is_its_distribution,
    left_unit,
    right_unit,
    associativity,
    commutativity,
    naturality,
)
LAWS_OF_SCORES: tuple[Callable[[Representation], Report], ...] = (score_is_weight, scores_add, importance)


def laws_of(r: Representation) -> tuple[Callable[[Representation], Report], ...]:
    """The laws that apply to a representation: without weights, those of scores do not."""
    return LAWS + LAWS_OF_SCORES if r.scores else LAWS


class RepresentationLaws:
    """The tests that a representation has to pass. To test one of your own:

        class TestMine(RepresentationLaws):
            representation = Mine()

    Laws hold up to meaning. They are checked by enumeration, on computations written with the representation's own
    ``unit``, ``bind``, ``sample`` and ``score``: a failure names the law, and a value with its two weights.

    >>> from borelax import semantics
    >>> class TestWeighted(RepresentationLaws):
    ...     representation = semantics.Weighted()
    >>> TestWeighted().test_the_units_of_bind()
    """

    representation: Representation

    def test_the_statements(self):
        self._check(unit_is_one_value, sample_is_its_distribution)

    def test_the_units_of_bind(self):
        self._check(left_unit, right_unit)

    def test_associativity(self):
        self._check(associativity)

    def test_commutativity(self):
        self._check(commutativity)

    def test_naturality(self):
        self._check(naturality)

    def test_the_laws_of_scores(self):
        if self.representation.scores:
            self._check(*LAWS_OF_SCORES)

    def _check(self, *laws: Callable[[Representation], Report]) -> None:
        for law in laws:
            law(self.representation).assert_holds()


# ------------------------------------------------------------------------- helpers

_ROWS = np.array([[0.75, 0.25], [0.125, 0.875]])


def _row(i) -> Distribution:
    return Categorical(jnp.asarray(_ROWS)[i])


def _draw(r: Representation, name: str):
    """A bit whose weight depends on it if there are weights."""
    return _scored(r, r.sample(name, _row(0)), lambda x: 0.5 * x)


def _kernel(r: Representation, name: str) -> Callable:
    """From a bit to another, whose law and weight depend on it."""
    return lambda x: _scored(r, r.sample(name, _row(x)), lambda y: 0.5 * y - 0.25 * x)


def _scored(r: Representation, computation, log_weight: Callable):
    if not r.scores:
        return computation
    return r.bind(computation, lambda x: r.bind(r.score(log_weight(x)), lambda _: r.unit(x)))


def _meant(r: Representation, computation) -> Measure:
    return r.meaning(computation)()


def _equal(r: Representation, law: str, expected, found) -> Report:
    return _compared(r, law, _meant(r, expected), _meant(r, found))


def _compared(r: Representation, law: str, expected: Measure, found: Measure) -> Report:
    return exactly(f"{law}, for {r}", str(r), (), expected, found)
