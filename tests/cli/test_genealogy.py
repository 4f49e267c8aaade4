"""The genealogy, on a run small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest

from borelax.cli.genealogy import genealogy


@pytest.fixture
def run():
    """Three slots, three steps; after the first, slot 2 takes the place of slot 1."""
    tokens = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    ancestors = [[0, 2, 2], [0, 1, 2], [0, 1, 2]]
    weights = [[1.0, 0.0, 3.0], [1.0, 2.0, 3.0], [1.0, 4.0, 3.0]]
    with np.errstate(divide="ignore"):
        return genealogy(tokens, ancestors, np.log(weights), 0.6, [0.125, 0.5, 0.375])


def test_lineages(run):
    assert [run.tokens[range(3), run.lineage(slot)].tolist() for slot in range(3)] == [
        [1, 4, 7],
        [3, 5, 8],
        [3, 6, 9],
    ]


def test_resampling_carries_the_mean_weight_on(run):
    assert run.resampled.tolist() == [True, False, False]
    mean = 4 / 3
    np.testing.assert_allclose(
        np.exp(run.log_weight), [[1, 0, 3], [mean, 2 * mean, 3 * mean], [mean, 4 * mean, 3 * mean]]
    )
    np.testing.assert_allclose(np.exp(run.log_evidence), [mean, 2 * mean, 8 / 3 * mean])


def test_effective_sample_sizes(run):
    np.testing.assert_allclose(run.ess, [16 / 10, 36 / 14, 64 / 26])


def test_shares_add_up_along_the_tree(run):
    np.testing.assert_allclose(run.share, [[0.125, 0, 0.875], [0.125, 0.5, 0.375], [0.125, 0.5, 0.375]])


def test_without_weight_nothing_has_a_share():
    dead = genealogy([[0, 0]], [[0, 1]], [[-np.inf, -np.inf]], 0.5, [np.nan, np.nan])
    assert dead.ess.tolist() == [0.0] and dead.share.tolist() == [[0.0, 0.0]]
    assert dead.log_evidence.tolist() == [-np.inf] and not dead.resampled.any()
