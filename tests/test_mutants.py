"""Mutants are caught by their checks, which the library itself passes (``test_checks.py``).

A third of them, for the time that they take; ``benchmarks/checks.py`` goes through all.
"""

from __future__ import annotations

import pytest
from checks.registry import CHECKS
from families import family
from mutants import MUTANTS
from mutation import Patch, mutated
from source_tree import source_files

from borelax import ppl


@pytest.mark.parametrize("mutant", family(MUTANTS, every=6), ids=lambda mutant: mutant.bug)
def test_it_is_caught(mutant):
    with mutated(mutant.patch) as library:
        report = CHECKS[mutant.check].run(library)
    assert not report.holds, f"{mutant.check} holds, although {mutant.bug}"


def test_there_are_enough_of_them():
    assert len({mutant.bug for mutant in MUTANTS}) == len(MUTANTS) >= 60


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug)
def test_it_is_a_change_of_what_is_there(mutant):
    """The patch fits the library as it is, and its check is one."""
    source = source_files()[mutant.patch.module].read_text()
    assert mutant.patch.apply(source) != source
    assert mutant.check in CHECKS


def test_the_library_is_left_as_it_was():
    import borelax

    before = borelax.ppl.seed
    with mutated(MUTANTS[0].patch) as library:
        assert library.ppl.seed is not before
    assert borelax.ppl is ppl and borelax.ppl.seed is before


def test_a_patch_of_text_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="0 times"), mutated(Patch("borelax.ppl.seed", "no such text", "")):
        pass
