"""The metronome: a thread that does nothing but sleep until the next frame is due."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable

from client.bench.schedule import Shot


class Pacer:
    """Calls back on the event loop when each shot is due.

    An event loop rounds its timers up to a millisecond; a thread of its own wakes within 0.1 ms.

    Args:
        shots: What is due when.
        started_ns: Start of the run, in the monotonic clock.
        offer: Called on the loop with each shot.
        ended: Called on the loop after the last one, or after `stop`.
    """

    def __init__(
        self, shots: Iterable[Shot], started_ns: int, offer: Callable[[Shot], None], ended: Callable[[], None]
    ) -> None:
        self._shots = shots
        self._started_ns = started_ns
        self._offer = offer
        self._ended = ended
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Offer nothing more."""
        self._stop.set()

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            for shot in self._shots:
                wait_ns = self._started_ns + shot.due_ns - time.monotonic_ns()
                if self._stop.is_set() or (wait_ns > 0 and self._stop.wait(wait_ns / 1e9)):
                    break
                self._loop.call_soon_threadsafe(self._offer, shot)
            self._loop.call_soon_threadsafe(self._ended)
