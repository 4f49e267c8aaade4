"""`python -m borelax.cli` is the `borelax` command."""

import os
import sys

from .main import INTERRUPTED, main


def run() -> None:
    """Runs the command as a process of its own."""
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        os._exit(code)  # otherwise the interpreter would wait for what JAX is still computing
    sys.exit(code)


if __name__ == "__main__":
    run()
