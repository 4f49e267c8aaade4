"""The genealogy, on a run small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest

from borelax import inference
from borelax.cli.genealogy import genealogy

MEAN = 4 / 3


@pytest.fixture
def run():
    """Three slots, three steps; after the first, slot 2 takes the place of slot 1."""
    weights = [[1.0, 0.0, 3.0], [MEAN, 2 * MEAN, 3 * MEAN], [MEAN, 4 * MEAN, 3 * MEAN]]
    with np.errstate(divide="ignore"):
        found = inference.Genealogy(
            ancestors=np.array([[0, 2, 2], [0, 1, 2], [0, 1, 2]]),
            ess=np.array([16 / 10, 36 / 14, 64 / 26]),
            resampled=np.array([True, False, False]),
            log_weight=np.log(weights),
            time=np.arange(3),
        )
    return genealogy([[1, 2, 3], [4, 5, 6], [7, 8, 9]], found, [0.125, 0.5, 0.375])


def test_lineages(run):
    assert [run.tokens[range(3), run.lineage(slot)].tolist() for slot in range(3)] == [
        [1, 4, 7],
        [3, 5, 8],
        [3, 6, 9],
    ]


def test_the_evidence_is_the_mean_weight_so_far(run):
    np.testing.assert_allclose(np.exp(run.log_evidence), [MEAN, 2 * MEAN, 8 / 3 * MEAN])


def test_shares_add_up_along_the_tree(run):
    np.testing.assert_allclose(run.share, [[0.125, 0, 0.875], [0.125, 0.5, 0.375], [0.125, 0.5, 0.375]])


def test_without_weight_nothing_has_a_share():
    found = inference.Genealogy(
        np.array([[0, 1]]), np.zeros(1), np.array([False]), np.full((1, 2), -np.inf), np.arange(1)
    )
    dead = genealogy([[0, 0]], found, [np.nan, np.nan])
    assert dead.share.tolist() == [[0.0, 0.0]] and dead.log_evidence.tolist() == [-np.inf]


def test_where_nothing_is_weighed_all_are_alike():
    free = genealogy([[1, 2], [3, 4]], None, [0.5, 0.5])
    assert free.ess.tolist() == [2.0, 2.0] and free.log_evidence.tolist() == [0.0, 0.0]
    assert free.parents.tolist() == [[0, 1], [0, 1]] and free.share.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert not free.resampled.any()
