"""Findings and reviews: what they say, and in which order."""

from __future__ import annotations

from borelax.semantics import Finding, Review

NOTE = Finding("note", "nothing depends on it", "'x' (model.py:1)", "take it out")
ERROR = Finding("error", "a < b", "'y' (model.py:2)", "swap them")


def test_errors_come_first_and_decide():
    review = Review("model", "order", (NOTE, ERROR))
    assert review.findings == (ERROR, NOTE)
    assert not review.ok
    assert Review("model", "order", (NOTE,)).ok


def test_the_text_says_where_what_and_what_to_do():
    lines = repr(Review("model", "order", (NOTE, ERROR))).splitlines()
    assert lines[0] == "model: 2 findings"
    assert lines[2:5] == ["  error at 'y' (model.py:2)", "    a < b", "    what to do: swap them"]


def test_nothing_found_is_said_with_what_was_looked_at():
    assert repr(Review("model", "order", ())) == "model: nothing found\n  looked at: order"


def test_html_is_escaped():
    html = Review("model", "order", (ERROR,))._repr_html_()
    assert "a &lt; b" in html and "a < b" not in html
