"""A run as one self-contained HTML page: its particles, and who descends from whom."""

from __future__ import annotations

import json
import math
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .drawing import draw
from .report import (
    Merged,
    describe_negligible,
    merge,
    mourning,
    negligible_share,
    settings,
    split_negligible,
    versions,
)

if TYPE_CHECKING:
    from .steer import Steered

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(steered: Steered, path: Path) -> None:
    """Writes the page. Raises OSError if it cannot."""
    path.write_text(page(steered), encoding="utf-8")


def page(steered: Steered) -> str:
    """The page's HTML."""
    groups = merge(steered.particles)
    options = steered.options
    words, overview = draw(steered, with_words=True), draw(steered, with_words=False)
    words_first = options.particles <= 40 and options.max_tokens <= 40
    parts = {
        "prompt": escape(options.prompt),
        "title": escape(" ".join(options.prompt.split())[:60]),
        "regex": f'<code class="regex">{escape(options.regex)}</code>' if options.regex is not None else "",
        "warning": f'<p class="warning">{escape(mourning(steered))}</p>' if steered.is_dead else "",
        "facts": "".join(map(_fact, _facts(steered, len(groups)))),
        "particles": _tables(groups, steered),
        "negligible": f"{100 * negligible_share(options.particles):.2g}%",
        "words": words,
        "overview": overview,
        "words_checked": "checked" if words_first else "",
        "overview_checked": "" if words_first else "checked",
        "settings": "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in settings(options)),
        "timings": " · ".join(_timings(steered)),
        "versions": " · ".join(f"{escape(k)} {escape(v)}" for k, v in versions().items()),
        "data": _script(_data(steered)),
    }
    # One pass, so that what a model wrote is never taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def _facts(steered: Steered, distinct: int) -> list[tuple[str, str, str]]:
    """Name, value, and a remark."""
    n = len(steered.particles)
    se = steered.log_evidence_se
    evidence = "−∞" if steered.log_evidence == -math.inf else _signed(steered.log_evidence)
    return [
        ("log evidence", evidence, f"± {se:.2f}" if math.isfinite(se) else ""),
        ("effective sample size", f"{steered.ess:.1f}", f"of {n}"),
        ("distinct texts", str(distinct), f"of {n}"),
        ("resamplings", str(steered.resamplings), f"in {steered.options.max_tokens} steps"),
        ("tokens per second", f"{steered.timings['tokens_per_s']:.0f}", ""),
    ]


def _fact(fact: tuple[str, str, str]) -> str:
    name, value, remark = map(escape, fact)
    return f"<div><dt>{name}</dt><dd>{value} <small>{remark}</small></dd></div>"


def _tables(groups: list[Merged], steered: Steered) -> str:
    """The particles that matter, and, folded, those that do not."""
    n = len(steered.particles)
    shown, negligible = (
        "".join(_row(group, groups[0].weight, steered) for group in part)
        for part in split_negligible(groups, n)
    )
    table = f"<table><tbody>\n{shown}</tbody></table>"
    if negligible:
        summary = describe_negligible(negligible.count("<tr"), n)
        table += f"\n<details><summary>{summary}</summary>"
        table += f"<table><tbody>\n{negligible}</tbody></table></details>"
    return table


def _row(group: Merged, heaviest: float, steered: Steered) -> str:
    length = 100 * group.weight / heaviest if heaviest > 0 else 0
    log_weight = max(steered.particles[slot].log_weight for slot in group.slots)
    ending = '<span class="cut" title="ran out of tokens">…</span>' if group.is_cut else ""
    text = f'<span class="written">{escape(group.text)}</span>{ending}'
    weight = "−∞" if log_weight == -math.inf else _signed(log_weight)
    return (
        f'<tr data-slots="{" ".join(map(str, group.slots))}"{"" if group.weight > 0 else " class=dead"}>'
        f'<td class="bar"><i style="width:{length:.1f}%"></i></td><td class="number">{group.weight:.1%}</td>'
        f'<td class="number dim">{"×" + str(len(group.slots)) if len(group.slots) > 1 else ""}</td>'
        f'<td class="text">{text}</td><td class="number dim">{weight}</td></tr>\n'
    )


def _signed(x: float) -> str:
    return f"{x:.2f}".replace("-", "−")


def _timings(steered: Steered) -> list[str]:
    return [f"{name} {steered.timings[f'{name}_s']:.1f} s" for name in ("load", "compile", "run")]


# ------------------------------------------------------------------ what hovering shows


def _data(steered: Steered) -> dict:
    """The genealogy for the page's script. Bytes are written as characters U+0000 to U+00FF."""
    ancestry = steered.ancestry
    ids, index = np.unique(ancestry.tokens, return_inverse=True)
    return {
        "spellings": [steered.spellings[int(i)].decode("latin-1") for i in ids],
        "tokens": index.reshape(ancestry.tokens.shape).tolist(),
        "drawn": steered.drawn.astype(int).tolist(),
        "parents": ancestry.parents.tolist(),
        "logWeight": [[_rounded(x) for x in row] for row in ancestry.log_weight],
        "share": [[float(f"{x:.3g}") for x in row] for row in ancestry.share],
        "ess": [_rounded(x) for x in ancestry.ess],
        "logEvidence": [_rounded(x) for x in ancestry.log_evidence],
    }


def _rounded(x: float) -> float | None:
    return round(float(x), 2) if math.isfinite(x) else None


def _script(data: dict) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
