"""What a run found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text as Line

if TYPE_CHECKING:
    from .steer import Steered, Text

_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Merged:
    """The particles that wrote the same text.

    Attributes:
      text: what they wrote.
      weight: their joint share.
      slots: their final slots.
      is_cut: whether the text ran out of tokens, rather than end.
    """

    text: str
    weight: float
    slots: list[int]
    is_cut: bool


def merge(particles: Iterable[Text]) -> list[Merged]:
    """Particles by text, the heaviest first."""
    groups: dict[tuple[str, bool], list[int]] = {}
    particles = list(particles)
    for slot, particle in enumerate(particles):
        groups.setdefault((particle.text, particle.ending == "max_tokens"), []).append(slot)
    merged = [
        Merged(text, sum(particles[slot].weight for slot in slots), slots, is_cut)
        for (text, is_cut), slots in groups.items()
    ]
    return sorted(merged, key=lambda group: -group.weight)


def negligible_share(n: int) -> float:
    """The share of the weight of n particles below which one is not worth showing: it would print as 0.0%."""
    return min(0.0005, 0.1 / n)


def split_negligible(groups: list[Merged], n: int) -> tuple[list[Merged], list[Merged]]:
    """The groups worth showing, and the others; if none has any weight, all are worth showing."""
    shown = [group for group in groups if group.weight >= negligible_share(n)]
    return (shown, groups[len(shown) :]) if shown else (groups, [])


def describe_negligible(count: int, n: int) -> str:
    """The line that stands for groups not shown."""
    return f"{count} more of less than {100 * negligible_share(n):.2g}% of the weight each"


def settings(options) -> list[tuple[str, str]]:
    """What was asked, as names and values."""
    pairs = [("model", options.model), ("particles", options.particles), ("tokens", options.max_tokens)]
    pairs += [("seed", options.seed), ("temperature", options.temperature), ("dtype", options.dtype)]
    if options.regex is not None:
        pairs += [("regex", repr(options.regex)), ("truncation", options.truncation), ("use", options.use)]
    pairs += [("stop", repr(string)) for string in options.stop]
    pairs += [("resampler", options.resampler), ("ESS threshold", options.ess_threshold)]
    return [(name, f"{value:g}" if isinstance(value, float) else str(value)) for name, value in pairs]


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {name: version(name) for name in ("borelax", "jax", "jaxlib")}


def mourning(steered: Steered) -> str:
    """What to say when no particle has weight."""
    if any(math.isnan(particle.log_weight) for particle in steered.particles):
        return "some log weights are not numbers, so that the particles stand for nothing"
    n, where = len(steered.particles), f"'{steered.died}'" if steered.died else "some factor"
    remedy = {
        "text.ending": "no text met the constraint in time: try --truncation reachable, or more --max-tokens",
        "text.constraint": "no text kept to the constraint: try --use both, or more --particles",
    }
    return f"all {n} particles died at {where}; {remedy.get(steered.died, 'try more --particles')}"


def warn(steered: Steered) -> None:
    """Says on stderr that no particle has weight."""
    print(f"borelax: warning: {mourning(steered)}", file=sys.stderr)


# ------------------------------------------------------------------ JSON


def print_json(steered: Steered) -> None:
    """Prints one JSON object, on one line."""
    print(json.dumps(as_json(steered), allow_nan=False))


def as_json(steered: Steered) -> dict[str, Any]:
    """A run as strict JSON: numbers that JSON cannot express are null, and ``nulls`` says what they are."""
    options, nulls = steered.options, {}

    def number(name: str, x: float) -> float | None:
        if math.isfinite(x):
            return float(x)
        nulls[name] = "not a number" if math.isnan(x) else f"{'minus ' if x < 0 else ''}infinity"
        return None

    particles = [
        {
            "text": particle.text,
            "tokens": particle.tokens,
            "log_weight": number("log_weight", particle.log_weight),
            "ending": particle.ending,
        }
        for particle in steered.particles
    ]
    return {
        "prompt": options.prompt,
        "model": options.model,
        "regex": options.regex,
        "seed": options.seed,
        "settings": {
            "max_tokens": options.max_tokens,
            "stop": options.stop,
            "temperature": options.temperature,
            "truncation": options.truncation,
            "use": options.use,
            "resampler": options.resampler,
            "ess_threshold": options.ess_threshold,
            "dtype": options.dtype,
        },
        "particles": particles,
        "log_evidence": number("log_evidence", steered.log_evidence),
        "log_evidence_se": number("log_evidence_se", steered.log_evidence_se),
        "ess": number("ess", steered.ess),
        "resamplings": steered.resamplings,
        "died": steered.died,
        "nulls": nulls,
        "timings": {name: round(seconds, 4) for name, seconds in steered.timings.items()},
        "versions": versions(),
    }


# ------------------------------------------------------------------ the table


def print_table(steered: Steered) -> None:
    """Prints the particles, the heaviest first, and what they say together."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    options, groups = steered.options, merge(steered.particles)
    n = len(steered.particles)
    shown, negligible = split_negligible(groups, n)
    if not options.quiet:
        console.print(Line(" · ".join(f"{name} {value}" for name, value in settings(options)), style="dim"))
    console.print(Line(options.prompt, style="bold"))
    console.print(_table(shown))
    if negligible:
        console.print(Line(f"  and {describe_negligible(len(negligible), n)}", style="dim"))
    console.print(_totals(steered, len(groups)))


def _table(groups: list[Merged]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("weight", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True, style="dim")
    table.add_column("text", overflow="fold")
    heaviest = max((group.weight for group in groups), default=0.0) or 1.0
    for group in groups:
        bar = Line(_bar(group.weight / heaviest), style="cyan")
        text = Line(_on_one_line(group.text))
        text.append(" …" if group.is_cut else "", style="dim")
        style = None if group.weight > 0 else "dim"
        table.add_row(f"{group.weight:.1%}", bar, str(len(group.slots)), text, style=style)
    return table


def _totals(steered: Steered, distinct: int) -> Line:
    timings = steered.timings
    error = f" ± {steered.log_evidence_se:.2f}" if math.isfinite(steered.log_evidence_se) else ""
    parts = [
        f"log evidence {steered.log_evidence:.2f}{error}",
        f"ESS {steered.ess:.1f} of {len(steered.particles)}",
        f"{distinct} distinct text{'s' * (distinct != 1)}",
        f"{steered.resamplings} resampling{'s' * (steered.resamplings != 1)}",
    ]
    line = Line("   ".join(parts))
    times = (f"{name} {timings[f'{name}_s']:.1f} s" for name in ("load", "compile", "run"))
    return line.append(f"\n{'   '.join(times)}   {timings['tokens_per_s']:.0f} tokens/s", style="dim")


def _bar(fraction: float, width: int = 10) -> str:
    """A horizontal bar in eighths of a character."""
    eighths = round(fraction * width * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _on_one_line(text: str) -> str:
    """Line breaks and other control characters made visible."""
    return "".join("↵" if c == "\n" else c if c.isprintable() else "·" for c in text).strip(" ")
