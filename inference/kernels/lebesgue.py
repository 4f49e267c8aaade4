"""Which sites have a density over as many real numbers as their values are made of."""

from __future__ import annotations

import jax

from ...ppl import UnsupportedError
from ...ppl.bijection import bijection, obstacle
from ...ppl.effects import Effect
from ...ppl.staging import SiteInfo


def is_discrete(info: SiteInfo) -> bool:
    """Whether a site takes discrete values."""
    return _of_one_element(info, lambda effect: bool(effect.distribution.support.is_discrete))


def check_lebesgue(info: SiteInfo) -> None:
    """Refuses a site without a density with respect to Lebesgue measure on the numbers of its value."""
    if reason := _of_one_element(info, _reason):
        raise UnsupportedError(f"site {info} {reason}")


def _reason(effect: Effect) -> str | None:
    d = effect.distribution
    if reason := obstacle(d):
        return reason
    try:
        free = bijection(d).inverse_shape(d.shape())
    except NotImplementedError:
        free = None
    if free == d.shape():
        return None
    return (
        f"({type(d).__name__}) has values with fewer dimensions than numbers, so that no number can move alone: move "
        "it with inference.mh and a proposal"
    )


def _of_one_element(info: SiteInfo, ask):
    """What ``ask`` says of the effect of one element, whose parameters are not known."""
    answers = []
    jax.eval_shape(
        lambda *leaves: answers.append(ask(info.site.effect(leaves))), *info.site.unbatched(info.operands)
    )
    return answers[0]
