"""until: a program as far as one of its suspension points."""

from __future__ import annotations

from collections.abc import Callable

from ...ppl.effects import Site, emit, only_where
from ...ppl.interpreter import Handler, interpret
from ...ppl.points import Position
from ...ppl.staging import stage


def until(program: Callable) -> Callable:
    """The program ``(point, *args) -> value`` that ends at suspension point number ``point``, 1 being the first.

    What comes after it is not reached: factors and observations do not weigh, and sites are like those of a branch that
    is not taken, :class:`ppl.Masked` and not present. Sites before the first point are always there, and so plain. The
    value is meaningless unless all of the program is before the point.

    Points are as :func:`smc` has them: after factors, at the end of a scan step or where the program goes on sampling.
    ``point`` may be traced.

    >>> import jax, numpyro.distributions as dist
    >>> from borelax import inference, ppl
    >>> def walk():
    ...     def step(x, _):
    ...         x = ppl.sample("x", dist.Normal(x, 1.0))
    ...         ppl.factor(2.0)
    ...         return x, None
    ...     return jax.lax.scan(step, 0.0, None, length=4)[0]
    >>> run = ppl.simulate(inference.until(walk))(jax.random.key(0), 3)
    >>> run.choices["x"].present.tolist(), float(run.log_weight)
    ([True, True, True, False], 6.0)
    """

    def run(point, *args, **kwargs):
        return interpret(stage(program, *args, **kwargs), _Until(point), Position())[0]

    return run


class _Until(Handler):
    """Re-emits every site, reached only if it comes before the point."""

    def __init__(self, point):
        self.point = point

    def site(self, kind, site: Site, operands, given, here: Position):
        count, after = here.at(kind).count, here.after(kind, site)
        is_first = isinstance(count, int) and count == 0
        if kind != "deterministic" and not is_first:
            site, operands = only_where(count < self.point, site, operands)
        return emit(kind, site, operands), after, None

    def divide(self, here: Position, draws, eqn):
        after, inside = here.divided(eqn)
        return after, [inside for _ in draws]
