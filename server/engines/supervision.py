"""An engine's process: when it is seen to have died, and when another one is opened in its place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from engine.process import WorkerRuntime

FIRST_DELAY_SECONDS = 0.5
"""Before the first try to open an engine again; each failure in a row doubles it."""
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""An engine that served for so long has recovered: what comes then is a first failure again."""
MOST_FAILURES = 8
"""In a row; then it is given up, a minute of waiting after the first. What does not come back by then needs somebody to
look at it, or the restart of the whole server that `liveness` asks for."""


@dataclass
class Backoff:
    """How long to wait before an engine is opened again.

    Attributes:
        failures: In a row.
    """

    failures: int = 0

    def failed(self, served_seconds: float) -> float | None:
        """Count a failure.

        Args:
            served_seconds: How long the engine had served; 0 where it could not be opened.

        Returns:
            Seconds until the next try; None where it is given up.
        """
        self.failures = 1 if served_seconds >= STEADY_SECONDS else self.failures + 1
        if self.failures >= MOST_FAILURES:
            return None
        return float(min(FIRST_DELAY_SECONDS * 2 ** (self.failures - 1), LONGEST_DELAY_SECONDS))


class ProcessWatch:
    """Tells the event loop that an engine's process has ended, whether or not anybody asks anything of it.

    Args:
        process: The engine, open.
        ended: Told once.
    """

    def __init__(self, process: WorkerRuntime, ended: Callable[[], None]) -> None:
        self._process = process
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._fd: int | None = os.dup(process.sentinel)  # our own: the engine's thread closes the other one
        self._loop.add_reader(self._fd, self._on_end)

    def look(self) -> None:
        """Tell now, if it has ended and the loop has not heard of it yet."""
        if self._fd is not None and self._process.fate:
            self._on_end()

    def close(self) -> None:
        """Watch no more; a second call does nothing."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _on_end(self) -> None:
        self.close()
        self._ended()
