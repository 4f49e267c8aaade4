"""Every kind of error that the language raises on purpose says which site, where it is, and what to do.

The lines that a message must name carry the comment ``# here``.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from borelax import inference, ppl

KEY = jax.random.key(0)
STANDARD = dist.Normal(0.0, 1.0)
CASES = []


def refused(error: type[ppl.BorelaxError], built_in: type[Exception], *says: str) -> Callable:
    """Registers a function that must raise ``error``, which is also ``built_in``, in a message with these words."""

    def register(run):
        CASES.append(pytest.param(run, error, built_in, says, id=run.__name__))
        return run

    return register


def places(function: Callable, mark: str = "# here") -> list[str]:
    """``test_errors.py:12`` for each line of a function that carries the mark."""
    lines, first = inspect.getsourcelines(function)
    return [f"test_errors.py:{first + i}" for i, line in enumerate(lines) if mark in line]


# ------------------------------------------------------------------------- addresses


@refused(
    ppl.AddressError, KeyError, "two sites have the address 'x'", "rename one, or put one under ppl.scope"
)
def duplicate_address():
    def program():
        ppl.sample("x", STANDARD)  # here
        ppl.sample("x", STANDARD)  # here

    ppl.simulate(program)(KEY)


@refused(ppl.AddressError, KeyError, "'x' is a site", "the scope of 'x/y'", "rename one of them")
def site_and_scope():
    def program():
        ppl.sample("x", STANDARD)  # here
        with ppl.scope("x"):
            ppl.sample("y", STANDARD)  # here

    ppl.simulate(program)(KEY)


@refused(ppl.AddressError, KeyError, "disagree on 'x'", "give the sites different names")
def branches_that_disagree():
    def program():
        real = lambda: ppl.sample("x", STANDARD)  # here # noqa: E731
        whole = lambda: 1.0 * ppl.sample("x", dist.Poisson(1.0))  # here # noqa: E731
        return lax.cond(ppl.sample("b", dist.Bernoulli(0.5)) == 1, real, whole)

    ppl.simulate(program)(KEY)


@refused(ppl.AddressError, KeyError, "no site 'slop'", "did you mean 'slope'?")
def unknown_address():
    def program():
        ppl.sample("slope", STANDARD)  # here

    ppl.log_density(program)({"slop": 1.0})


@refused(ppl.AddressError, KeyError, "no value given for 'block/x'", "every site needs one here")
def missing_address():
    def program():
        ppl.sample("slope", STANDARD)
        with ppl.scope("block"):
            ppl.sample("x", STANDARD)  # here

    ppl.log_density(program)({"slope": 1.0})


@refused(ppl.AddressError, KeyError, "'y'", "already observed")
def observed_address():
    def program():
        ppl.observe("y", STANDARD, 1.0)  # here

    ppl.condition(program, {"y": 2.0})()


# ------------------------------------------------------------------------- choices


@refused(
    ppl.ChoiceError, ValueError, "'x'", "has shape (3,) (a leading axis for each", "shape (2,) was given"
)
def wrong_shape():
    def program():
        jax.vmap(lambda m: ppl.sample("x", dist.Normal(m, 1.0)))(jnp.zeros(3))  # here

    ppl.log_density(program)({"x": jnp.zeros(2)})


@refused(ppl.ChoiceError, ValueError, "'n'", "has dtype int32", "dtype float32 was given")
def wrong_dtype():
    def program():
        ppl.sample("n", dist.Poisson(1.0))  # here

    ppl.log_density(program)({"n": jnp.array(1.0)})


@refused(ppl.ChoiceError, ValueError, "'x'", "outside the support of Exponential (positive)", "-1.0")
def outside_the_support():
    def program():
        ppl.sample("x", dist.Exponential(1.0))  # here

    ppl.log_density(program)({"x": -1.0})


@refused(ppl.ChoiceError, ValueError, "'x'", "in every branch: give its value, not a Masked one")
def masked_without_branches():
    def program():
        ppl.sample("x", STANDARD)  # here

    ppl.log_density(program)({"x": ppl.Masked(1.0, True)})


# ------------------------------------------------------------------------- calls that no site can have


@refused(
    ppl.SiteError, ValueError, "'y'", "has shape (2,), but Normal has shape ()", "use .expand or .to_event"
)
def observation_of_another_shape():
    ppl.log_density(lambda: ppl.observe("y", STANDARD, jnp.zeros(2)))({})  # here


@refused(ppl.SiteError, ValueError, "'likelihood'", "has shape (2,)", "sum over independent terms")
def factor_that_is_no_scalar():
    ppl.log_density(lambda: ppl.factor(jnp.zeros(2), "likelihood"))({})  # here


@refused(ppl.SiteError, ValueError, "got 'a/b'", "without '/'", "rename it")
def name_with_a_slash():
    ppl.simulate(lambda: ppl.sample("a/b", STANDARD))(KEY)  # here


@refused(ppl.SiteError, TypeError, "'x'", "got float", "write ppl.sample(name, dist.Normal(0.0, 1.0))")
def no_distribution():
    ppl.simulate(lambda: ppl.sample("x", 1.0))(KEY)  # here


@refused(ppl.SiteError, ValueError, "'x'", "the proposal must be over the same values")
def proposal_over_other_values():
    ppl.simulate(lambda: ppl.sample("x", STANDARD, proposal=dist.Poisson(1.0)))(KEY)  # here


# ------------------------------------------------------------------------- what cannot be done


@refused(ppl.UnseededError, RuntimeError, "'x'", "run it with ppl.seed(program)(key, ...)")
def effect_without_a_key():
    ppl.sample("x", STANDARD)  # here


@refused(ppl.UnseededError, RuntimeError, "'x'", "run it with ppl.seed(program)(key, ...)")
def effect_without_a_key_under_jit():
    jax.jit(lambda: ppl.sample("x", STANDARD))()  # here


@refused(
    ppl.UnseededError, RuntimeError, "'x'", "move it out of the function, or differentiate a function without"
)
def derivative_of_a_site():
    program = lambda m: ppl.sample("x", dist.Normal(m, 1.0))  # here # noqa: E731
    ppl.simulate(lambda: jax.grad(program)(0.0))(KEY)


@refused(ppl.UnsupportedError, TypeError, "'y'", "Seed ppl.weigh(program)", "inference.smc(program, n)")
def weights_without_an_inference():
    ppl.seed(lambda: ppl.observe("y", STANDARD, 1.0))(KEY)  # here


@refused(ppl.UnsupportedError, TypeError, "'x'", "inside a while_loop", "use lax.scan")
def trace_of_a_while_loop():
    def program():
        body = lambda c: c + ppl.sample("x", dist.Exponential(1.0))  # here # noqa: E731
        return lax.while_loop(lambda c: c < 1.0, body, 0.0)

    ppl.simulate(program)(KEY)


@refused(ppl.UnsupportedError, TypeError, "'x'", "inside 'custom_linear_solve'", "move it out of there")
def construct_that_is_not_walked():
    def program():
        operator = lambda r: ppl.sample("x", STANDARD) * r  # here # noqa: E731
        return lax.custom_linear_solve(operator, 1.0, lambda _, b: b)

    ppl.simulate(program)(KEY)


@refused(ppl.UnsupportedError, TypeError, "'x'", "missing from some branch", "draw it in every branch")
def dimensions_that_depend_on_a_branch():
    def program(b):
        return lax.cond(b, lambda: ppl.sample("x", STANDARD), lambda: 0.0)  # here

    ppl.unconstrain(program).log_density({"x": 0.0}, jnp.array(True))


@refused(ppl.UnsupportedError, TypeError, "'n'", "discrete")
def position_of_a_discrete_site():
    ppl.unconstrain(lambda: ppl.sample("n", dist.Poisson(1.0))).log_density({"n": 0.0})  # here


@refused(ppl.UnsupportedError, TypeError, "'y'", "write the likelihood that is meant out, with ppl.factor")
def law_whose_density_is_wrong():
    counts = dist.RightCensoredDistribution(dist.Poisson(1.0), 1)
    ppl.log_density(lambda: ppl.observe("y", counts, 2.0))({})  # here


# ------------------------------------------------------------------------- values that outlive their run


def kept_from(run: Callable) -> jax.Array:
    """What a run puts in a list that it is given."""
    kept = []
    ppl.simulate(lambda: run(kept))(KEY)
    return kept[0]


def draw(kept):
    x = ppl.sample("x", STANDARD)  # drawn
    kept.append(jnp.sin(2.0 * x))
    return x


DRAWN = "'x' ({})".format(*places(draw, "# drawn"))
LEAKED = (ppl.LeakError, TypeError, f"uses a value of site {DRAWN}", "Return it from there", "as an argument")


@refused(*LEAKED)
def value_of_an_earlier_run():
    x = kept_from(draw)
    ppl.simulate(lambda: ppl.sample("y", dist.Normal(x, 1.0)))(KEY)  # here


@refused(*LEAKED)
def value_of_an_earlier_run_under_jit():
    x = kept_from(draw)
    program = ppl.simulate(lambda: lax.scan(lambda c, _: (c * x, ppl.sample("y", STANDARD)), 1.0, length=2))
    jax.jit(program)(KEY)  # here


@refused(*LEAKED)
def value_of_an_earlier_run_that_is_only_returned():
    x = kept_from(draw)
    ppl.simulate(lambda: (x, ppl.sample("y", STANDARD)))(KEY)  # here


@refused(*LEAKED)
def value_of_an_earlier_run_as_an_argument():
    x = kept_from(draw)
    ppl.simulate(lambda x: ppl.sample("y", dist.Normal(x, 1.0)))(KEY, x)  # here


@refused(*LEAKED)
def value_of_an_earlier_run_as_a_choice():
    x = kept_from(draw)
    ppl.log_density(lambda: ppl.sample("y", STANDARD))({"y": x})  # here


@refused(*LEAKED)
def value_that_leaves_its_scan():
    def program():
        kept = []
        lax.scan(lambda c, _: (c, draw(kept)), None, length=2)
        return kept[0] + 1.0

    ppl.simulate(program)(KEY)  # here


@refused(*LEAKED)
def value_that_leaves_its_branch():
    def program():
        kept = []
        lax.cond(ppl.sample("b", dist.Bernoulli(0.5)) == 1, lambda: draw(kept), lambda: 0.0)
        return kept[0] + 1.0

    inference.importance(program, 2)()  # here


@refused(ppl.LeakError, TypeError, "a value outside the run", "Return it from there")
def value_that_leaves_its_vmap():
    """JAX does not say which value it is, so the message has the line where it is used."""

    def program():
        kept = []
        jax.vmap(lambda _: draw(kept))(jnp.zeros(2))
        return kept[0] + 1.0  # here

    ppl.simulate(program)(KEY)


# ------------------------------------------------------------------------- the checks


@pytest.mark.parametrize(("run", "error", "built_in", "says"), CASES)
def test_what_an_error_says(run, error, built_in, says):
    with pytest.raises(error) as caught:
        run()
    assert isinstance(caught.value, ppl.BorelaxError) and isinstance(caught.value, built_in)
    text = str(caught.value)
    assert places(run), "a case marks the lines that its message names"
    for place in places(run):
        assert re.search(rf"{re.escape(place)}\b", text), f"no {place} in: {text}"
    for words in says:
        assert words in text, f"no {words!r} in: {text}"


def test_every_error_of_the_language_is_met():
    errors = {x for x in vars(ppl).values() if inspect.isclass(x) and issubclass(x, ppl.BorelaxError)}
    assert {case.values[1] for case in CASES} == errors - {ppl.BorelaxError}


def test_a_program_that_samples_when_it_is_imported(tmp_path):
    """The message has the line of the module, not of whoever imports it."""
    path = tmp_path / "eager_model.py"
    path.write_text(
        "import numpyro.distributions as dist\n\n"
        "from borelax import ppl\n\n"
        "slope = ppl.sample('slope', dist.Normal(0.0, 1.0))\n"
    )
    spec = importlib.util.spec_from_file_location("eager_model", path)
    with pytest.raises(ppl.UnseededError, match=r"'slope' \(eager_model\.py:5\).*not sample at import time"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_values_that_live_on_may_be_closed_over():
    """An argument of a function around; a value of a program around, in a scan, a vmap, a branch or a derivative."""
    run = jax.jit(lambda m: ppl.seed(lambda: ppl.sample("x", dist.Delta(m)))(KEY))
    assert float(run(2.5)) == 2.5

    def twice(name, x):
        return inference.importance(lambda: ppl.sample(name, dist.Delta(x)), 2)().value.sum()

    def program():
        x = ppl.sample("x", dist.Delta(0.5))
        scanned = lax.scan(lambda c, m: (c, twice("a", x) + twice("b", m) + twice("c", c)), x, jnp.ones(2))[1]
        mapped = jax.vmap(lambda m: twice("d", x + m))(jnp.ones(2))
        branch = lax.cond(x > 0, lambda: twice("e", x), lambda: 0.0)
        slope = jax.grad(lambda m: ppl.log_density(lambda: ppl.factor(m * x))({}))(1.0)
        return jnp.array([*scanned, *mapped, branch, slope])

    np.testing.assert_array_equal(ppl.seed(program)(KEY), [4.0, 4.0, 3.0, 3.0, 1.0, 0.5])


def test_a_leaked_value_of_no_site_is_left_to_jax():
    """Its message has the function that the value is from."""
    kept = []
    jax.jit(lambda m: kept.append(m))(1.0)
    with pytest.raises(
        jax.errors.UnexpectedTracerError, match=r"<lambda> at .*test_errors\.py:\d+ traced for jit"
    ):
        ppl.simulate(lambda: ppl.sample("x", dist.Normal(kept[0], 1.0)))(KEY)


# ------------------------------------------------------------------------- what the checks cost

XS = jnp.linspace(0.0, 1.0, 5)
CHOICES = {"slope": jnp.array(0.5), "line": {"y": jnp.ones(5)}, "walk": jnp.zeros(3)}


def checked(xs):
    slope = ppl.sample("slope", STANDARD)
    with ppl.scope("line"):
        jax.vmap(lambda x: ppl.sample("y", dist.Normal(slope * x, 0.5)))(xs)
    lax.scan(lambda c, _: (ppl.sample("walk", dist.Normal(c, 1.0)), None), 0.0, length=3)


def normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - jnp.log(jnp.sqrt(2 * jnp.pi) * scale)


def by_hand(choices, xs):
    slope, y = choices["slope"], choices["line"]["y"]
    total = normal(slope, 0.0, 1.0) + normal(y, slope * xs, 0.5).sum()
    step = lambda c, x: ((c[0] + normal(x, c[1], 1.0), x), None)  # noqa: E731
    return lax.scan(step, (total, 0.0), choices["walk"])[0][0]


def operations(density) -> Counter:
    """What XLA runs, by operation."""
    text = jax.jit(density).lower(CHOICES, XS).compile().as_text()
    return Counter(re.findall(r"^ +(?:ROOT )?%?\S+ = \S+ ([a-z-]+)\(", text, re.MULTILINE))


def test_checks_leave_no_operation_behind():
    def checked_when_run(choices, xs):
        return jnp.where(jnp.all(jnp.isfinite(choices["walk"])), by_hand(choices, xs), -jnp.inf)

    assert operations(ppl.log_density(checked)) <= operations(by_hand)
    assert not operations(checked_when_run) <= operations(by_hand)
    np.testing.assert_allclose(ppl.log_density(checked)(CHOICES, XS), by_hand(CHOICES, XS), rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"slop": jnp.array(0.5)},
        {"walk": jnp.zeros(4)},
        {"walk": jnp.zeros(3, complex)},
        {"line": {"y": jnp.ones(5), "z": jnp.ones(5)}},
    ],
    ids=["address", "shape", "dtype", "scoped address"],
)
def test_choices_are_checked_without_a_run(change):
    with pytest.raises((ppl.AddressError, ppl.ChoiceError), match=next(iter(change))):
        jax.eval_shape(ppl.log_density(checked), CHOICES | change, XS)
