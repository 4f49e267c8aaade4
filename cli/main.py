"""The `borelax` command: reads and checks the arguments, and turns errors into one line and an exit code.

JAX and the models are imported only once the arguments are known to be good, so that help and mistakes are
answered at once.

Exit codes: 0 done; 1 done, but no particle has any weight; 2 a mistake in what was asked; 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import current_thread, main_thread

# What the library knows by these names, spelled out so that help needs no imports; a test compares them.
RESAMPLERS = ("systematic", "stratified", "multinomial", "residual", "killing", "ssp")
TRUNCATIONS = ("truncate", "condition_on_ending", "reachable")
USES = ("both", "factor", "proposal")

INTERRUPTED, MISTAKEN = 130, 2
_EXTRA = {"flax", "huggingface_hub", "jaxtyping", "rich", "safetensors", "tokenizers"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
      argv: the arguments after the program's name; those of this process by default.
    """
    try:
        options = _parser().parse_args(argv)
        return options.run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as finished:  # argparse after --help and --version
        return int(finished.code or 0)
    except Exception as error:
        if not _is_mistake(error):
            raise
        print(f"borelax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISTAKEN


class UsageError(Exception):
    """Arguments that make no sense."""


def _is_mistake(error: Exception) -> bool:
    """Whether an error is the user's to mend, and says how; any other is ours, and keeps its traceback."""
    if isinstance(error, UsageError):
        return True
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        error.msg = f"{error.name} is not installed; language models need: pip install 'borelax[lm]'"
        return True
    errors = sys.modules.get(
        f"{__package__.rpartition('.')[0]}.ppl.errors"
    )  # if not there, it raised nothing
    return errors is not None and isinstance(error, errors.BorelaxError)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="borelax", description="Probabilistic programs in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"borelax {version('borelax')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_steer(commands)
    return parser


def _add_steer(commands) -> None:
    parser = commands.add_parser(
        "steer",
        help="write texts with a language model under a constraint, by sequential Monte Carlo",
        description="Continues a prompt with many weighted texts (particles). Under a constraint, they stand "
        "for the model's own distribution conditioned on the constraint, and the log evidence says how "
        "likely the model is to meet it unasked.",
        epilog="exit codes: 0 done; 1 done, but every particle died; 2 a mistake in what was asked; "
        "130 interrupted",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_steer)
    add = parser.add_argument
    add("prompt", metavar="PROMPT", type=_prompt, help="the text to continue")

    what = parser.add_argument_group("what to write")
    add = what.add_argument
    add(
        "--model",
        default="smollm2-135m",
        help="a catalogued name, a folder, a .gguf file, or a hub name OWNER/MODEL",
    )
    add("--regex", metavar="R", type=_pattern, help="what the continuation must match (Python's syntax)")
    add("--max-tokens", metavar="T", type=_positive_int, default=32, help="tokens per text (default 32)")
    add(
        "--stop",
        metavar="S",
        action="append",
        type=_stop,
        default=[],
        help="a text ends once it contains S; repeatable",
    )
    add("--temperature", metavar="X", type=_positive, default=1.0, help="of the model (default 1)")
    add(
        "--truncation",
        choices=TRUNCATIONS,
        default="truncate",
        help="what becomes of texts that are not finished when their tokens run out (default truncate)",
    )

    how = parser.add_argument_group("how to search")
    add = how.add_argument
    add("--particles", metavar="N", type=_positive_int, default=32, help="how many texts (default 32)")
    add(
        "--use",
        choices=USES,
        default="both",
        help="the constraint as a proposal, as a factor, or both (default both)",
    )
    add("--resampler", choices=RESAMPLERS, default="systematic", help="(default systematic)")
    add(
        "--ess-threshold",
        metavar="X",
        type=_not_negative,
        default=0.5,
        help="resample when the effective sample size is below X times N (default 0.5)",
    )
    add("--seed", type=_seed, default=0, help="the same seed gives the same texts (default 0)")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the model's matrices (default float32)",
    )

    out = parser.add_argument_group("output")
    add = out.add_argument
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--html", metavar="FILE", type=Path, help="also write a page with the particles and their genealogy")
    add("--quiet", action="store_true", help="show no progress")


def _steer(options: argparse.Namespace) -> int:
    if options.html is not None:
        _check_writable(options.html)
    with _interrupts_later():
        from .steer import steer
    return steer(options)


@contextmanager
def _interrupts_later():
    """Puts Ctrl-C off until the block is done: modules written in C turn it into errors while they load."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() != main_thread():
        yield
        return
    interrupts = []
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt


def _check_writable(path: Path) -> None:
    """Finds out before a long run, rather than after it, that its result cannot be kept."""
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise UsageError(f"argument --html: cannot write {str(path)!r}: {error.strerror}") from error
    if not existed:
        path.unlink()


# ------------------------------------------------------------------ types of arguments


def _prompt(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; a language model needs something to continue")
    return text


def _stop(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a stop string must not be empty")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text


def _number(kind: type, text: str, condition, requirement: str):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not condition(number):
        raise argparse.ArgumentTypeError(f"must be {requirement}, got {text!r}")
    return number


def _positive_int(text: str) -> int:
    return _number(int, text, lambda x: x >= 1, "a positive integer")


def _positive(text: str) -> float:
    return _number(float, text, lambda x: 0 < x < float("inf"), "a positive number")


def _not_negative(text: str) -> float:
    return _number(float, text, lambda x: 0 <= x < float("inf"), "a number, at least 0")


def _seed(text: str) -> int:
    return _number(int, text, lambda x: 0 <= x < 2**32, "an integer from 0 to 4294967295")
