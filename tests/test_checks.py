"""Every algorithm is checked, and passes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from checks.registry import CHECKS
from test_architecture import public_names

from borelax import inference, models, ppl, semantics

LIBRARY = SimpleNamespace(ppl=ppl, semantics=semantics, inference=inference, models=models)

# Public names of inference that are no algorithms: what algorithms return, raise and are made of.
NOT_ALGORITHMS = {
    "Acceptance",
    "CheckpointError",
    "Draws",
    "Exchange",
    "Fit",
    "Genealogy",
    "Kernel",
    "KernelError",
    "Loo",
    "Loop",
    "Marginal",
    "Prediction",
    "Psis",
    "Resampling",
    "Run",
    "Runs",
    "Stage",
    "State",
    "Trajectory",
    "Tuning",
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_it_holds(check):
    report = check.run(LIBRARY)
    assert report.holds, report


def test_every_algorithm_has_a_check():
    checked = {name.removeprefix("inference.") for check in CHECKS.values() for name in check.of}
    missing = public_names("borelax.inference") - NOT_ALGORITHMS - checked
    assert not missing, f"no check in tests/checks is of {sorted(missing)}"
