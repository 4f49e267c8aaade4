"""How long `import borelax.ppl` takes, against `import numpyro`, which is on every borelax user's path anyway.

Each import runs in a fresh process, the two in turn, so that whatever else the machine does falls on both. The
ratio of the medians should be at most 1.3.

    python benchmarks/import_time.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

TARGET = 1.3
OURS, THEIRS = "borelax.ppl", "numpyro"
TIMED_IMPORT = """
import sys, time
start = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - start)
"""


def import_seconds(module: str) -> float:
    """Seconds that one import takes in a new process, without the interpreter's own start."""
    command = [sys.executable, "-c", TIMED_IMPORT, module]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=15, help="imports of each, after one that is not counted"
    )
    options = parser.parse_args()

    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for repeat in range(options.repeats + 1):
        for module, times in seconds.items():
            spent = import_seconds(module)
            if repeat:  # the first reads the files from disk and may compile them
                times.append(spent)
    for module, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        print(f"import {module:12} {median:6.2f} s   (quartiles {low:.2f}, {high:.2f}; {len(times)} imports)")
    ratio = statistics.median(seconds[OURS]) / statistics.median(seconds[THEIRS])
    print(f"ratio of medians    {ratio:6.2f}     (target: at most {TARGET})")


if __name__ == "__main__":
    main()
