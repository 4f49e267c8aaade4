"""Particle Gibbs: conditional SMC as a Markov kernel."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from ... import ppl
from ...ppl import Selection, Trace
from ...ppl.choices import nest
from ...ppl.density import score
from ...ppl.effects import Site, emit
from ...ppl.interpreter import Handler, interpret
from ...ppl.staging import stage
from ...ppl.weigh import log_ratio, weigh_site
from ..particles.conditional_smc import conditional_smc
from ..particles.pick import pick
from ..particles.resampling import Resampler, systematic
from .kernel import Kernel, State


def particle_gibbs(
    program: Callable,
    n: int,
    sites: Selection | None = None,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    check: bool = True,
    *,
    ancestor_sampling: bool = False,
) -> Kernel:
    """The kernel that runs conditional SMC with the present run as a particle, and picks one by weight.

    It leaves the normalised measure of ``program`` invariant, whatever ``n``, the resampler and the threshold. The
    longer the run, the more particles it takes to renew its beginning: after many resampling steps they all descend
    from the retained one. With ``ancestor_sampling`` it takes few, however long the run.

    Args:
      program: any program.
      n: the number of particles, the present run included; at least 2.
      sites: those that are renewed, given the others (``ppl.select("x")``); all if None.
      resampler, ess_threshold, check, ancestor_sampling: as ``conditional_smc`` has them.

    Raises:
      AddressError: the selection names an address that the program does not have.
      UnsupportedError: as ``conditional_smc`` does.

    Source: Andrieu, Doucet and Holenstein, *Particle Markov chain Monte Carlo methods*, JRSS B 72 (2010).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk(ys):
    ...     def step(x, y):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.observe("y", dist.Normal(x, 1.0), y)
    ...         return x, x
    ...     return jax.lax.scan(step, 0.0, ys)[1]
    >>> ys = jnp.array([0.5, 1.0, 1.5])
    >>> kernel = inference.particle_gibbs(walk, 10)
    >>> state = kernel.init(ppl.simulate(walk)(jax.random.key(0), ys), ys)
    >>> ppl.seed(kernel)(jax.random.key(1), state, ys).trace.value.shape
    (3,)
    """
    if not isinstance(n, int) or n < 2:
        raise ValueError(f"particle Gibbs with n={n!r} would stay where it is: it needs at least 2 particles")
    renewed = ppl.select(lambda address: True) if sites is None else sites

    def init(trace: Trace, *args) -> State:
        return State(trace)

    def step(state: State, *args) -> State:
        choices = state.trace.choices
        rest = ppl.condition(_traced(program), (~renewed).of(choices))
        again = conditional_smc(rest, n, resampler, ess_threshold, check, ancestor_sampling=ancestor_sampling)
        with ppl.scope("particle gibbs"):
            with ppl.scope("particles"):
                population = again(renewed.of(choices), *args)
            return State(pick(population), state.memory)

    return Kernel(program, init, step)


def _traced(program: Callable) -> Callable:
    """The program that returns its trace, and still carries its weights."""

    def traced(*args, **kwargs) -> Trace:
        staged = stage(program, *args, **kwargs)
        zero = jnp.zeros((), float)
        value, (log_density, log_weight), records = interpret(staged, _Tracing(), (zero, zero))
        records = staged.unmasked(records)
        computed = {info.address for info in staged.of_kind("deterministic")}
        choices = {address: x for address, x in records.items() if address not in computed}
        deterministic = {address: x for address, x in records.items() if address in computed}
        return Trace(value, nest(choices), log_density, log_weight, nest(deterministic))

    return traced


class _Tracing(Handler):
    """Re-emits every site. State: log density and log weight. Records the values of sample and deterministic sites."""

    def site(self, kind, site: Site, operands, given, state):
        outs = emit(kind, site, operands)
        if kind == "deterministic":
            return outs, state, site.masked(operands, site.value_of(outs))
        if kind == "sample":
            guided = site.effect(operands).proposal is not None
            increments = (
                score(site, operands, outs[0]),
                site.sum(log_ratio, operands, outs[0]) if guided else jnp.zeros(()),
            )
        else:
            increments = (weigh_site(kind, site, operands)[1],) * 2
        state = tuple(total + x.astype(total.dtype) for total, x in zip(state, increments))
        return outs, state, site.masked(operands, outs[0]) if kind == "sample" else None
