"""A program whose data arrive bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ...ppl import ChoiceError, Masked, UnsupportedError
from ...ppl.choices import flatten, nest, spell
from ...ppl.effects import Effect, Site, emit, factor_at
from ...ppl.given import check_given, check_support
from ...ppl.interpreter import Handler, interpret
from ...ppl.partly import Partly, event_dim, known_log_prob
from ...ppl.staging import SiteInfo, Staged, stage
from ...ppl.weigh import weigh_site


@dataclass(frozen=True)
class Arriving:
    """A program, and choices of some of its sites that come to be observed along their first axis.

    What has not arrived yet does not weigh; where the program goes on with it, it goes on with what will be observed.

    Attributes:
      program: any program.
      data: nested choices like those of ``condition``, all with a first axis of one length: that of a scan or a vmap
        around a site, or of independent copies in its distribution.
    """

    program: Callable
    data: Mapping

    @property
    def length(self) -> int:
        """How many there are of the data.

        Raises:
          ChoiceError: there are none, or not equally many at all sites.
        """
        lengths = {spell(address): np.shape(x)[:1] for address, x in flatten(self.data).items()}
        if len(set(lengths.values())) != 1 or () in lengths.values() or (0,) in lengths.values():
            raise ChoiceError(
                "data arrive along their first axis, which is of one length, at least 1, at all sites; got "
                + (
                    ", ".join(f"{name!r} with {list(shape) or 'none'}" for name, shape in lengths.items())
                    or "no data"
                )
            )
        return next(iter(lengths.values()))[0]

    def target(self, count, *args):
        """The program in which the first ``count`` of the data are observed."""
        staged = stage(self.program, *args)
        return interpret(staged, _Observe(), None, self._given(staged, 0, count))[0]

    def log_weight(self, choices: Mapping, before, after, *args) -> jax.Array:
        """The log density of the data from number ``before`` up to ``after``, given the other choices and all earlier
        data."""
        staged = stage(self.program, *args)
        data = self._given(staged, before, after)
        given = check_given(staged, nest({**flatten(choices), **data}), complete=True, partial=True)
        return interpret(staged, _Arrived(), jnp.zeros((), float), given)[1]

    def _given(self, staged: Staged, before, after) -> dict:
        """The data, known from number ``before`` up to ``after``."""
        whole = check_given(staged, self.data, complete=False)
        number = np.arange(self.length)
        arrived = (number >= before) & (number < after)
        sites = {info.address: info for info in staged.of_kind("sample")}
        given = {}
        for address, x in whole.items():
            shape = _elements(sites[address], x)
            known = jnp.broadcast_to(arrived.reshape(-1, *(1,) * (len(shape) - 1)), shape)
            given[address] = Partly(x, known)
        return given


class _Observe(Handler):
    """Re-emits sites; of those with data, what has arrived of these as a factor."""

    def site(self, kind, site: Site, operands, given, state):
        if given is None:
            return emit(kind, site, operands), state, None
        check_support(site, operands, given.value)
        factor_at(site, _known(site, operands, given))
        return [given.value], state, None


class _Arrived(Handler):
    """State: the log density so far of what is known of the data."""

    def site(self, kind, site: Site, operands, given, log_weight):
        if kind == "deterministic":
            return jax.tree.leaves(site.map(lambda effect: effect.value, operands)), log_weight, None
        if kind != "sample":
            return weigh_site(kind, site, operands)[0], log_weight, None
        if isinstance(given, Partly):
            increment = _known(site, operands, given)
            return [given.value], log_weight + increment.astype(log_weight.dtype), None
        return [given.value if isinstance(given, Masked) else given], log_weight, None


def _known(site: Site, operands, given: Partly):
    def term(effect: Effect, value, known):
        total = known_log_prob(effect.distribution, value, known)
        return total if effect.present is None else jnp.where(effect.present, total, 0.0)

    return site.sum(term, operands, given.value, given.known)


def _elements(info: SiteInfo, x) -> tuple[int, ...]:
    """The shape of a site's elements, which can arrive one by one."""
    if isinstance(x, Masked):
        raise UnsupportedError(
            f"{info} is in some branches only, so that it may not be reached when its data arrive; draw it in every "
            "branch"
        )
    if info.is_estimated:
        raise UnsupportedError(
            f"the density of {info} is only an estimate, which would be another one each time it is weighed; give its "
            "program an exact algorithm, such as inference.enumerate"
        )
    shape = info.shape[: len(info.shape) - event_dim(info.site.effect(info.operands).distribution)]
    if not shape:
        raise UnsupportedError(
            f"{info} has one event of shape {info.shape}, which cannot arrive in part; draw its data one by one, in a "
            "scan or a vmap"
        )
    return shape
