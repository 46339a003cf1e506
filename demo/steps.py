"""Runs the demo's steps as a person would type them, and keeps the time each took."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from demo.errors import DemoError


class Steps:
    """Announces each step, numbered, and times it.

    Args:
        console: Where to announce.
        total: How many steps there will be.

    Attributes:
        seconds: Time per step, by its name.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._total = total

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step: a heading before it, its time kept after it."""
        number = len(self.seconds) + 1
        self.console.print(f"\n[bold cyan]{number}/{self._total}[/] [bold]{escape(title)}[/]", highlight=False)
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 1)

    def run(self, arguments: Sequence[str]) -> None:
        """Run `python -m ARGUMENTS`; what it prints is seen as it comes.

        Raises:
            DemoError: It failed.
        """
        typed = shlex.join(["python", "-m", *arguments])
        self.console.print(f"[dim]$ {escape(typed)}[/]", highlight=False, soft_wrap=True)
        done = subprocess.run([sys.executable, "-m", *arguments], check=False)  # noqa: S603 - our own commands
        if done.returncode:
            raise DemoError(f"exit code {done.returncode} of the command above\n  → run it alone: {typed}")
