"""How long steps say how far they are, without knowing who listens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

Advance = Callable[[], None]
"""Says that one more unit of a step is done."""


class Progress(Protocol):
    """Where a build says what it is doing."""

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Announce a step.

        Args:
            title: What is being done, for a person.
            total: Units of work, or None where nobody can know.

        Returns:
            A context whose value is called once per finished unit.
        """

    def note(self, text: str) -> None:
        """Say something worth knowing that is no error."""


class Silent:
    """Says nothing: the default of the library."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Announce nothing."""
        yield lambda: None

    def note(self, text: str) -> None:
        """Keep it to oneself."""


class Bars:
    """Progress bars on standard error, so that standard output stays clean for pipes."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)  # as it is now: an export redirects it
        self._bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Show a bar until the step ends; a step of unknown length pulses."""
        task = self._bars.add_task(title, total=total)
        yield lambda: self._bars.advance(task)
        self._bars.update(task, total=total or 1, completed=total or 1)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(f"[yellow]note[/] {text}", highlight=False)


@contextmanager
def counter(progress: Progress, title: str, total: int) -> Iterator[Callable[[str, int, int], None]]:
    """A step for work that reports `(what, done, of how many)` instead of one unit at a time."""
    with progress.step(title, total) as advance:
        finished = 0

        def tell(_what: str, done: int, _of: int) -> None:
            nonlocal finished
            for _ in range(finished, done):
                advance()
            finished = max(finished, done)

        yield tell
