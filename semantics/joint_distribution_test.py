"""Whether a kernel and the model it was made for agree: the joint distribution of parameters and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ..ppl import ChoiceError, Selection, log_density, regenerate, sample, scope
from ..ppl.choices import flatten, nest
from .budget import Budget
from .invariance import leaves_invariant
from .report import Report, asserting, name_of
from .target import Observed, Target, choices_of, seen, trace_at


def joint_distribution_test(
    program: Callable, observed: Observed, kernel_of: Callable, budget: Budget | None = None, steps: int = 2
) -> Callable:
    """``(*args) -> Report``: whether a kernel leaves the posterior of a program invariant, whatever the data.

    Parameters and data are drawn together by running the program. Then the kernel moves the parameters given the data,
    ``steps`` times, and between its steps the data are drawn anew given the parameters. Both keep the joint law, so
    what comes out has the law of what went in. Unlike the test as Geweke has it, which compares averages along one
    chain, this is exact: replications are independent, and are compared with their own beginnings.

    Exact if the program and the kernel are finite. Otherwise choices and their joint log density are compared by
    :func:`~borelax.semantics.same_law.same_law`. Errors add up from step to step, and so become easier to see.

    Args:
      program: any program without weights: what it observes it has to sample.
      observed: an address, several, or a selection.
      kernel_of: called with a :class:`~borelax.semantics.Target`, which is the program conditioned on the data, and
        returns a :class:`~borelax.inference.Kernel` for it, or any program ``(choices, *args) -> choices`` that moves
        the choices of the sites that are not observed. A function of a key is made one by
        :func:`~borelax.semantics.keyed`, and finds the data in ``target.data``.

    The data are redrawn by a Metropolis-Hastings step that proposes them from their own distributions; it always
    accepts if no other choice depends on them.

    Raises:
      AddressError, UnsupportedError: see :func:`~borelax.semantics.target.seen`.
      ChoiceError: what was moved are not the choices of the sites that are not observed.

    Source: Geweke, *Getting it right: joint distribution tests of posterior simulators*, JASA 99 (2004).

    >>> import numpyro.distributions as dist
    >>> from borelax import inference, ppl, semantics
    >>> def model():
    ...     x = ppl.sample("x", dist.Bernoulli(0.5))
    ...     ppl.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
    >>> semantics.joint_distribution_test(model, "y", lambda target: inference.gibbs(target, ["x"]))().holds
    True
    >>> ignores_data = lambda target: lambda choices: {"x": ppl.sample("x", dist.Bernoulli(0.5))}
    >>> semantics.joint_distribution_test(model, "y", ignores_data)().holds
    False
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is a whole number from 1 on, got {steps!r}")
    name = name_of(program)
    claim = f"the kernel leaves the joint distribution of {name} invariant"

    def checked(*args) -> Report:
        selection = seen(program, observed, args)

        def joint(*args):
            return _with_density(program, choices_of(program)(*args), *args)

        def alternate(state, *args):
            choices, _ = state
            with scope("first"):
                choices = _moved(program, selection, kernel_of, choices, *args)

            def again(choices, _):
                with scope("data"):
                    choices = _redrawn(program, selection, choices, *args)
                with scope("parameters"):
                    return _moved(program, selection, kernel_of, choices, *args), None

            choices, _ = lax.scan(again, choices, None, length=steps - 1)
            return _with_density(program, choices, *args)

        joint.__name__ = name
        report = leaves_invariant(alternate, joint, budget)(*args)
        return replace(report, claim=claim)

    return checked


assert_joint_distribution_test = asserting(joint_distribution_test)


def _with_density(program: Callable, choices: Mapping, *args):
    return choices, log_density(program)(choices, *args)


def _moved(program: Callable, selection: Selection, kernel_of: Callable, choices: Mapping, *args) -> dict:
    """The choices after a step of the kernel on those that are not observed."""
    target = Target(program, selection.of(choices))
    before = (~selection).of(choices)
    kernel = kernel_of(target)
    if hasattr(kernel, "program"):
        with scope("init"):
            state = kernel.init(trace_at(kernel.program, before, *args), *args)
        with scope("step"):
            after = kernel(state, *args).trace.choices
    else:
        after = kernel(before, *args)
    types = [
        jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x).name), side) for side in (before, after)
    ]
    if types[0] != types[1]:
        raise ChoiceError(
            f"the kernel was given choices of the sites that are not observed, {types[0]} (shape and dtype); it has to "
            f"return such choices, and returned {types[1]}"
        )
    return nest({**flatten(after), **flatten(target.data)})


def _redrawn(program: Callable, selection: Selection, choices: Mapping, *args) -> dict:
    """The choices after a Metropolis-Hastings step that draws the observed ones anew."""
    edit = regenerate(program, selection)(trace_at(program, choices, *args), *args)
    probability = jnp.exp(jnp.minimum(edit.log_weight, 0.0))
    accepted = sample("accept", dist.Bernoulli(probability)) == 1
    return jax.tree.map(lambda x, y: jnp.where(accepted, x, y), edit.trace.choices, choices)
