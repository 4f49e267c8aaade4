"""mem: stochastic memoisation. A random function, whose value at one argument is drawn once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from .effects import sample, scope, source_line
from .errors import SiteError, UnsupportedError
from .random_key import RandomKey
from .seed import seed


def mem(name: str, program: Callable, domain: int | tuple[int, ...] | None = None) -> Callable:
    """``program`` as one random function: called twice with the same arguments it gives the same value.

    Over a finite domain all values are drawn here, once, and a call looks one up. It is a ``vmap`` under
    ``scope(name)``, so every transformation works: the sites of ``program`` get a leading axis for each argument.

    Without a domain the values are drawn when they are asked for, and none is stored: ``name`` is a site that draws a
    PRNG key, and a call runs ``program`` with a key derived from that one and from the bits of the arguments. So the
    same arguments give the same value in different places, in loops and under ``vmap``, and different arguments
    give independent values (two keys agree by chance with probability 2^-64). The function counts as drawn where
    ``mem`` is called: particles that descend from one by resampling share it. Such a program can only be run
    (``seed``, ``weigh``, ``inference.importance``, ``inference.smc``); what needs its density refuses it.

    Args:
      name: the scope of the values' sites; without a domain, the site of the key.
      program: over a finite domain, a program of one index for each of its sizes; else a program of any pytrees of
        integers, floats and booleans (which are equal if they have the same structure, shapes, dtypes and elements).
      domain: n for the arguments 0, ..., n - 1; a tuple of sizes for several arguments; None for any arguments.

    Returns:
      A function, and a pytree: it can be carried through loops, returned from programs and called there.

    Raises:
      SiteError: a size that is not a positive integer; and when the function is called, something else than one integer
        for each size, or an index outside the domain. An index that the program computes is not known then: outside
        the domain it gives NaN for floats, and else the least integer (the greatest if unsigned) or True.
      UnsupportedError, when the function is called: without a domain, ``program`` carries factors or observations, or
        an argument is something else than above.

    Source: ``mem`` of Goodman, Mansinghka, Roy, Bonawitz and Tenenbaum, *Church: a language for generative models*,
    UAI 2008.

    >>> from borelax import ppl
    >>> import numpyro.distributions as dist
    >>> def match(winner, loser):
    ...     strength = ppl.mem("strength", lambda player: ppl.sample("x", dist.Normal(0.0, 1.0)), 4)
    ...     return strength(winner) - strength(loser)
    >>> trace = ppl.simulate(match)(jax.random.key(0), jnp.array(2), jnp.array(2))
    >>> float(trace.value), trace.choices["strength"]["x"].shape
    (0.0, (4,))
    """
    if domain is None:
        program = program if isinstance(program, Partial) else Partial(program)
        return Memoised(program, sample(name, RandomKey()))
    sizes = domain if isinstance(domain, tuple) else (domain,)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise SiteError(
            f"mem({name!r}, ...) at {source_line()}: a domain has a positive integer size for each argument, "
            f"got {domain!r}"
        )
    with scope(name):
        return Table(name, sizes, _values(program, sizes))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Table:
    """A random function on ``{0, ..., n - 1}``, or a product of such sets: what :func:`mem` gives for a finite domain.

    Attributes:
      name: the name it was given.
      sizes: of its domain, one for each argument.
      values: a pytree, its leaves with leading axes ``sizes``.
    """

    name: str = field(metadata={"static": True})
    sizes: tuple[int, ...] = field(metadata={"static": True})
    values: Any

    def __call__(self, *index):
        index = [i if isinstance(i, jax.Array) else np.asarray(i) for i in index]
        integers = [i.shape == () and jnp.issubdtype(i.dtype, jnp.integer) for i in index]
        if len(index) != len(self.sizes) or not all(integers):
            given = ", ".join(f"{i.dtype}{list(i.shape)}" for i in index)
            raise SiteError(
                f"{self.name!r} is a function of {len(self.sizes)} integer scalars, but was called with ({given}) at "
                f"{source_line()}; for its values at many indices use jax.vmap"
            )
        for i, size in zip(index, self.sizes):
            if not isinstance(i, jax.core.Tracer) and not 0 <= int(i) < size:
                raise SiteError(
                    f"{self.name!r} has the domain 0, ..., {size - 1}, but was called with {int(i)} at {source_line()}"
                )
        # JAX would count a negative index from the end; it is outside the domain like one that is too large.
        index = tuple(jnp.where(i < 0, size, i.astype(int)) for i, size in zip(index, self.sizes))
        return jax.tree.map(lambda x: jnp.asarray(x).at[index].get(mode="fill"), self.values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Memoised:
    """A random function of anything: what :func:`mem` gives without a domain.

    Attributes:
      program: what draws a value.
      key: the PRNG key that all its values are derived from.
    """

    program: Partial
    key: jax.Array

    def __call__(self, *args):
        args = jax.tree.map(jnp.asarray, args)
        return seed(self.program)(_derive(self.key, args), *args)


def _values(program: Callable, sizes: tuple[int, ...]):
    """The program's values at every index: each leaf with leading axes ``sizes``."""
    for axis in reversed(range(len(sizes))):
        in_axes = [None] * len(sizes)
        in_axes[axis] = 0
        program = jax.vmap(program, in_axes=in_axes)
    return program(*(jnp.arange(size) for size in sizes))


def _derive(key, args):
    """A key for the arguments: every word of what they are and of what is in them, folded into ``key`` in turn."""
    leaves, tree = jax.tree.flatten(args)
    kind = f"{tree} {[(str(x.dtype), x.shape) for x in leaves]}"
    digest = np.frombuffer(hashlib.blake2b(kind.encode(), digest_size=16).digest(), "<u4")
    words = jnp.concatenate([jnp.asarray(digest), *map(_words, leaves)])
    return lax.scan(lambda key, word: (jax.random.fold_in(key, word), None), key, words)[0]


def _words(x) -> jax.Array:
    """The bits of an array as ``uint32[...]``; those of equal elements are equal."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = jnp.where(x == 0, 0, jnp.where(jnp.isnan(x), jnp.nan, x))  # there are two zeros, and many NaN
    elif x.dtype == bool:
        x = x.astype(jnp.uint8)
    elif not jnp.issubdtype(x.dtype, jnp.integer):
        raise UnsupportedError(
            f"a memoised function takes integers, floats and booleans, got an array of dtype {x.dtype}"
        )
    bits = lax.bitcast_convert_type(x, f"uint{min(8 * x.dtype.itemsize, 32)}")
    return bits.astype(jnp.uint32).ravel()
