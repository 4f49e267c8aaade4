"""Tuning parameters that are given, rather than learnt: whether they are such, and how they fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_positive(what: str, number: Any) -> None:
    """
    Raises:
      ValueError: it is given, but is no positive number.
    """
    if number is not None and not (np.ndim(number) == 0 and number > 0):
        raise ValueError(f"a {what} is a positive number, not {number!r}")


def check_target_acceptance(target: Any) -> None:
    """
    Raises:
      ValueError: it is not between 0 and 1.
    """
    if not 0 < target < 1:
        raise ValueError(f"a target acceptance is between 0 and 1, not {target!r}")


def check_inverse_mass(inverse_mass: Any) -> None:
    """
    Raises:
      ValueError: it is given, but is no covariance matrix and no diagonal of one.
    """
    if inverse_mass is None:
        return
    shape = np.shape(inverse_mass)
    if len(shape) not in (1, 2) or shape[0] != shape[-1]:
        raise ValueError(
            f"an inverse mass matrix is [n], if it is diagonal, or [n, n]; got the shape {shape}"
        )
    if isinstance(inverse_mass, jax.core.Tracer):
        return
    values = np.asarray(inverse_mass, float)
    if len(shape) == 2:
        values = np.linalg.eigvalsh(values) if np.allclose(values, values.T) else np.array([np.nan])
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(
            f"an inverse mass matrix is symmetric and positive, a covariance; got {inverse_mass}"
        )


def check_diagonal(inverse_mass: Any, name: str) -> None:
    """
    Raises:
      ValueError: it is given, but is no diagonal of a covariance matrix.
    """
    if np.ndim(inverse_mass) == 2:
        raise ValueError(f"the inverse mass matrix of {name} is diagonal: [n]")
    check_inverse_mass(inverse_mass)


def inverse_mass_for(n: int, inverse_mass: Any) -> jax.Array:
    """That of a position of ``n`` coordinates.

    Raises:
      ValueError: it is one of another number of coordinates.
    """
    if np.shape(inverse_mass) not in ((n,), (n, n)):
        raise ValueError(
            f"the sites that are moved have {n} coordinates in all, and the inverse mass matrix has the shape "
            f"{np.shape(inverse_mass)}; it is [{n}] or [{n}, {n}], with the coordinates in alphabetical "
            "order of their addresses"
        )
    return jnp.asarray(inverse_mass, float)
