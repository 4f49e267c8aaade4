from __future__ import annotations

import numpyro.distributions as dist
import pytest

from borelax import ppl, semantics


def coin():
    return ppl.sample("x", dist.Bernoulli(0.25))


def test_a_report_says_what_holds():
    report = semantics.preserves(ppl.trace, coin)()
    assert bool(report) and report.assert_holds() is report and report.counterexample is None
    assert repr(report) == "HOLDS  trace preserves coin\n  exact, over 2 values; total variation distance 0"


def test_a_report_says_where_it_fails():
    report = semantics.leaves_invariant(lambda x: 1 - x, coin)()
    assert not report
    assert repr(report).splitlines()[:3] == [
        "FAILS  the program leaves coin invariant",
        "  exact, over 2 values; total variation distance 0.5",
        "  counterexample: coin: at 0 0.25, not 0.75",
    ]
    html = report._repr_html_()
    assert "FAILS" in html and "<td" in html and "0.75" in html
    with pytest.raises(semantics.CheckFailed) as raised:
        report.assert_holds()
    assert raised.value.report is report
    assert isinstance(raised.value, AssertionError) and isinstance(raised.value, ppl.BorelaxError)


def test_a_statistical_report_says_how_sure_it_is():
    normal = lambda: ppl.sample("x", dist.Normal(0.0, 1.0))  # noqa: E731
    budget = semantics.Budget(draws=4_096, false_alarm_rate=1e-4)
    report = semantics.leaves_invariant(lambda x: -x, normal, budget)()
    assert report.holds and "4096 draws" in report.how and "0.0001" in report.how
    assert "would have seen" in report.how
