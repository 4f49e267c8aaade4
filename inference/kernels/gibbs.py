"""Gibbs sampling of sites with finite support."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from ... import ppl
from ...ppl import AddressError, Masked, Selection, Trace, UnsupportedError
from ...ppl.choices import Address, flatten, nest, spell
from ...ppl.describe import effect_of
from ...ppl.effects import Effect, Site
from ...ppl.errors import did_you_mean
from ...ppl.laws import without_event
from ...ppl.staging import Staged, stage
from ..exact.enumerate import enumerate as enumerate_runs
from ..particles.pick import pick_index
from ..unguided import unguided
from .kernel import Kernel, State
from .look import look
from .sweep import sweep


def gibbs(
    program: Callable, sites: Sequence[str | tuple[str, ...]] | Selection, most: int = 100_000
) -> Kernel:
    """The kernel that draws sites from their exact conditional distributions given all the rest, block by block.

    A site that stands alone is drawn one element at a time (an element for each scan and vmap around it, and for each
    independent copy in its distribution): given the other elements, all values of one are weighed, which takes a
    density of the program for each. The sites of a tuple are drawn jointly, with all their elements: all combinations
    are weighed in one enumeration, which goes into branches, so that sites that only some branches have are drawn with
    the site that chooses the branch. ``("z",)`` draws all elements of z jointly.

    Where every value has density zero (or none that is a number), a block stays as it is.

    Args:
      program: any program.
      sites: the blocks, in order: addresses and tuples of addresses; or a selection, of which each site is a block.
      most: the most combinations of a joint block.

    Raises, when the program is traced:
      AddressError: an address that the program does not have.
      UnsupportedError: a site has infinite support, or the values of its support depend on what is being computed; a
        joint block has too many combinations.

    Source: Geman and Geman, *Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images*, IEEE
    PAMI 6 (1984).

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def model():
    ...     z = ppl.sample("z", dist.Bernoulli(0.5))
    ...     ppl.factor(jnp.where(z == 1, 0.0, -jnp.inf))
    >>> kernel = inference.gibbs(model, ["z"])
    >>> state = kernel.init(ppl.simulate(model)(jax.random.key(0)))
    >>> int(ppl.seed(kernel)(jax.random.key(1), state).trace.choices["z"])
    1
    """
    blocks = sites if isinstance(sites, Selection) else _checked(sites)

    def init(trace: Trace, *args) -> State:
        return State(trace)

    def step(state: State, *args) -> State:
        staged = stage(program, *args)
        trace = state.trace
        with ppl.scope("gibbs"):
            for i, block in enumerate(_blocks(blocks, staged)):
                with ppl.scope(str(i)):
                    if block.jointly:
                        trace = _draw_jointly(program, block, most, trace, *args)
                    else:
                        trace = _draw_elements(program, staged, block.addresses[0], trace, *args)
        return replace(state, trace=trace)

    return Kernel(program, init, step)


# ------------------------------------------------------------------------- one element at a time


def _draw_elements(program: Callable, staged: Staged, address: Address, trace: Trace, *args) -> Trace:
    """Draws each element of a site given the others."""

    def support(choices):
        """The values that each element can have, ``[*elements, K, *event]``, and what :func:`_outcomes` has besides."""
        record = look(
            staged, choices, {address}, lambda site, operands: site.map(partial(_outcomes, site), operands)
        )
        return record[address].value if isinstance(record[address], Masked) else record[address]

    shape = jax.eval_shape(support, trace.choices)[1].shape[:-1]

    def draw(i, element, log_density, choices):
        outcomes, log_share = (x.reshape(-1, *x.shape[len(shape) :])[i] for x in support(choices))
        index, possible = pick_index("outcome", jax.vmap(log_density)(outcomes) + log_share)
        return jnp.where(possible, outcomes[index], element)

    return sweep(program, address, shape, draw)(trace, *args)


def _outcomes(site: Site, effect: Effect):
    """The values of one element, ``[*batch, K, *event]``, and for each the log of its share in the probability of its
    value, zero unless values repeat."""
    d = without_event(effect.distribution)
    try:
        values = d.enumerate_support(expand=True)
    except (TypeError, NotImplementedError) as error:  # TypeError: JAX wants to know an array's values
        raise UnsupportedError(
            f"the values that {site} can have are not known when the program is traced, or not the same for all its "
            "elements; use a Categorical over as many values as there can be"
        ) from error
    log_prob = d.log_prob(values)
    log_mass = d.enumerate_log_probs() if hasattr(d, "enumerate_log_probs") else log_prob
    log_share = jnp.where(log_prob == -jnp.inf, 0.0, log_mass - log_prob)
    batch = len(d.batch_shape)
    return jnp.moveaxis(values, 0, batch), jnp.moveaxis(log_share, 0, batch)


# ------------------------------------------------------------------------- jointly


def _draw_jointly(program: Callable, block: _Block, most: int, trace: Trace, *args) -> Trace:
    """Draws some sites given the others, by an enumeration of what they can be together."""
    rest = {address: x for address, x in flatten(trace.choices).items() if address not in block.addresses}
    conditioned = ppl.condition(unguided(program), nest(rest))

    def weighed(*args):
        run = ppl.trace(conditioned)(*args)
        ppl.factor(run.log_weight)
        return run.choices

    population = enumerate_runs(weighed, most)(*args)
    index, possible = pick_index("outcome", population.log_weight)
    drawn = jax.tree.map(lambda x: x[index], population.value)
    with ppl.scope("program"):
        new = ppl.update(program, drawn)(trace, *args).trace
    return jax.tree.map(lambda x, y: jnp.where(possible, x, y), new, trace)


# ------------------------------------------------------------------------- blocks


@dataclass(frozen=True)
class _Block:
    addresses: tuple[Address, ...]
    jointly: bool


def _checked(sites: Sequence[str | tuple[str, ...]]) -> list[_Block]:
    is_name = lambda x: isinstance(x, str)  # noqa: E731
    is_block = lambda x: is_name(x) or (isinstance(x, tuple) and all(map(is_name, x)))  # noqa: E731
    if is_name(sites) or not sites or not all(map(is_block, sites)):
        raise TypeError(
            f"gibbs takes a list of blocks, each an address or a tuple of addresses, or a selection; got {sites!r}"
        )
    return [_Block(tuple(map(_address, (x,) if is_name(x) else x)), jointly=not is_name(x)) for x in sites]


def _address(name: str) -> Address:
    return tuple(name.split("/"))


def _blocks(sites: list[_Block] | Selection, staged: Staged) -> list[_Block]:
    """The blocks of a program, all of whose sites have finite support."""
    infos = staged.of_kind("sample")
    known = list(dict.fromkeys(info.address for info in infos))
    if isinstance(sites, Selection):
        chosen = sites.among(known)
        blocks = [_Block((address,), jointly=False) for address in known if address in chosen]
    else:
        blocks = sites
    moved = {address for block in blocks for address in block.addresses}
    for address in moved.difference(known):
        spelled = list(map(spell, known))
        raise AddressError(
            f"the program has no site {spell(address)!r}{did_you_mean(spell(address), spelled)}; it has "
            f"{', '.join(map(repr, spelled)) or 'none'}"
        )
    for info in infos:
        d = without_event(effect_of(info).distribution)
        if info.address in moved and not getattr(d, "has_enumerate_support", False):
            raise UnsupportedError(
                f"{info} has a {type(d).__name__}, whose support is not finite, so that its values cannot all be "
                "weighed; move it with another kernel, such as inference.mh"
            )
    return blocks
