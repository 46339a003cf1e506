"""The first batches of an engine that took another's place, while that one waits to take over again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from server.engines.instances import Instances

BATCHES = 8
"""Until the old engine is let go: its memory is held for so long."""
PATIENCE_SECONDS = 2.0
"""For whoever asked for the swap to hear what became of the new engine's first batch."""


class Probation:
    """Hands back to the old engine as soon as the new one fails a batch.

    Args:
        old: The engine that was served.
        new: The engine that is served now.
        ended: Told on the event loop, once: what went wrong, or nothing once the new engine has computed enough.
    """

    def __init__(self, old: Instances, new: Instances, ended: Callable[[Probation, str], None]) -> None:
        self.old = old
        self.new = new
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[str] = self._loop.create_future()
        self._lock = threading.Lock()
        self._computed = 0
        self._over = False

    def begin(self) -> None:
        """Cut over: the old engine finishes what it has, the new one takes what comes next."""
        self.new.judge(self.judge)
        self.old.pause()
        self.new.serve()

    def conclude(self) -> bool:
        """Judge no more; returns False where it was over already."""
        with self._lock:
            over, self._over = self._over, True
        return not over

    async def first_batch(self) -> str:
        """Wait for the new engine's first batch, if there is one soon; returns what went wrong with it."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._first), PATIENCE_SECONDS)
        return ""

    def judge(self, fault: str) -> bool:
        """Take note of a batch, before it is answered and before the new engine takes more, or of its process's end.

        Args:
            fault: What went wrong; empty where nothing did.

        Returns:
            Whether there was still something to judge.
        """
        with self._lock:
            if self._over:
                return False
            self._computed += 1
            self._over = bool(fault) or self._computed >= BATCHES
            if fault:
                self.new.pause()
                self.old.resume()
            over, first = self._over, self._computed == 1
        if over or first:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._tell, fault, over)
        return True

    def _tell(self, fault: str, over: bool) -> None:
        if over:
            self._ended(self, fault)
        if not self._first.done():
            self._first.set_result(fault)
