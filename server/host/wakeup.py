"""Waking the event loop from another thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class Wakeup:
    """Has a callback run on the event loop soon after any thread asks for it; several asks may be one run.

    What `call_soon_threadsafe` does, for one callback that is known before: an eventfd(2) takes one call of the system
    to write and one to read, where asyncio's pair of sockets takes one and two, and nothing is made for each ask.

    Args:
        callback: What runs on the loop.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._counter: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(self._counter, self._run, self._counter)

    def ask(self) -> None:
        """Have it run; from any thread."""
        if self._counter is not None:
            os.eventfd_write(self._counter, 1)

    def _run(self, counter: int) -> None:
        os.eventfd_read(counter)
        self._callback()

    def close(self) -> None:
        """Nobody may ask any more."""
        if self._counter is not None:
            self._loop.remove_reader(self._counter)
            os.close(self._counter)
            self._counter = None
