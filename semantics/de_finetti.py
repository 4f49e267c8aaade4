"""De Finetti's theorem as a check: whether bits are flips of one coin, of a probability that is itself random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import comb

import jax
import numpy as np

from ..ppl import UnsupportedError
from .measure import Measure
from .random_functions import exchangeable
from .report import Counterexample, Report, name_of
from .verdict import decide, exact_over

_NONE = 1e-10  # a weight that is not worth a value


@dataclass(frozen=True, repr=False)
class Mixture(Report):
    """The report of :func:`de_finetti`.

    Attributes:
      mixing: the measure of the probability of a one, if there is such; the error is that of its mixture. Else None.
    """

    mixing: Measure | None = None


def de_finetti(program: Callable) -> Callable:
    """``(*args) -> Mixture``: whether the n bits that a program returns are a mixture of independent identical ones.

    That is, whether there is a measure on [0, 1] such that they are n flips of a coin, of a probability p that has
    this measure: just if they are the first n of an infinite exchangeable sequence, which are all mixtures (de
    Finetti). Finitely many bits can be exchangeable and no mixture, such as draws without replacement.

    They are one if and only if they are exchangeable, and ``c_k = P(the first k are one)``, for k up to n, are the
    moments of a measure on [0, 1]: if two matrices made of them have no negative eigenvalue (Hausdorff). If one has,
    the counterexample is a polynomial that is nowhere negative for p in [0, 1], with the mean that it would have to
    have. Only these moments are known of the measure, and many may have them; ``mixing`` is one of about n/2 values.

    A program with weights counts in proportion.

    Raises:
      UnsupportedError: the program is not finite, or does not return a vector of bits; or it is too near to the edge
        between a mixture and none to tell.

    Source: Diaconis and Freedman, *Finite exchangeable sequences*, Annals of Probability 8 (1980); for the matrices and
    the values, Krein and Nudelman, *The Markov moment problem and extremal problems* (1977).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from borelax import ppl, semantics
    >>> def flips():
    ...     p = jnp.array([0.25, 0.75])[ppl.sample("coin", dist.Bernoulli(0.5))]
    ...     return ppl.sample("flips", dist.Bernoulli(p).expand([3]).to_event(1))
    >>> semantics.de_finetti(flips)().mixing
    Measure on 2 values, total mass 1
      0.5  0.25
      0.5  0.75
    >>> def urn():  # two balls of each colour
    ...     first = ppl.sample("first", dist.Bernoulli(0.5))
    ...     return jnp.stack([first, ppl.sample("second", dist.Bernoulli((2 - first) / 3))])
    >>> semantics.de_finetti(urn)().counterexample.where
    'the mean of (0.4242 - 0.9056 p)^2'
    """
    claim = f"what {name_of(program)} returns is a mixture of independent identical bits"

    def checked(*args) -> Mixture:
        def exact(measure: Measure, tolerance: float) -> Mixture:
            bits, law = _bits(measure), measure.normalise()
            return _decided(claim, name_of(program), args, bits, law.weights, tolerance)

        def refuse():
            raise UnsupportedError(
                f"{name_of(program)} is not finite, or has too many runs: whether its bits are a mixture is decided by "
                "their exact law; semantics.exchangeable can test whether they are exchangeable"
            )

        order = exchangeable(program)(*args)
        if order.holds:
            return decide([program], args, exact, refuse)
        return Mixture(
            claim, False, order.error, order.unit, order.how, 0.0, order.counterexample, order.details
        )

    return checked


def _decided(claim: str, program: str, args: tuple, bits: np.ndarray, weights: np.ndarray, tolerance: float):
    """The report on exchangeable bits ``[N, n]`` with their probabilities."""
    n = bits.shape[1]
    counts = np.bincount(bits.sum(1), weights, n + 1)
    moments = _moments(counts)
    how = f"{exact_over(len(bits), tolerance)}, from the moments up to {n}"
    value, polynomial = min(map(_least, _matrices(moments)), key=lambda least: least[0])
    if value < -10 * tolerance:
        unit = "expectation below zero of what is not negative"
        counterexample = Counterexample(program, args, f"the mean of {polynomial}", "at least 0", value)
        return Mixture(claim, False, -value, unit, how, 0.0, counterexample)
    mixing = min((_mixing(moments, counts, rank) for rank in _RANKS), key=partial(_distance, counts))
    error = _distance(counts, mixing)
    if error > 100 * tolerance:
        raise UnsupportedError(
            f"the moments of what {program} returns are too near to the edge between a mixture and none to tell: the "
            f"least eigenvalue is {value:.2g}, and the best mixture found is {error:.2g} away"
        )
    return Mixture(claim, True, error, "total variation distance", how, 1.0, mixing=Measure(*mixing))


# ------------------------------------------------------------------------- moments


def _bits(law: Measure) -> np.ndarray:
    leaves = jax.tree.leaves(law.stack)
    if (
        len(leaves) != 1
        or leaves[0].ndim != 2
        or leaves[0].shape[1] < 1
        or not np.isin(leaves[0], (0, 1)).all()
    ):
        raise UnsupportedError(
            "de_finetti is for a program that returns a vector of bits, 0 or 1; of other values, look at whether "
            f"each is in some set; got {', '.join(f'{x.dtype}{list(x.shape[1:])}' for x in leaves)}"
        )
    return leaves[0].astype(int)


def _moments(counts: np.ndarray) -> np.ndarray:
    """``c_0, ..., c_n`` from the probabilities of 0, ..., n ones: of k given places, all are ones."""
    n = len(counts) - 1
    return np.array([sum(counts[j] * comb(j, k) for j in range(n + 1)) / comb(n, k) for k in range(n + 1)])


def _matrices(c: np.ndarray):
    """``E[g(p) p^(i+j)]`` for the two g that decide about n moments, and their names."""
    n = len(c) - 1
    if n % 2:
        return (_hankel(c[1:]), "p"), (_hankel(c[:-1] - c[1:]), "(1 - p)")
    return (_hankel(c), ""), (_hankel(c[1:-1] - c[2:]), "p (1 - p)")


def _hankel(c: np.ndarray) -> np.ndarray:
    size = (len(c) + 1) // 2
    return np.array([[c[i + j] for j in range(size)] for i in range(size)])


def _least(named) -> tuple[float, str]:
    """The least eigenvalue of a matrix, and the polynomial of which it is the expectation."""
    matrix, factor = named
    values, vectors = np.linalg.eigh(matrix)
    v = vectors[:, 0] * (1 if vectors[0, 0] >= 0 else -1)
    powers = ["", " p", *(f" p^{k}" for k in range(2, len(v)))]
    terms = [f"{abs(x):.4g}{power}" for x, power in zip(v, powers)]
    signs = ["" if v[0] >= 0 else "-", *(" + " if x >= 0 else " - " for x in v[1:])]
    square = f"({''.join(sign + term for sign, term in zip(signs, terms))})^2"
    return float(values[0]), f"{factor} {square}".strip()


# ------------------------------------------------------------------------- a mixture

_RANKS = (1e-13, 1e-11, 1e-9, 1e-7, 1e-5)  # of an eigenvalue, relative: what is smaller counts as zero


def _mixing(c: np.ndarray, counts: np.ndarray, rank: float) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights with the moments ``c_0, ..., c_n``: those of Gauss, or those of Radau for even n, one of which
    is at 0."""
    even = len(c) % 2 == 1
    values = _gauss(c[1:] if even else c, rank)
    values = np.round(np.clip(np.append(values, 0.0) if even else values, 0.0, 1.0), 12)
    values = np.unique(values)
    weights = np.linalg.lstsq(_binomial(len(c) - 1, values), counts, rcond=None)[0]
    kept = weights > _NONE
    return values[kept], weights[kept]


def _gauss(c: np.ndarray, rank: float) -> np.ndarray:
    """The values of the measure with moments c that has fewest: the eigenvalues of p acting on polynomials."""
    squares, shifted = _hankel(c[:-1]), _hankel(c[1:])
    size, basis = np.linalg.eigh(squares)
    here = size > rank * max(size[-1], 1e-300)
    basis = basis[:, here] / np.sqrt(size[here])
    return np.linalg.eigvalsh(basis.T @ shifted @ basis)


def _binomial(n: int, p: np.ndarray) -> np.ndarray:
    """The probability of k ones in n flips, ``[n + 1, len(p)]``."""
    return np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]).reshape(n + 1, len(p))


def _distance(counts: np.ndarray, mixing: tuple[np.ndarray, np.ndarray]) -> float:
    values, weights = mixing
    return float(np.abs(_binomial(len(counts) - 1, values) @ weights - counts).sum() / 2)
