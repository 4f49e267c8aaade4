"""The runs that a conjugate draw takes: without the site, for its observations given its value, and with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...ppl import Masked, compat
from ...ppl.choices import align
from ...ppl.effects import Effect, Site, emit
from ...ppl.interpreter import Handler
from .conjugate_pairs import Pair, log_density, plain
from .conjugate_use import Conjugacy


class Quiet(Handler):
    """Leaves out what is done for its effect alone, such as ``jax.debug.print``: this is no run of the program."""

    def watches(self, eqn: compat.JaxprEqn) -> bool:
        return bool(eqn.effects)

    def equation(self, eqn: compat.JaxprEqn, values: list, state):
        return super().equation(eqn, values, state) if eqn.outvars else ([], state)


class Wait(Quiet):
    """Re-emits all sites but the one that waits, and the observations of it; records what is drawn.

    Of the site that waits, the record is its mean, which stands for its value, and the parameters of its prior.
    """

    def __init__(self, conjugacy: Conjugacy):
        self.conjugacy = conjugacy

    def site(self, kind, site: Site, operands, given, state):
        if kind == "sample" and site.name == self.conjugacy.info.address:
            origin, *parameters = site.map(self._parameters, operands)
            return [origin], state, (origin, *parameters)
        if kind == "deterministic" or (kind == "observe" and site.name in self.conjugacy.pairs):
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), state, None
        outs = emit(kind, site, operands)
        return outs, state, site.masked(operands, outs[0]) if kind == "sample" else None

    def _parameters(self, effect: Effect) -> tuple:
        """The mean and the parameters, each like a value in shape and dtype."""
        d, dtype = effect.distribution, self.conjugacy.info.dtype
        parameters = self.conjugacy.prior.parameters(plain(d))
        return tuple(jnp.broadcast_to(x, d.shape()).astype(dtype) for x in (d.mean, *parameters))


class Replay(Handler):
    """Runs at given values, without draws and without weights."""

    def site(self, kind, site: Site, operands, given, state):
        if kind == "sample":
            return [given.value if isinstance(given, Masked) else given], state, None
        if kind == "factor":
            return [], state, None
        return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), state, None


class Finish(Replay):
    """Deterministic values are those of this run."""

    def site(self, kind, site: Site, operands, given, state):
        if kind == "deterministic":
            return emit(kind, site, operands), state, None
        return super().site(kind, site, operands, given, state)


class Terms(Quiet, Replay):
    """Looks at the prior of the site and at the observations of it, at the value of each."""

    def __init__(self, conjugacy: Conjugacy):
        self.conjugacy = conjugacy

    def site(self, kind, site: Site, operands, given, state):
        outs, state, _ = super().site(kind, site, operands, given, state)
        if kind == "sample" and site.name == self.conjugacy.info.address:
            return outs, *self.prior(site, operands, given, state)
        if kind == "observe" and site.name in self.conjugacy.pairs:
            return outs, *self.observation(site, operands, outs[0], state)
        return outs, state, None

    def prior(self, site: Site, operands, value, state):
        return state, None

    def observation(self, site: Site, operands, value, state):
        raise NotImplementedError


class Joint(Terms):
    """State: the log density of the site's value and of the observations given it."""

    def prior(self, site: Site, operands, value, total):
        density = site.sum(lambda effect, x: log_density(effect.distribution, x), operands, value)
        return total + density.astype(total.dtype), None

    def observation(self, site: Site, operands, value, total):
        return total + site.log_prob(operands, value).astype(total.dtype), None


class Parameters(Terms):
    """Records the parameters of observations and their statistics, for each element."""

    def observation(self, site: Site, operands, value, state):
        pair = self.conjugacy.pairs[site.name]
        return state, site.map(lambda effect: _parameter(effect, pair), operands)


class Residuals(Terms):
    """Records residuals, of the site's value and of observations."""

    def prior(self, site: Site, operands, value, state):
        return self._residual(site, operands, value, state)

    def observation(self, site: Site, operands, value, state):
        return self._residual(site, operands, value, state)

    def _residual(self, site: Site, operands, value, state):
        def residual(effect: Effect, x):
            d = plain(effect.distribution)
            return self.conjugacy.prior.pairs[type(d)].residual(d, x)

        return state, site.map(residual, operands, value)


def _parameter(effect: Effect, pair: Pair) -> tuple:
    """The parameter of an observation, and its statistics: none for a value outside the support."""
    d, value = plain(effect.distribution), jnp.asarray(effect.value)
    parameter = getattr(d, pair.parameter)
    elements = value.shape[: value.ndim - d.event_dim]
    shape = elements + parameter.shape[parameter.ndim - pair.rank :]
    inside = jnp.broadcast_to(d.support(value), elements)
    statistics = (jnp.broadcast_to(t, shape) for t in pair.statistics(d, value))
    counted = (jnp.where(align(inside, t), t, 0).astype(parameter.dtype) for t in statistics)
    return jnp.broadcast_to(parameter, shape), tuple(counted)
