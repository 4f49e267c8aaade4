"""What is going on, on stderr, while it goes on.

While the compiled loop runs there is only a clock: a count of tokens would need a callback in the loop. That
hardly slows the loop, but JAX does not keep programs with callbacks in its compilation cache, so that every
start would compile for seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    """A line with a clock for each stage; nothing where stderr is no terminal, and nothing left when done."""

    def __init__(self, *, quiet: bool = False):
        console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            refresh_per_second=8,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *failure) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, description: str) -> Iterator[None]:
        """Shows ``description`` with a running clock while the block runs."""
        task = self._bars.add_task(description, total=None)
        yield
        self._bars.update(task, total=1, completed=1)
