"""What each transformation makes of each JAX construct: it works, or it is refused with a message. Nothing else.

"Works" means that the transformed program agrees, run for run, with all runs of the same program written in plain
Python (``plain_runs.py``): the same values at the same choices, the same densities and weights, the same
probabilities. The factors of the programs are multiples of 1/8, so that log weights agree exactly.

A column is an entry of ``COLUMNS``: a function that raises unless its transformation works on a row, or, where what it
runs had better be compiled together with that of other columns, a class like ``Seed``.

``python tests/coverage_table.py`` writes docs/coverage.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import cached_property, partial
from itertools import product
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from coverage_programs import ROWS, Row, flip, scaled, spared, wait
from plain_runs import Run, all_runs
from scipy.stats import binom
from source_tree import ROOT
from thresholds import FALSE_ALARM_RATE

from borelax import inference, ppl, semantics

DRAWS = 512
ROUNDING = 32 * float(np.finfo(np.float32).eps)  # relative, of a sum of fewer than 32 terms of one sign


class Truth:
    """All runs of a row's plain program."""

    def __init__(self, row: Row):
        self.row, self.runs = row, all_runs(row.plain)
        self.by_value = {as_key(run.value): run for run in self.runs}
        assert len(self.by_value) == len(self.runs), "a program of this table must return all that it draws"

    @cached_property
    def types(self) -> dict[str, ppl.SiteType]:
        """The ``sample`` sites, in program order."""
        found = flat(ppl.trace_type(weighted(self.row))(*self.row.args))
        return {site: t for site, t in found.items() if t.kind == "sample"}

    @cached_property
    def is_bounded(self) -> bool:
        """Whether each site has a number of values that is known before anything runs."""
        try:
            return bool(self.types)
        except ppl.UnsupportedError:  # in a while_loop
            return False

    def find(self, values) -> list[Run]:
        """The run behind each row of a batch of values."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(values)]
        return [self.by_value[as_key([leaf[i] for leaf in leaves])] for i in range(len(leaves[0]))]

    def assert_drawn_from_the_prior(self, runs: list[Run]) -> None:
        """Each run occurs as often as its probability says."""
        for run in self.runs:
            assert_count(sum(other is run for other in runs), len(runs), run.prior, len(self.runs))


def assert_count(count: int, draws: int, probability: float, comparisons: int) -> None:
    """An exact binomial test of how often something of known probability has happened, one test among some."""
    tail = min(binom.cdf(count, draws, probability), binom.sf(count - 1, draws, probability))
    assert tail > FALSE_ALARM_RATE / (2 * comparisons), (count, draws, probability)


def as_key(value) -> tuple[float, ...]:
    """A value as a flat tuple of numbers."""
    return tuple(float(x) for leaf in jax.tree.leaves(value) for x in np.ravel(leaf))


def weighted(row: Row) -> Callable:
    return partial(row.program, flip, ppl.factor)


def unweighted(row: Row) -> Callable:
    return partial(row.program, flip, lambda log_weight: None)


def close(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=ROUNDING, atol=ROUNDING)


# ------------------------------------------------------------------ choices, as runs have them


def flat(tree: dict, prefix: str = "") -> dict:
    """Nested dicts keyed by address to a dict keyed by ``scope/site``."""
    found = {}
    for name, x in tree.items():
        found |= flat(x, f"{prefix}{name}/") if isinstance(x, dict) else {prefix + name: x}
    return found


def nested(flat_choices: dict) -> dict:
    tree: dict = {}
    for address, x in flat_choices.items():
        *scopes, name = address.split("/")
        node = tree
        for scope in scopes:
            node = node.setdefault(scope, {})
        node[name] = x
    return tree


def elements(address: str, shape) -> list[tuple[tuple[int, ...], str]]:
    """The indices of a site's values and the names that the plain program has for them: ``y[0,1]``."""
    return [(i, address + (f"[{','.join(map(str, i))}]" if i else "")) for i in np.ndindex(shape)]


def choices_of(runs: list[Run], types: dict) -> dict:
    """The runs' choices in the form that the library has for them, stacked."""
    choices = {}
    for address, t in types.items():
        value, present = np.zeros((len(runs), *t.shape), t.dtype), np.zeros((len(runs), *t.shape), bool)
        for i, run in enumerate(runs):
            for index, name in elements(address, t.shape):
                value[(i, *index)], present[(i, *index)] = run.choices.get(name, 0), name in run.choices
        value, present = jnp.asarray(value), jnp.asarray(present)
        choices[address] = ppl.Masked(value, present) if t.optional else value
    return nested(choices)


def assert_same_choices(actual: dict, runs: list[Run], types: dict) -> None:
    actual, expected = flat(actual), flat(choices_of(runs, types))
    assert set(actual) == set(expected)
    for address, x in actual.items():
        y = expected[address]
        if types[address].optional:
            np.testing.assert_array_equal(x.present, y.present)
            x, y = np.where(x.present, x.value, 0), y.value
        np.testing.assert_array_equal(x, y)


def at_site(by_name: dict, address: str) -> list:
    """What a run has for one site."""
    return [by_name[name] for name in by_name if name in names_of(by_name, address)]


def names_of(by_name: dict, address: str) -> set[str]:
    """The names of a run's values for one site."""
    return {name for name in by_name if address_of(name) == address}


def address_of(name: str) -> str:
    """The site that a value of a run is of."""
    return name.partition("[")[0]


def named(choices: dict, i: int) -> dict[str, float]:
    """The i-th of stacked choices as a run has it: what is present, by name."""
    found = {}
    for address, x in flat(choices).items():
        value, present = (
            (x.value, x.present) if isinstance(x, ppl.Masked) else (x, np.ones(np.shape(x), bool))
        )
        for index, name in elements(address, np.shape(value)[1:]):
            if present[(i, *index)]:
                found[name] = float(value[(i, *index)])
    return found


# ------------------------------------------------------------------ the transformations that run on keys
#
# Each is a function of keys, so that those of one row can be compiled together, and a check of what it returns.


class OnKeys(Protocol):
    def run(self, row: Row, truth: Truth) -> Callable[[jax.Array], Any]: ...

    def check(self, row: Row, truth: Truth, result) -> None: ...


class Seed:
    def run(self, row: Row, truth: Truth):
        return jax.vmap(lambda key: ppl.seed(unweighted(row))(key, *row.args))

    def check(self, row: Row, truth: Truth, values) -> None:
        truth.assert_drawn_from_the_prior(truth.find(values))


class Weigh:
    def run(self, row: Row, truth: Truth):
        return jax.vmap(lambda key: ppl.seed(ppl.weigh(weighted(row)))(key, *row.args))

    def check(self, row: Row, truth: Truth, result) -> None:
        values, log_weight = result
        runs = truth.find(values)
        np.testing.assert_array_equal(log_weight, [run.log_weight for run in runs])
        truth.assert_drawn_from_the_prior(runs)


class Trace:
    def run(self, row: Row, truth: Truth):
        return jax.vmap(lambda key: ppl.simulate(weighted(row))(key, *row.args))

    def check(self, row: Row, truth: Truth, trace) -> None:
        runs = truth.find(trace.value)
        assert_same_choices(trace.choices, runs, truth.types)
        np.testing.assert_array_equal(trace.log_weight, [run.log_weight for run in runs])
        close(trace.log_density, [run.log_density for run in runs])
        truth.assert_drawn_from_the_prior(runs)


class LogDensity:
    """At the choices of every run."""

    def run(self, row: Row, truth: Truth):
        choices = choices_of(truth.runs, truth.types)
        density = ppl.log_density(weighted(row))
        return lambda keys: jax.vmap(lambda choices: density(choices, *row.args))(choices)

    def check(self, row: Row, truth: Truth, log_density) -> None:
        close(log_density, [run.log_density for run in truth.runs])


class Condition:
    """On the first site, and on all sites, as they are in every run."""

    def run(self, row: Row, truth: Truth):
        types = truth.types
        some = choices_of(truth.runs, {first(types): types[first(types)]})
        every = choices_of(truth.runs, types)

        def conditioned(key, choices):
            return ppl.simulate(ppl.condition(weighted(row), choices))(key, *row.args)

        return lambda keys: [
            jax.vmap(conditioned)(keys[: len(truth.runs)], choices) for choices in (some, every)
        ]

    def check(self, row: Row, truth: Truth, traces) -> None:
        some, every = traces
        runs, site = check_fixed(row, truth, some)
        close(some.log_weight, [run.log_weight + sum(at_site(run.log_prob, site)) for run in runs])
        assert every.choices == {} and truth.find(every.value) == truth.runs
        close(every.log_weight, [run.log_density for run in truth.runs])


class Do:
    """At the first site, as it is in every run."""

    def run(self, row: Row, truth: Truth):
        types = truth.types
        some = choices_of(truth.runs, {first(types): types[first(types)]})
        some = jax.tree.map(plain_value, some, is_leaf=lambda x: isinstance(x, ppl.Masked))
        done = lambda key, choices: ppl.simulate(ppl.do(weighted(row), choices))(key, *row.args)  # noqa: E731
        return lambda keys: jax.vmap(done)(keys[: len(truth.runs)], some)

    def check(self, row: Row, truth: Truth, trace) -> None:
        runs, _ = check_fixed(row, truth, trace)
        np.testing.assert_array_equal(trace.log_weight, [run.log_weight for run in runs])


def plain_value(choice):
    return choice.value if isinstance(choice, ppl.Masked) else choice


def first(types: dict) -> str:
    return next(iter(types))


def check_fixed(row: Row, truth: Truth, trace) -> tuple[list[Run], str]:
    """The runs that traces with a fixed first site are, and that site."""
    types = truth.types
    site = first(types)
    runs = truth.find(trace.value)
    assert_same_choices(trace.choices, runs, {address: t for address, t in types.items() if address != site})
    if not types[site].optional:
        assert [at_site(run.choices, site) for run in runs] == [
            at_site(run.choices, site) for run in truth.runs
        ]
    return runs, site


class Update:
    """Every run changed to the first site of another, at the same arguments."""

    def run(self, row: Row, truth: Truth):
        types = truth.types
        new = choices_of(truth.runs[::-1], {first(types): types[first(types)]})

        def update(key, trace, choices):
            return ppl.seed(ppl.update(weighted(row), choices))(key, trace, *row.args)

        return lambda keys: jax.vmap(update)(keys[: len(truth.runs)], traces_of(truth.runs, types), new)

    def check(self, row: Row, truth: Truth, edit) -> None:
        types = truth.types
        runs = check_edited(row, truth.runs, truth, edit)
        for i, (old, run, wanted) in enumerate(zip(truth.runs, runs, truth.runs[::-1], strict=True)):
            given = names_of(wanted.choices, first(types))
            assert all(run.choices[name] == wanted.choices[name] for name in given & run.choices.keys())
            kept = old.choices.keys() & run.choices.keys() - given
            assert all(run.choices[name] == old.choices[name] for name in kept)
            drawn = run.choices.keys() - given - old.choices.keys()
            proposed = sum(run.log_prob[name] for name in drawn)
            close(edit.log_weight[i], run.log_density - old.log_density - proposed)
            lost = {name: old.choices[name] for name in old.choices.keys() - kept}
            assert named(edit.discarded, i) == lost


class Regenerate:
    """The first site of every run drawn anew."""

    def run(self, row: Row, truth: Truth):
        types = truth.types
        olds = self.starts(truth)
        move = ppl.seed(ppl.regenerate(weighted(row), ppl.select(first(types))))
        again = lambda key, trace: move(key, trace, *row.args)  # noqa: E731
        return lambda keys: jax.vmap(again)(keys, traces_of(olds, types))

    def check(self, row: Row, truth: Truth, edit) -> None:
        types, olds = truth.types, self.starts(truth)
        runs = check_edited(row, olds, truth, edit)
        chance = {}
        for i, (old, run) in enumerate(zip(olds, runs, strict=True)):
            anew = names_of(old.choices | run.choices, first(types))
            kept = old.choices.keys() & run.choices.keys() - anew
            assert all(run.choices[name] == old.choices[name] for name in kept)
            there, back = (
                sum(x for name, x in one.log_prob.items() if name not in kept) for one in (run, old)
            )
            close(edit.log_weight[i], run.log_density - there - (old.log_density - back))
            chance[id(old), id(run)] = math.exp(there)
        moves = Counter(zip(map(id, olds), map(id, runs)))
        for move, count in moves.items():
            assert_count(count, Counter(map(id, olds))[move[0]], chance[move], len(moves))

    def starts(self, truth: Truth) -> list[Run]:
        return [truth.runs[i % len(truth.runs)] for i in range(DRAWS)]


def traces_of(runs: list[Run], types: dict) -> ppl.Trace:
    """The runs as the library has them, stacked, without what they return."""
    log_density, log_weight = (
        jnp.array([getattr(run, name) for run in runs], float) for name in ("log_density", "log_weight")
    )
    return ppl.Trace(None, choices_of(runs, types), log_density, log_weight, {})


def check_edited(row: Row, olds: list[Run], truth: Truth, edit) -> list[Run]:
    """The runs that the traces of an edit are: those of what they return."""
    runs = truth.find(edit.trace.value)
    assert_same_choices(edit.trace.choices, runs, truth.types)
    np.testing.assert_array_equal(edit.trace.log_weight, [run.log_weight for run in runs])
    close(edit.trace.log_density, [run.log_density for run in runs])
    return runs


class Importance:
    def run(self, row: Row, truth: Truth):
        return lambda keys: ppl.seed(inference.importance(weighted(row), DRAWS))(keys[0], *row.args)

    def check(self, row: Row, truth: Truth, population) -> None:
        runs = truth.find(population.value)
        np.testing.assert_array_equal(population.log_weight, [run.log_weight for run in runs])
        truth.assert_drawn_from_the_prior(runs)


class Enumerate:
    def run(self, row: Row, truth: Truth):
        return lambda keys: inference.enumerate(weighted(row))(*row.args)

    def check(self, row: Row, truth: Truth, population) -> None:
        weight = np.exp(np.asarray(population.log_weight, np.float64)) / len(population.log_weight)
        possible = weight > 0
        runs = truth.find(jax.tree.map(lambda x: np.asarray(x)[possible], population.value))
        assert len(runs) == len(truth.runs), "a run that is possible is met once"
        close(np.log(weight[possible]), [run.log_density for run in runs])


class Unconstrain:
    """At some positions of the program whose bits are read off continuous sites."""

    POSITIONS = 4

    def run(self, row: Row, truth: Truth):
        free = ppl.unconstrain(partial(row.program, wait, ppl.factor))
        positions = self.positions(free.shapes(*row.args))

        def both(position):
            return free.log_density(position, *row.args), free.constrain(position, *row.args)

        return lambda keys: jax.vmap(both)(positions)

    def check(self, row: Row, truth: Truth, result) -> None:
        log_density, choices = result
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), choices)
        positions = self.positions(shapes)
        for i in range(self.POSITIONS):
            at = Position(named(positions, i))
            row.plain(at.bit, at.factor)
            close(log_density[i], at.log_density)
            constrained = named(choices, i)
            assert constrained.keys() == at.values.keys()
            close([constrained[name] for name in at.values], list(at.values.values()))

    def positions(self, shapes: dict) -> dict:
        """Numbers in no relation to each other."""
        rng = np.random.default_rng(0)
        draw = lambda x: jnp.asarray(rng.normal(-0.5, 1.0, (self.POSITIONS, *x.shape)), x.dtype)  # noqa: E731
        return jax.tree.map(draw, shapes)


class Position:
    """A run of a plain program whose bits are those of ``wait``: what it computes from a position, by name."""

    def __init__(self, position: dict[str, float]):
        self.position, self.values, self.log_density = position, {}, 0.0

    def bit(self, name: str, p: float) -> int:
        x, rate = self.position[name], 1.0 + p
        value = self.values[name] = math.exp(x)
        self.log_density += math.log(rate) - rate * value + x  # the density, and the derivative of exp
        return int(value > 0.5)

    def factor(self, log_weight: float) -> None:
        self.log_density += log_weight


class ExpectationGrad:
    """Over all runs of the estimator, its mean is the derivative of the expectation."""

    SCALE, STEP = 0.75, 1e-4

    def run(self, row: Row, truth: Truth):
        def objective(scale, *args):
            return payoff(row.program(scaled(scale), lambda log_weight: None, *args))

        # JAX refuses a reduction that closes over a parameter before it comes to the site: hence first over a number.
        over_a_number = inference.expectation_grad(lambda _, *args: objective(self.SCALE, *args))
        jax.eval_shape(over_a_number, self.SCALE, *row.args)
        return lambda keys: inference.enumerate(inference.expectation_grad(objective))(self.SCALE, *row.args)

    def check(self, row: Row, truth: Truth, population) -> None:
        weight = np.exp(np.asarray(population.log_weight, np.float64)) / len(population.log_weight)
        close(weight.sum(), 1.0)
        terms = (weight * np.asarray(population.value, np.float64))[weight > 0]
        rounding = ROUNDING * np.abs(terms).sum()
        assert abs(terms.sum() - self.slope(row)) < rounding < abs(self.slope(row))

    def slope(self, row: Row) -> float:
        """By differences. The expectation is a polynomial of low degree: what they leave out is of size STEP**2."""
        there, back = (self.expected(row, self.SCALE + step) for step in (self.STEP, -self.STEP))
        return (there - back) / (2 * self.STEP)

    def expected(self, row: Row, scale: float) -> float:
        """The expectation of the payoff, by the plain program."""
        runs = all_runs(lambda bit, factor: row.plain(lambda name, p: bit(name, scale * p), factor))
        return sum(run.prior * float(payoff(run.value)) for run in runs)


def payoff(value) -> jax.Array:
    """A number to which every two of the numbers in a value contribute together."""
    numbers = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(value)])
    return jnp.dot(1.0 * numbers, 1.0 + np.arange(len(numbers))) ** 2


# ------------------------------------------------------------------ those that do not


def check_trace_type(row: Row, truth: Truth) -> None:
    types = truth.types
    names = {address: [name for _, name in elements(address, t.shape)] for address, t in types.items()}
    everywhere = {name for run in truth.runs for name in run.choices}
    assert everywhere <= {name for some in names.values() for name in some}
    for address, t in types.items():
        always = all(name in run.choices for run in truth.runs for name in names[address])
        assert always != t.optional and np.issubdtype(t.dtype, np.integer)


def check_smc(row: Row, truth: Truth) -> None:
    """Over all runs of two particles that resample whenever they can, each value has its weight on average."""
    total = dict.fromkeys(truth.by_value, 0.0)
    for population, weight in semantics.meaning(inference.smc(weighted(row), 2, ess_threshold=2.0))(
        *row.args
    ):
        for run, log_weight in zip(truth.find(population.value), population.log_weight, strict=True):
            total[as_key(run.value)] += weight * np.exp(log_weight) / 2
    np.testing.assert_allclose(
        list(total.values()), [np.exp(run.log_density) for run in truth.runs], rtol=1e-9
    )


def check_meaning(row: Row, truth: Truth) -> None:
    weights = {as_key(value): weight for value, weight in semantics.meaning(weighted(row))(*row.args)}
    assert weights.keys() == truth.by_value.keys()
    for key, run in truth.by_value.items():
        np.testing.assert_allclose(weights[key], np.exp(run.log_density), rtol=1e-9)


def check_review(row: Row, truth: Truth) -> None:
    """Nothing is said against the program, and what is wrong with two others is seen."""
    assert semantics.check(weighted(row))(*row.args).findings == ()
    check_lost_mass(row, truth)
    check_unused(row, truth)
    check_independences(row, truth)


def check_lost_mass(row: Row, truth: Truth) -> None:
    """If each factor takes all mass, that is an error where every run comes to one, and nowhere else."""
    review = semantics.check(partial(row.program, flip, lambda log_weight: ppl.factor(-jnp.inf)))(*row.args)
    runs = all_runs(lambda bit, factor: row.plain(bit, lambda log_weight: factor(-math.inf)))
    if any(run.log_weight > -math.inf for run in runs):
        assert review.ok
    elif truth.is_bounded:  # the runs of a while_loop cannot be added up
        assert not review.ok


def check_unused(row: Row, truth: Truth) -> None:
    """Beside each bit there is one that nobody looks at: those, and no others, are superfluous."""
    review = semantics.check(partial(row.program, spared, lambda log_weight: None))(*row.args)
    assert {finding.severity for finding in review.findings} == {"note"}
    superfluous = {re.match("'(.*?)'", finding.where)[1] for finding in review.findings}
    assert superfluous - empty(truth) == {f"{site}_" for site in sites_of(truth.runs)}


def check_independences(row: Row, truth: Truth) -> None:
    """The sites are those of all runs. Those said to be independent are; if any are, some are said to be."""
    table = semantics.independences(partial(row.program, spared, ppl.factor))(*row.args)
    said = {tuple(pair.split(", ")): independent == "yes" for pair, independent, _ in table.rows}
    runs = all_runs(lambda bit, factor: row.plain(partial(plain_spared, bit), factor))
    assert {site for pair in said for site in pair} - empty(truth) == sites_of(runs)
    true = {pair: are_independent(runs, *pair) for pair in said}
    assert all(true[pair] for pair in said if said[pair])
    assert any(said.values()) == any(true.values())


def plain_spared(bit: Callable, name: str, p: float) -> int:
    bit(re.sub(r"^[^[]*", r"\g<0>_", name), 0.5)
    return bit(name, p)


def sites_of(runs: list[Run]) -> set[str]:
    """The sites that some run comes to."""
    return {address_of(name) for run in runs for name in run.choices}


def empty(truth: Truth) -> set[str]:
    """The sites that have no values, and those that ``spared`` puts beside them."""
    types = truth.types if truth.is_bounded else {}
    return {name for site, t in types.items() if 0 in t.shape for name in (site, f"{site}_")}


def are_independent(runs: list[Run], *pair: str) -> bool:
    """Whether all that is drawn at one site is independent of all that is drawn at the other, by the weights."""
    total, first, second, joint = 0.0, Counter(), Counter(), Counter()
    for run in runs:
        x, y = (frozenset((name, run.choices[name]) for name in names_of(run.choices, site)) for site in pair)
        weight = math.exp(run.log_density)
        total += weight
        first[x] += weight
        second[y] += weight
        joint[x, y] += weight
    return all(
        math.isclose(joint[x, y] * total, first[x] * second[y], rel_tol=1e-9)
        for x, y in product(first, second)
    )


COLUMNS: dict[str, OnKeys | Callable[[Row, Truth], None]] = {
    "seed": Seed(),
    "weigh": Weigh(),
    "trace": Trace(),
    "log_density": LogDensity(),
    "condition": Condition(),
    "do": Do(),
    "update": Update(),
    "regenerate": Regenerate(),
    "unconstrain": Unconstrain(),
    "trace_type": check_trace_type,
    "importance": Importance(),
    "smc": check_smc,
    "enumerate": Enumerate(),
    "meaning": check_meaning,
    "expectation_grad": ExpectationGrad(),
    "check": check_review,
}


def cells(row: Row) -> dict[str, str | None]:
    """For each transformation None if it works, else the message of its refusal. Raises for anything else."""
    truth = Truth(row)
    keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), DRAWS)  # compiles faster than the default
    found: dict[str, str | None] = dict.fromkeys(COLUMNS)
    runs = {}
    for name, column in COLUMNS.items():
        try:
            if callable(column):
                column(row, truth)
            else:
                run = column.run(row, truth)
                jax.eval_shape(run, keys)
                runs[name] = run
        except ppl.BorelaxError as refusal:
            found[name] = message(refusal)
    together = jax.jit(
        lambda keys: {name: run(keys) for name, run in runs.items()},
        compiler_options={"xla_backend_optimization_level": 0},
    )
    for name, result in together(keys).items():
        COLUMNS[name].check(row, truth, result)
    return found


def message(refusal: ppl.BorelaxError) -> str:
    """What a refusal says: it names the site and its line, and what to do. The line differs from model to model."""
    text = str(refusal)
    assert re.search(r"'(x|y|a|more)'.*coverage_programs\.py:\d+", text), f"no site, or not its line: {text}"
    assert re.search(r"\b(move|use|rename|differentiate|draw)\b", text), f"no way out: {text}"
    return re.sub(r"coverage_programs\.py:\d+", "model.py:7", text)


# ------------------------------------------------------------------ the page

PAGE = ROOT / "docs" / "coverage.md"
INTRODUCTION = """# What works, and what is refused

Each row is a JAX construct with sites inside it (or, between sites, one without any), each column a transformation.
*Works* is checked: the transformed program agrees with all runs of the same program written in plain Python, in its
values, choices, densities, weights and probabilities (for `unconstrain`, of the program with continuous sites in place
of the discrete ones). A number is a refusal, with the message below the table, where `model.py:7` stands for the line
of the site. There is no third state.

The last two columns give no runs of the program. For `expectation_grad`, the probabilities depend on a parameter, with
`grad="score"`: the mean of the estimator over all its runs is the derivative of the expectation over all plain runs.
For `check`, nothing is said against the program; with factors that take all mass, an error is reported if no plain run
has weight (in a `while_loop` it may be missed), and never otherwise; draws that nothing depends on are noted, and no
others; and sites that `independences` says are independent are so in the measure of the plain runs.

This page is written by `python tests/coverage_table.py`.
"""


def page(table: dict[str, dict[str, str | None]]) -> str:
    """The page for the cells of every construct."""
    messages = list(
        dict.fromkeys(text for row in table.values() for text in row.values() if text is not None)
    )
    lines = [INTRODUCTION, f"| construct | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, row in table.items():
        entries = [
            "works" if row[column] is None else f"({messages.index(row[column]) + 1})" for column in COLUMNS
        ]
        lines.append(f"| {name} | {' | '.join(entries)} |")
    return "\n".join([*lines, "", *(f"{i}. {text}" for i, text in enumerate(messages, 1)), ""])


def read_page() -> dict[str, dict[str, str | None]]:
    """The cells that the page says."""
    text = PAGE.read_text()
    messages = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    header, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    entries = {name: dict(zip(header[1:], row, strict=True)) for name, *row in rows}
    return {
        name: {
            column: None if entry == "works" else messages[entry.strip("()")] for column, entry in row.items()
        }
        for name, row in entries.items()
    }


if __name__ == "__main__":
    PAGE.write_text(page({row.name: cells(row) for row in ROWS}))
