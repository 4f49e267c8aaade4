from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from borelax.inference.exact.element_slopes import element_slopes

INDEX = jnp.array([4, 0, 5, 2, 4, 9])  # of six: the last one is out of bounds
SCALE = np.array([0.3, -2.0, 1e-30, 7.0, 1e30, 1.0])


def function(z):
    """Many products, which are rounded; a branch that is not taken, and is no number; and a constant."""
    flat = z.ravel()[INDEX]
    for _ in range(20):
        flat = flat * 1.1
    nothing = jnp.zeros(6)
    return {"a": SCALE * flat + 1.0, "b": jnp.where(SCALE > 0, z.T.ravel(), flat / nothing)}, "aside"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_elements_are_found(dtype):
    slopes, elements, aside = jax.jit(lambda z: element_slopes(lambda z: (function(z)[0], None), z))(
        jnp.ones((2, 3), dtype)
    )
    assert aside is None
    assert elements["a"].tolist() == [4, 0, 5, 2, 4, 5]
    assert np.asarray(elements["b"])[[0, 2, 3, 4, 5]].tolist() == [0, 1, 4, 2, 5]
    np.testing.assert_allclose(
        np.asarray(slopes["a"], float), SCALE * 1.1**20, rtol=1e-5 if dtype == jnp.float32 else 0.2
    )
