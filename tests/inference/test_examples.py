"""The examples of inference run, and say what they are there to say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def said_by(name: str) -> str:
    return subprocess.run(
        [sys.executable, EXAMPLES / name], check=True, capture_output=True, text=True
    ).stdout


def test_eight_schools():
    funnel, standardised = said_by("eight_schools.py").split("standardised:")
    assert "trajectories diverged" in funnel and "WARNING" not in standardised
    assert "probability that coaching works best in the first school: 0." in standardised


def test_volatility():
    """Both algorithms have one posterior: their means agree to a fraction of its width."""
    rows = said_by("volatility.py").splitlines()[-2:]
    assert [row.split()[0] for row in rows] == ["particle", "PMMH"]
    gibbs, marginal = (
        [tuple(map(float, x)) for x in re.findall(r"(-?\d\.\d+) ± (\d\.\d+)", row)] for row in rows
    )
    assert len(gibbs) == len(marginal) == 3
    assert all(abs(a - b) < 0.3 * sd for (a, sd), (b, _) in zip(gibbs, marginal))
