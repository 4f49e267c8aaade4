"""A program as a distribution: what ``marginal`` and ``normalize`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

from . import compat
from .choices import Address, nest, spell
from .condition import condition
from .effects import Site, emit
from .errors import AddressError, UnsupportedError, did_you_mean
from .interpreter import Handler, interpret
from .staging import SiteInfo, Staged, stage

Algorithm = Callable[..., Callable]


@dataclass(frozen=True, eq=False)
class Code:
    """The static part of a staged program: its jaxpr, without the arrays that it was staged with."""

    jaxpr: compat.Jaxpr
    num_consts: int
    staged: Staged

    def program(self, operands) -> Callable:
        """The program at these arrays, without arguments."""

        def run():
            closed = compat.ClosedJaxpr(self.jaxpr, list(operands[: self.num_consts]))
            return self.staged.value(compat.evaluate(closed, operands[self.num_consts :]))

        return run


class ProgramLaw(Distribution):
    """The law of one site of a program that was staged at its arguments.

    Unless its algorithm is exact its density is an estimate: ``log_prob`` draws, with ``sample``, what it needs for
    it. So a transformation that asks for the density gives a program again, which must be seeded.

    Attributes:
      operands: the arrays that the program was staged with; what it closes over is among them.
      code: the rest of it.
      keep, dtype: the address of the site, and the dtype of its value.
      count: how many values the site has, if that is known when the program is traced: 0, 1, ..., count - 1.
      algorithm: ``program -> program of a Population``.
      is_estimated: whether the algorithm draws anything; an unbiased estimate that does not is exact.
    """

    arg_constraints = {}
    pytree_data_fields = ("operands",)
    pytree_aux_fields = ("code", "keep", "dtype", "count", "algorithm", "is_estimated")

    def __init__(self, staged: Staged, keep: str, algorithm: Algorithm):
        info = kept_site(staged, keep)
        closed = staged.jaxpr
        self.operands = [jnp.asarray(x) for x in (*closed.consts, *staged.leaves)]
        self.code = Code(closed.jaxpr, len(closed.consts), staged)
        self.keep = info.address
        self.dtype = info.dtype
        self.count = _count(info)
        self.algorithm = algorithm
        super().__init__((), info.shape, validate_args=False)
        self.is_estimated = self._draws()

    @property
    def support(self):
        """Only the kind of value: its program says where the density is zero."""
        if jnp.issubdtype(self.dtype, jnp.floating):
            anything = constraints.real
        else:
            bounds = jnp.iinfo(self.dtype)
            anything = constraints.integer_interval(bounds.min, bounds.max)
        return constraints.independent(anything, len(self.event_shape))

    @property
    def has_enumerate_support(self) -> bool:
        """Whether the site has a fixed number of values, and an exact density."""
        return self.count is not None and not self.is_estimated

    def enumerate_support(self, expand=True):
        return jnp.arange(self.count, dtype=self.dtype)

    @property
    def program(self) -> Callable:
        return self.code.program(self.operands)

    def choices(self, value) -> dict:
        return nest({self.keep: value})

    def sample(self, key, sample_shape=()):
        keys = jax.random.split(key, sample_shape)
        draw = self.draw
        for _ in sample_shape:
            draw = jax.vmap(draw)
        return draw(keys if sample_shape else key)

    def log_prob(self, value, intermediates=None):
        estimate = self.estimate
        for _ in range(jnp.ndim(value) - len(self.event_shape)):
            estimate = jax.vmap(estimate)
        return estimate(value)

    def _draws(self) -> bool:
        def estimate(value):
            return self.algorithm(condition(self.program, self.choices(value)))()

        return bool(stage(estimate, jnp.zeros(self.event_shape, self.dtype)).of_kind("sample"))

    def draw(self, key):
        raise NotImplementedError

    def estimate(self, value):
        """The log of an unbiased estimate of the density at ``value``."""
        raise NotImplementedError


def kept_site(staged: Staged, keep: str) -> SiteInfo:
    """The ``sample`` site of that address."""
    address: Address = tuple(keep.split("/"))
    sites = {info.address: info for info in staged.of_kind("sample")}
    if address not in sites:
        known = [spell(known) for known in sites]
        raise AddressError(
            f"keep={keep!r} is no sample site of the program{did_you_mean(keep, known)}; it has "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    if address in staged.optional or sites[address].unbounded:
        raise UnsupportedError(
            f"{sites[address]} is not reached exactly once in every run, so its value alone is no distribution"
        )
    return sites[address]


def _count(info: SiteInfo) -> int | None:
    d = info.site.effect(info.operands).distribution
    if info.shape != ():
        return None
    if isinstance(d, dist.BernoulliProbs | dist.BernoulliLogits):
        return 2
    if isinstance(d, dist.CategoricalProbs | dist.CategoricalLogits):
        return (d.probs if isinstance(d, dist.CategoricalProbs) else d.logits).shape[-1]
    return None


def returning(program: Callable, address: Address) -> Callable:
    """The program that returns the value of one of its sites."""

    def kept():
        return interpret(stage(program), _Record(address), None)[2][address]

    return kept


class _Record(Handler):
    """Re-emits every site, and records the value of one."""

    def __init__(self, address: Address):
        self.address = address

    def site(self, kind, site: Site, operands, given, state):
        outs = emit(kind, site, operands)
        return outs, state, outs[0] if kind == "sample" and site.name == self.address else None


def log_mean(population):
    """The log of the mean weight of a population, or of a cloud, whether or not anyone in it has weight."""
    return jax.nn.logsumexp(population.log_weight) - jnp.log(population.log_weight.shape[0])
