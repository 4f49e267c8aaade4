"""What each transformation makes of each JAX construct: it works, or it is refused with a message. Nothing else.

"Works" means that the transformed program agrees, run for run, with all runs of the same program written in plain
Python (``plain_runs.py``): the same values at the same choices, the same densities and weights, the same
probabilities. The factors of the programs are multiples of 1/8, so that log weights agree exactly.

``python tests/coverage_table.py`` writes docs/coverage.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from coverage_programs import ROWS, Row
from plain_runs import Run, all_runs
from scipy.stats import binom
from thresholds import FALSE_ALARM_RATE
from tree import ROOT

from borelax import inference, ppl, semantics

DRAWS = 512
ROUNDING = 32 * float(np.finfo(np.float32).eps)  # relative, of a sum of fewer than 32 terms of one sign


class Truth:
    """All runs of a row's plain program."""

    def __init__(self, row: Row):
        self.runs = all_runs(row.plain)
        self.by_value = {as_key(run.value): run for run in self.runs}
        assert len(self.by_value) == len(self.runs), "a program of this table must return all that it draws"

    def find(self, values) -> list[Run]:
        """The run behind each row of a batch of values."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(values)]
        return [self.by_value[as_key([leaf[i] for leaf in leaves])] for i in range(len(leaves[0]))]

    def assert_drawn_from_the_prior(self, runs: list[Run]) -> None:
        """Each run occurs as often as its probability says: exact binomial tests."""
        for run in self.runs:
            count = sum(other is run for other in runs)
            tail = min(binom.cdf(count, len(runs), run.prior), binom.sf(count - 1, len(runs), run.prior))
            assert tail > FALSE_ALARM_RATE / (2 * len(self.runs)), (run.choices, count, run.prior)


def as_key(value) -> tuple[float, ...]:
    """A value as a flat tuple of numbers."""
    return tuple(float(x) for leaf in jax.tree.leaves(value) for x in np.ravel(leaf))


def weighted(row: Row) -> Callable:
    return partial(row.program, ppl.factor)


def unweighted(row: Row) -> Callable:
    return partial(row.program, lambda log_weight: None)


def close(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=ROUNDING, atol=ROUNDING)


# ------------------------------------------------------------------ choices, as runs have them


def type_of_sites(row: Row) -> dict[str, ppl.SiteType]:
    return {
        site: t for site, t in flat(ppl.trace_type(weighted(row))(*row.args)).items() if t.kind == "sample"
    }


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
    return [x for name, x in by_name.items() if name.partition("[")[0] == address]


# ------------------------------------------------------------------ the transformations that run on keys
#
# Each is a function of keys, so that those of one row can be compiled together, and a check of what it returns.


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
        assert_same_choices(trace.choices, runs, type_of_sites(row))
        np.testing.assert_array_equal(trace.log_weight, [run.log_weight for run in runs])
        close(trace.log_density, [run.log_density for run in runs])
        truth.assert_drawn_from_the_prior(runs)


class LogDensity:
    """At the choices of every run."""

    def run(self, row: Row, truth: Truth):
        choices = choices_of(truth.runs, type_of_sites(row))
        density = ppl.log_density(weighted(row))
        return lambda keys: jax.vmap(lambda choices: density(choices, *row.args))(choices)

    def check(self, row: Row, truth: Truth, log_density) -> None:
        close(log_density, [run.log_density for run in truth.runs])


class Condition:
    """On the first site, and on all sites, as they are in every run."""

    def run(self, row: Row, truth: Truth):
        types = type_of_sites(row)
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
        types = type_of_sites(row)
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
    types = type_of_sites(row)
    site = first(types)
    runs = truth.find(trace.value)
    assert_same_choices(trace.choices, runs, {address: t for address, t in types.items() if address != site})
    if not types[site].optional:
        assert [at_site(run.choices, site) for run in runs] == [
            at_site(run.choices, site) for run in truth.runs
        ]
    return runs, site


class Importance:
    def run(self, row: Row, truth: Truth):
        return lambda keys: ppl.seed(inference.importance(weighted(row), DRAWS))(keys[0], *row.args)

    def check(self, row: Row, truth: Truth, population) -> None:
        runs = truth.find(population.value)
        np.testing.assert_array_equal(population.log_weight, [run.log_weight for run in runs])
        truth.assert_drawn_from_the_prior(runs)


# ------------------------------------------------------------------ those that do not


def check_trace_type(row: Row, truth: Truth) -> None:
    types = type_of_sites(row)
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


ON_KEYS = {
    "seed": Seed(),
    "weigh": Weigh(),
    "trace": Trace(),
    "log_density": LogDensity(),
    "condition": Condition(),
    "do": Do(),
    "importance": Importance(),
}
CHECKS = {"trace_type": check_trace_type, "smc": check_smc, "meaning": check_meaning}
COLUMNS = [
    "seed",
    "weigh",
    "trace",
    "log_density",
    "condition",
    "do",
    "trace_type",
    "importance",
    "smc",
    "meaning",
]


def cells(row: Row) -> dict[str, str | None]:
    """For each transformation None if it works, else the message of its refusal. Raises for anything else."""
    truth = Truth(row)
    keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), DRAWS)  # compiles faster than the default
    found: dict[str, str | None] = {}
    runs = {}
    for name, column in ON_KEYS.items():
        try:
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
        ON_KEYS[name].check(row, truth, result)
        found[name] = None
    for name, check in CHECKS.items():
        try:
            check(row, truth)
            found[name] = None
        except ppl.BorelaxError as refusal:
            found[name] = message(refusal)
    return found


def message(refusal: ppl.BorelaxError) -> str:
    """What a refusal says: it names the site and its line, and what to do. The line differs from model to model."""
    text = str(refusal)
    assert re.search(r"'(x|y|more)'.*coverage_programs\.py:\d+", text), f"no site, or not its line: {text}"
    assert re.search(r"\b(move|use|rename|differentiate)\b", text), f"no way out: {text}"
    return re.sub(r"coverage_programs\.py:\d+", "model.py:7", text)


# ------------------------------------------------------------------ the page

PAGE = ROOT / "docs" / "coverage.md"
INTRODUCTION = """# What works, and what is refused

Each row is a JAX construct with sites inside it (or, between sites, one without any), each column a transformation.
*Works* is checked: the transformed program agrees with all runs of the same program written in plain Python, in its
values, choices, densities, weights and probabilities. A number is a refusal, with the message below the table, where
`model.py:7` stands for the line of the site. There is no third state.

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
