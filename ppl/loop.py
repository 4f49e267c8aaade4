"""loop: a bounded loop that may stop early, with a density."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def loop(cond: Callable, body: Callable, init, max_steps: int):
    """Runs ``carry = body(carry)`` while ``cond(carry)``, at most ``max_steps`` times; returns the carry.

    The bounded form of ``lax.while_loop``. Its number of steps may be random, and since it has a bound, its sites
    have a place in a trace: they get a leading axis ``max_steps`` and are :class:`Masked`, present in the steps that
    were taken. So it can be traced, conditioned, enumerated and differentiated, where a ``while_loop`` with sites
    can only be run. Under ``vmap`` the body runs as often as the member that goes on longest needs.

    A loop that stops at the bound returns the carry as it is then: ``cond`` of it is still true.

    Args:
      cond: ``carry -> bool`` scalar.
      body: ``carry -> carry``, of the same shapes and dtypes; it may have sites, as may ``cond``.
      init: a pytree of arrays.
      max_steps: the bound (static).

    Raises:
      ValueError: ``max_steps`` is negative.

    >>> from borelax import ppl
    >>> import jax, numpyro.distributions as dist
    >>> def failures():
    ...     def trial(carry):
    ...         count, _ = carry
    ...         success = ppl.sample("success", dist.Bernoulli(0.5))
    ...         return count + 1 - success, success == 1
    ...     return ppl.loop(lambda carry: ~carry[1], trial, (0, jnp.array(False)), max_steps=8)[0]
    >>> choices = {"success": ppl.Masked(jnp.array([0, 0, 1, 0, 0, 0, 0, 0]), jnp.arange(8) < 3)}
    >>> float(jnp.exp(ppl.log_density(failures)(choices)))
    0.125
    """
    if not isinstance(max_steps, int) or max_steps < 0:
        raise ValueError(f"max_steps must be an integer of at least 0, got {max_steps!r}")

    def one(carry):
        going = jnp.asarray(cond(carry))
        if going.shape != () or going.dtype != bool:
            raise TypeError(f"cond must return a scalar bool, got {going.dtype}{list(going.shape)}")
        return going, if_anyone(going, body, _same, carry)

    def stopped(carry):
        return jnp.array(False), carry

    def step(state, _):
        going, carry = state
        return if_anyone(going, one, stopped, carry), None

    carry = jax.tree.map(jnp.asarray, init)
    (_, carry), _ = lax.scan(step, (jnp.array(True), carry), None, length=max_steps)
    return carry


def anyone(flag):
    """Whether ``flag`` (a bool scalar) holds for any member of the vmaps and populations around: one answer for all.

    For skipping work that no member needs. What a program computes must not depend on it.
    """
    return anyone_p.bind(jnp.asarray(flag))


def if_anyone(flag, fun: Callable, otherwise: Callable, x):
    """``lax.cond``, but where ``vmap`` would run both branches, only ``otherwise`` if that is all that is needed."""
    return lax.cond(anyone(flag), lambda x: lax.cond(flag, fun, otherwise, x), otherwise, x)


def _same(carry):
    return carry


def _batch(operands, dims):
    (flag,), (dim,) = operands, dims
    return anyone_p.bind(jnp.any(flag, axis=dim)), None


anyone_p = Primitive("anyone")
anyone_p.def_impl(lambda flag: flag)
anyone_p.def_abstract_eval(lambda flag: flag)
mlir.register_lowering(anyone_p, mlir.lower_fun(lambda flag: flag, multiple_results=False))
batching.primitive_batchers[anyone_p] = _batch
