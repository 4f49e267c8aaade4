"""from_numpyro: an existing NumPyro model as a program.

NumPyro sends each of a model's statements as a message through a stack of handlers. Here the outermost handler turns
the message, as the model's own handlers and plates have left it, into effects. NumPyro itself never draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import RLock
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import lax
from numpyro import handlers
from numpyro.contrib.control_flow.cond import cond_wrapper
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import Distribution, ExpandedDistribution, MaskedDistribution, Unit
from numpyro.ops.pytree import PytreeTrace
from numpyro.primitives import _PYRO_STACK, Messenger

from . import compat, effects
from .choices import align
from .effects import deterministic, factor, observe, sample, scope, source_line
from .errors import ChoiceError, UnsupportedError
from .power import Power
from .without_replacement import WithoutReplacement


def from_numpyro(model: Callable) -> Callable:
    """The program that a NumPyro model denotes: its arguments, its return value and its joint density are the model's.

    A site's address is its name; ``/`` in a name, as ``numpyro.handlers.scope`` puts it, nests. Choices have the shapes
    of NumPyro's own values. The log density is that of ``numpyro.infer.util.log_density``, except that it is minus
    infinity outside the support of a site, where NumPyro's formulas go on, and for plates that subsample.

    What a model may use:

    - ``sample``, observed or not, with ``sample_shape``. Its ``rng_key`` and ``infer`` are instructions to NumPyro's
      own algorithms and mean nothing here: a site with ``infer={"enumerate": ...}`` is a site like any other.
    - ``plate`` and ``plate_stack``, nested and with ``dim``. The indices of a plate with ``subsample_size`` are a site
      with the plate's name: a uniform choice without replacement. So the log density has a term ``-log(n! / (n - k)!)``
      for k out of n, that NumPyro leaves out, and inference is about the indices as well. ``ppl.do`` fixes them.
    - ``subsample``, ``deterministic``, ``factor``, ``get_mask``.
    - ``handlers.scale`` and the scale of a subsampled plate. They raise a site's density to a power: an observation to
      that power; an unobserved site is drawn as ever, and a factor makes up for the rest of the power.
    - ``handlers.mask``, ``.mask`` of a distribution, on observations; masked values may be NaN.
    - ``handlers.scope``, ``condition``, ``do``, ``reparam``, ``lift``, ``infer_config``, and ``block`` of what is not
      drawn. Around ``scan`` and ``cond`` only ``scope``, ``reparam``, ``infer_config``, and ``scale`` and ``mask`` by a
      scalar; the others go inside the function that is scanned.
    - ``contrib.control_flow.scan`` and ``cond``. ``history`` is for NumPyro's enumeration, and means nothing here.

    What is refused, with a message:

    - ``param`` and ``module`` without a value: a program has no parameters of its own. Give them one with
      ``handlers.substitute(model, values)``, or a prior with ``handlers.lift``; or make them arguments of the model.
    - An unobserved site with a mask, which is also what ``obs_mask`` makes: NumPyro gives the masked elements no
      density at all, and so an infinite mass. ``ppl.partly`` observes a site in part.
    - A site given a value that is not an observation, by ``handlers.substitute`` or ``replay``.
    - A distribution without draws, like ``ImproperUniform``; ``mutable``; ``prng_key``, and what asks for it: ``block``
      of a site that is drawn, ``uncondition``.
    - Sites inside JAX's own ``jit``, ``vmap`` and ``scan``, whose caches do not know of NumPyro's handlers.

    Raises, when the program is traced:
      UnsupportedError: one of the refused constructs.
      ChoiceError: an observation whose shape does not broadcast to that of its distribution.

    >>> from borelax import ppl
    >>> import numpyro, numpyro.distributions as dist
    >>> def model(xs, ys=None):
    ...     slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("points", len(xs)):
    ...         return numpyro.sample("y", dist.Normal(slope * xs, 0.5), obs=ys)
    >>> program = ppl.from_numpyro(model)
    >>> xs = jnp.arange(3.0)
    >>> jax.tree.map(jnp.shape, ppl.simulate(program)(jax.random.key(0), xs).choices)
    {'slope': (), 'y': (3,)}
    >>> round(float(ppl.log_density(program)({"slope": 1.0}, xs, xs)), 4)
    -2.0963
    """
    if not callable(model):
        raise TypeError(
            f"from_numpyro takes a NumPyro model, which is a function, not {type(model).__name__}"
        )

    @wraps(model, updated=())
    def program(*args, **kwargs):
        with _STACK_LOCK, _Effects():
            return model(*args, **kwargs)

    return program


# NumPyro has one stack of handlers for all threads: models are traced one at a time.
_STACK_LOCK = RLock()

# Handlers that may act on each step of a scan: that means the same as acting on the whole of it.
_STEPWISE = (handlers.scope, handlers.reparam, handlers.infer_config)
_STEPWISE_BY_SCALAR = {handlers.scale: "scale", handlers.mask: "mask"}


class _Effects(Messenger):
    """Turns messages into effects. It goes around the model's own handlers, and no message passes it."""

    def __init__(self):
        super().__init__()
        self.trace = compat.trace_state()

    def process_message(self, msg: dict[str, Any]) -> None:
        rules = {
            "sample": self._sample,
            "plate": self._plate,
            "deterministic": self._deterministic,
            "param": self._param,
            "prng_key": self._prng_key,
            "control_flow": self._control_flow,
            "subsample": lambda msg: None,  # plates take their part of the value afterwards
            "inspect": lambda msg: None,  # get_mask: the mask handlers have answered
        }
        if msg["type"] not in rules:
            _refuse(f"the message {msg['type']!r} of NumPyro", "it has no meaning in a program; leave it out")
        rules[msg["type"]](msg)
        msg["stop"] = True

    def _sample(self, msg) -> None:
        self._check_trace(msg)
        if msg["is_observed"]:
            _observe(msg)
        elif msg["value"] is None:
            msg["value"] = _draw(msg)
        else:
            _refuse(
                f"site {msg['name']!r} has a value that is not an observation (handlers.substitute or replay)",
                "use handlers.condition, or ppl.condition or ppl.do of the program",
            )

    def _plate(self, msg) -> None:
        if msg["value"] is not None:
            return
        self._check_trace(msg)
        size, subsample_size = msg["args"]
        if subsample_size > size:
            _refuse(
                f"plate {msg['name']!r} has a subsample of {subsample_size} out of {size}", "choose fewer"
            )
        with _address(msg["name"]) as name:
            msg["value"] = sample(name, WithoutReplacement(size, subsample_size))

    def _deterministic(self, msg) -> None:
        self._check_trace(msg)
        with _address(msg["name"]) as name:
            deterministic(name, msg["value"])

    def _param(self, msg) -> None:
        if msg["value"] is None:
            name = msg["name"]
            _refuse(
                f"numpyro.param({name!r}): a program has no parameters of its own",
                f"give its value with numpyro.handlers.substitute(model, {{{name!r}: value}}) or its prior with "
                "numpyro.handlers.lift, or make it an argument of the model",
            )

    def _prng_key(self, msg) -> None:
        if msg["kwargs"]["rng_key"] is None:
            _refuse(
                "the model asks for a PRNG key (numpyro.prng_key, handlers.uncondition, or handlers.block around a "
                "site that is drawn)",
                "draw what is random with numpyro.sample, outside handlers.block",
            )

    def _control_flow(self, msg) -> None:
        self._check_trace(msg)
        self._check_handlers_around()
        if msg["fn"] is scan_wrapper:
            body, init, xs, length, reverse = msg["args"]
            carry, ys = lax.scan(self._inside(body), init, xs, length=length, reverse=reverse)
            msg["value"] = (length, None, carry), (PytreeTrace({}), ys)
        elif msg["fn"] is cond_wrapper:
            predicate, *branches, operand = msg["args"]
            msg["value"] = lax.cond(predicate, *map(self._inside, branches), operand), PytreeTrace({})
        else:
            _refuse("a control flow that is neither NumPyro's scan nor its cond", "use one of those")

    def _inside(self, body: Callable) -> Callable:
        """``body`` in a trace of its own. It is a new function each time, because JAX keeps what it has traced by
        function, and the effects of a NumPyro model depend on the handlers around it as well."""

        def inside(*args):
            around, self.trace = self.trace, compat.trace_state()
            try:
                return body(*args)
            finally:
                self.trace = around

        return inside

    def _check_trace(self, msg) -> None:
        if compat.trace_state() != self.trace:
            _refuse(
                f"{msg['type']} {msg.get('name', '')!r} lies inside a transformation of JAX (jit, vmap, scan, ...), "
                "whose cache does not know of NumPyro's handlers",
                "use numpyro.plate and numpyro.contrib.control_flow, and leave jit to the whole program",
            )

    def _check_handlers_around(self) -> None:
        for handler in _PYRO_STACK[_PYRO_STACK.index(self) + 1 :]:
            by = _STEPWISE_BY_SCALAR.get(type(handler))
            if type(handler) not in _STEPWISE and (by is None or jnp.shape(getattr(handler, by)) != ()):
                _refuse(
                    f"{type(handler).__name__}{' by an array' if by else ''} around NumPyro's scan or cond",
                    "put it inside the function that is scanned; for values, use ppl.condition or ppl.do",
                )


# ------------------------------------------------------------------------------ sites


def _draw(msg):
    """A site that is drawn, and the factor for a power of its density other than one."""
    d, mask = _unmasked(msg["fn"], msg["name"])
    if mask is not None:
        _refuse(
            f"site {msg['name']!r} is masked and not observed (handlers.mask, .mask of its distribution, or obs_mask): "
            "NumPyro gives the masked elements no density at all, and so an infinite mass",
            "mask observations only; for data with gaps leave out obs and obs_mask, and observe the site in part: "
            f"ppl.condition(program, {{{msg['name']!r}: ppl.partly(value, known)}})",
        )
    d = d.expand(msg["kwargs"]["sample_shape"] + d.batch_shape)
    with _address(msg["name"]) as name:
        try:
            value = sample(name, d)
        except NotImplementedError as error:
            raise _unsupported(
                f"site {msg['name']!r} has the distribution {_kind(d)}, which has no draws",
                "use one that can be drawn from, such as a wide but proper one",
            ) from error
        if (scale := _scale(msg, d)) is not None:
            inside = effects.log_prob(d, value) > -jnp.inf  # elsewhere the site itself has density zero
            rest = jnp.sum(Power(d, scale - 1).log_prob(value))
            factor(jnp.where(inside, rest, 0.0), name)
    return value


def _observe(msg) -> None:
    """An observation. NumPyro broadcasts values against distributions; here both are expanded first."""
    d, mask = _unmasked(msg["fn"], msg["name"])
    value = jnp.asarray(msg["value"])
    try:
        shape = jnp.broadcast_shapes(value.shape, d.shape())
    except ValueError:
        shape = None
    batch_dim = -1 if shape is None else len(shape) - d.event_dim
    if shape is None or shape[batch_dim:] != d.event_shape:
        raise ChoiceError(
            f"the observation of {msg['name']!r} ({source_line()}) has shape {value.shape}, which does not "
            f"broadcast to that of {_kind(d)}, batch {d.batch_shape} and event {d.event_shape}"
        )
    d, value = d.expand(shape[:batch_dim]), jnp.broadcast_to(value, shape)
    scale = _scale(msg, d)
    if mask is not None:
        mask = jnp.broadcast_to(mask, d.batch_shape)
        value = jnp.where(align(mask, value), value, _feasible(d, value))
        d = Power(d, jnp.where(mask, 1.0 if scale is None else scale, 0.0))
    elif scale is not None:
        d = Power(d, scale)
    with _address(msg["name"]) as name:
        if isinstance(_innermost(d), Unit):
            factor(jnp.sum(d.log_prob(value)), name)
        else:
            observe(name, d, value)


def _scale(msg, d: Distribution):
    """The power of the density that the message asks for, ``[*d.batch_shape]``; None for one."""
    scale = msg["scale"]
    if scale is None or (isinstance(scale, int | float) and scale == 1):
        return None
    if jnp.broadcast_shapes(jnp.shape(scale), d.batch_shape) != d.batch_shape:
        _refuse(
            f"the scale of {msg['name']!r} has shape {jnp.shape(scale)}, but its site has batch shape {d.batch_shape}",
            "expand the distribution, or use a scale that broadcasts to it",
        )
    return jnp.broadcast_to(jnp.asarray(scale, float), d.batch_shape)


def _unmasked(d: Distribution, name: str):
    """``d`` without its masks, and their conjunction ``[*d.batch_shape]`` (None if there are none)."""
    if isinstance(d, MaskedDistribution):
        base, inner = _unmasked(d.base_dist, name)
        mask = jnp.broadcast_to(d._mask, d.batch_shape)
        return base, mask if inner is None else mask & inner
    if isinstance(d, ExpandedDistribution) and _is_masked(d):
        base, mask = _unmasked(d.base_dist, name)
        return base.expand(d.batch_shape), jnp.broadcast_to(mask, d.batch_shape)
    if _is_masked(d):
        _refuse(
            f"site {name!r}: a mask lies inside {_kind(d)}",
            "mask the site as a whole, after to_event and the like",
        )
    return d, None


def _is_masked(d: Distribution) -> bool:
    is_mask = lambda x: isinstance(x, MaskedDistribution)  # noqa: E731
    return any(map(is_mask, jax.tree.leaves(d, is_leaf=is_mask)))


def _feasible(d: Distribution, value):
    """Values in the support of ``d``, to stand where masked ones are."""
    try:
        return d.support.feasible_like(value)
    except NotImplementedError:
        return value


def _innermost(d: Distribution) -> Distribution:
    if isinstance(d, Power):
        return _innermost(d.base)
    return _innermost(d.base_dist) if isinstance(d, ExpandedDistribution) else d


def _kind(d: Distribution) -> str:
    return type(_innermost(d)).__name__


# ------------------------------------------------------------------------------ names and refusals


@contextmanager
def _address(name: str) -> Iterator[str]:
    """Enters the scopes of a NumPyro name, and gives the name within them."""
    *scopes, last = name.split("/")
    with ExitStack() as stack:
        for prefix in scopes:
            stack.enter_context(scope(prefix))
        yield last


def _unsupported(what: str, instead: str) -> UnsupportedError:
    return UnsupportedError(f"{what}, at {source_line()}: {instead}")


def _refuse(what: str, instead: str) -> NoReturn:
    raise _unsupported(what, instead)
