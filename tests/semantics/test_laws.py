"""Every representation keeps the laws, and those that are wrong somewhere do not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest

from borelax import semantics
from borelax.semantics import laws
from borelax.semantics.laws import LAWS, RepresentationLaws, laws_of
from borelax.semantics.representations import finish


class TestPrograms(RepresentationLaws):
    representation = semantics.Programs()


class TestSampling(RepresentationLaws):
    representation = semantics.Sampling()


class TestWeighted(RepresentationLaws):
    representation = semantics.Weighted()


class TestTraced(RepresentationLaws):
    representation = semantics.Traced()


class TestPopulationsOfOne(RepresentationLaws):
    representation = semantics.Populations()


class TestPopulationsOfTwo(RepresentationLaws):
    representation = semantics.Populations(2)


class TestSuspended(RepresentationLaws):
    representation = semantics.Suspended()


# ------------------------------------------------------------------------- representations that are wrong


@dataclass(frozen=True)
class ForgetsTheWeightBefore(semantics.Weighted):
    def bind(self, first, then):
        return lambda *args: then(first(*args)[0])(*args)


@dataclass(frozen=True)
class ForgetsTheWeightAfter(semantics.Weighted):
    def bind(self, first, then):
        def bound(*args):
            x, before = first(*args)
            return then(x)(*args)[0], before

        return bound


@dataclass(frozen=True)
class UnitWeighsTwo(semantics.Weighted):
    def unit(self, value):
        return lambda *args: (value, jnp.log(2.0))


@dataclass(frozen=True)
class ScoresOnTheWrongScale(semantics.Weighted):
    def score(self, log_weight):
        return lambda *args: ((), jnp.exp(log_weight))


@dataclass(frozen=True)
class SumsWhereItShouldAverage(semantics.Populations):
    def bind(self, first, then):
        def bound(*args):
            both = super(SumsWhereItShouldAverage, self).bind(first, then)(*args)
            return replace(both, log_weight=both.log_weight + jnp.log(both.size / both.initial_size))

        return bound


@dataclass(frozen=True)
class ForgetsTheValueBefore(semantics.Programs):
    def bind(self, first, then):
        return lambda *args: then(jax.tree.map(jnp.zeros_like, first(*args)))(*args)


@dataclass(frozen=True)
class Discounts(semantics.Weighted):
    """What comes later weighs less."""

    def bind(self, first, then):
        def bound(*args):
            x, before = first(*args)
            y, after = then(x)(*args)
            return y, before + after / 2

        return bound


@dataclass(frozen=True)
class StopsTooEarly(semantics.Suspended):
    """Runs on, but loses what was weighed before each stop."""

    def meaning(self, computation):
        def light(resumption):
            first = lambda *args: (resumption.first(*args)[0], jnp.zeros(()))  # noqa: E731
            rest = resumption.rest
            return replace(resumption, first=first if rest else resumption.first, rest=rest and deeper(rest))

        def deeper(rest):
            return lambda state: light(rest(state))

        return semantics.Weighted().meaning(finish(light(computation)))


WRONG = [
    (ForgetsTheWeightBefore(), laws.scores_add),
    (ForgetsTheWeightBefore(), laws.importance),
    (ForgetsTheWeightAfter(), laws.scores_add),
    (UnitWeighsTwo(), laws.unit_is_one_value),
    (UnitWeighsTwo(), laws.left_unit),
    (UnitWeighsTwo(), laws.right_unit),
    (ScoresOnTheWrongScale(), laws.score_is_weight),
    (ScoresOnTheWrongScale(), laws.scores_add),
    (SumsWhereItShouldAverage(2), laws.left_unit),
    (SumsWhereItShouldAverage(2), laws.naturality),
    (ForgetsTheValueBefore(), laws.left_unit),
    (ForgetsTheValueBefore(), laws.importance),
    (Discounts(), laws.associativity),
    (Discounts(), laws.commutativity),
    (Discounts(), laws.naturality),
    (StopsTooEarly(), laws.importance),
]


@pytest.mark.parametrize(("wrong", "law"), WRONG, ids=lambda x: getattr(x, "__name__", type(x).__name__))
def test_a_wrong_representation_is_found(wrong, law):
    report = law(wrong)
    assert not report.holds and report.counterexample is not None


def test_a_failure_says_where():
    class TestWrong(RepresentationLaws):
        representation = UnitWeighsTwo()

    with pytest.raises(
        semantics.CheckFailed, match=r"bind\(unit\(x\), f\) = f\(x\), for UnitWeighs"
    ) as failure:
        TestWrong().test_the_units_of_bind()
    assert failure.value.report.counterexample is not None


def test_without_weights_the_laws_of_scores_do_not_apply():
    assert laws_of(semantics.Sampling()) == LAWS
    TestSampling().test_the_laws_of_scores()
