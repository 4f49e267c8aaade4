"""The coverage table: what each transformation makes of each JAX construct is what docs/coverage.md says.

If a test here fails because something works now, or is refused in other words: ``python tests/coverage_table.py``.
"""

from __future__ import annotations

from dataclasses import replace

import coverage_table
import jax
import numpy as np
import pytest
from coverage_programs import ROWS, around_plain, scaled
from coverage_table import COLUMNS, DRAWS, Truth, cells, check_review, page, read_page
from families import family
from plain_runs import all_runs

from borelax import ppl, semantics

WRITTEN = read_page()


@pytest.mark.parametrize("row", family(ROWS, every=6), ids=lambda row: row.name)
def test_the_page_says_what_happens(row):
    assert cells(row) == WRITTEN[row.name], "run `python tests/coverage_table.py` and read what has changed"


def test_the_page_has_every_row_and_column():
    assert list(WRITTEN) == [row.name for row in ROWS]
    assert all(list(row) == list(COLUMNS) for row in WRITTEN.values())


def test_the_page_can_be_read_back():
    table = {
        "a": dict.fromkeys(COLUMNS),
        "b": dict.fromkeys(COLUMNS, "site 'y' (model.py:7) is wrong; move it"),
    }
    text = page(table)
    rows = text[text.index("| a |") :]
    assert rows.count("works") == len(COLUMNS) and rows.count("(1)") == len(COLUMNS)


def test_plain_runs_are_all_there_are():
    runs = all_runs(around_plain)
    assert len(runs) == 8 and sum(run.prior for run in runs) == pytest.approx(1.0, abs=1e-15)
    assert len({tuple(run.choices.values()) for run in runs}) == 8
    run = next(run for run in runs if run.choices == {"x": 1, "y": 0, "z": 1})
    assert run.value == (1, 2, 1) and run.log_weight == -0.25
    assert run.log_density == pytest.approx(np.log(0.25 * 0.5 * 0.5) - 0.25, abs=1e-15)


def test_a_wrong_construct_is_found():
    """One draw for two, a factor counted twice and a probability that is off are no third state."""
    from coverage_programs import QUARTER, Row, around, copies, copies_plain

    once = copies(lambda copy, qs: copy(qs[0]) + 0 * qs)
    with pytest.raises((AssertionError, KeyError)):
        cells(Row("one draw for two", once, copies_plain, (QUARTER,)))
    for name, wrong in {
        "twice": lambda bit, factor, p: (factor(0.125), around(lambda f: f)(bit, factor, p))[1],
        "probability": lambda bit, factor, p: around(lambda f: f)(bit, factor, p + 0.25),
    }.items():
        with pytest.raises(AssertionError):
            cells(Row(name, wrong, around_plain, (QUARTER,)))
    assert Truth(ROWS[0]).runs


def difference_of_densities(truth, edit):
    """The weight of an edit that has forgotten what it draws."""
    starts = [truth.runs[i % len(truth.runs)].log_density for i in range(len(edit.log_weight))]
    return replace(edit, log_weight=edit.trace.log_density - np.array(starts))


def nothing_discarded(truth, edit):
    gone = lambda x: ppl.Masked(x.value, np.zeros_like(x.present)) if isinstance(x, ppl.Masked) else x  # noqa: E731
    return replace(
        edit, discarded=jax.tree.map(gone, edit.discarded, is_leaf=lambda x: isinstance(x, ppl.Masked))
    )


def never_drawn(truth, edit):
    """Every trace as its first one has become."""
    return jax.tree.map(lambda x: np.repeat(np.asarray(x)[:1], len(x), axis=0), edit)


def as_weights(truth, population):
    """The measure as a sum, not as a mean."""
    return replace(population, log_weight=population.log_weight - np.log(len(population.log_weight)))


def without_jacobian(truth, result):
    log_density, choices = result
    return log_density - sum(np.log(x) for x in jax.tree.leaves(choices)), choices


def no_gradient(truth, population):
    return replace(population, value=np.zeros_like(population.value))


@pytest.mark.parametrize(
    ("column", "name", "wrong"),
    [
        ("update", "cond on a draw", difference_of_densities),
        ("update", "cond on a draw", nothing_discarded),
        ("regenerate", "cond on a draw", difference_of_densities),
        ("regenerate", "jit", never_drawn),
        ("enumerate", "cond on a draw", as_weights),
        ("unconstrain", "one jitted function under two scopes", without_jacobian),
        ("expectation_grad", "cond on a draw", no_gradient),
        ("expectation_grad", "cond on a draw", as_weights),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_wrong_result_is_found(column, name, wrong):
    row = next(row for row in ROWS if row.name == name)
    truth, column = Truth(row), COLUMNS[column]
    result = jax.jit(column.run(row, truth))(jax.random.split(jax.random.key(0), DRAWS))
    column.check(row, truth, result)
    with pytest.raises(AssertionError):
        column.check(row, truth, wrong(truth, result))


def test_a_lost_score_is_found(monkeypatch):
    def without_score_of_y(scale):
        rates = lambda name: jax.lax.stop_gradient(scale) if name == "y" else scale  # noqa: E731
        return lambda name, p: scaled(rates(name))(name, p)

    row, column = ROWS[0], COLUMNS["expectation_grad"]
    truth = Truth(row)
    column.check(row, truth, jax.jit(column.run(row, truth))(None))
    monkeypatch.setattr(coverage_table, "scaled", without_score_of_y)
    with pytest.raises(AssertionError):
        column.check(row, truth, jax.jit(column.run(row, truth))(None))


def sees_nothing(review):
    return replace(review, findings=())


def errors_as_notes(review):
    return replace(review, findings=tuple(replace(finding, severity="note") for finding in review.findings))


def notes_as_errors(review):
    return replace(review, findings=tuple(replace(finding, severity="error") for finding in review.findings))


def all_independent(table):
    return replace(table, rows=tuple((pair, "yes", "") for pair, *_ in table.rows))


def none_independent(table):
    return replace(table, rows=tuple((pair, "", pair) for pair, *_ in table.rows))


def without_x(table):
    return replace(table, rows=tuple(row for row in table.rows if "x" not in row[0].split(", ")))


@pytest.mark.parametrize(
    ("analysis", "wrong"),
    [
        ("check", sees_nothing),
        ("check", errors_as_notes),
        ("check", notes_as_errors),
        ("independences", all_independent),
        ("independences", none_independent),
        ("independences", without_x),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_wrong_analysis_is_found(monkeypatch, analysis, wrong):
    row = next(row for row in ROWS if row.name == "scan")
    check_review(row, Truth(row))
    right = getattr(semantics, analysis)
    monkeypatch.setattr(semantics, analysis, lambda program: lambda *args: wrong(right(program)(*args)))
    with pytest.raises(AssertionError):
        check_review(row, Truth(row))
