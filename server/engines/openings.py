"""Engines and bundles that are being opened: that may take minutes, and only the end of a process cuts it short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from server.errors import Draining

log = logging.getLogger("monocoque.engine")

Result = TypeVar("Result")


class Openings:
    """What is being opened, for whoever would wait for it. On the event loop."""

    def __init__(self) -> None:
        self._names: dict[asyncio.Future[Any], str] = {}
        self._given_up = asyncio.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        """Of the two above: an engine's process is begun on its own thread."""

    @property
    def names(self) -> Sequence[str]:
        """What is being opened now, waited for or not."""
        return tuple(self._names.values())

    def give_up(self) -> None:
        """Wait for none of them any more, for good. Those in processes of their own end with these."""
        if self._names and not self._given_up.is_set():
            log.warning("%s is still being opened: not waiting for it", ", ".join(self.names))
        with self._lock:
            self._given_up.set()
            for process in self._processes:
                process.kill()

    @contextlib.contextmanager
    def ending(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """While an engine is opened in a process, on any thread: killed where the openings are given up."""
        with self._lock:
            self._processes.add(process)
            if self._given_up.is_set():
                process.kill()
        try:
            yield
        finally:
            with self._lock:
                self._processes.discard(process)

    def check(self) -> None:
        """Refuse to begin another one that nobody would wait for.

        Raises:
            Draining: They were given up.
        """
        if self._given_up.is_set():
            raise Draining("the server is shutting down", remedy="connect again once it is back")

    def begin(self, name: str, opening: Future[Result]) -> asyncio.Future[Result]:
        """Take note of an opening that another thread has begun.

        Args:
            name: Of what is opened.
            opening: Done when it is open, or failed to open.

        Returns:
            The same, for this event loop.
        """
        opened = asyncio.wrap_future(opening)
        self._names[opened] = name
        opened.add_done_callback(self._end)
        return opened

    async def result(self, opened: asyncio.Future[Result]) -> Result:
        """Wait for an opening.

        Raises:
            Draining: They were given up first.
            Exception: Whatever it failed with.
        """
        if not await self.finished(opened):
            self.check()
        return opened.result()

    async def finished(self, opened: asyncio.Future[Any]) -> bool:
        """Wait for an opening; returns False where they were given up first."""
        giving_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait({opened, giving_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving_up.cancel()
        return opened.done()

    def _end(self, opened: asyncio.Future[Any]) -> None:
        del self._names[opened]
        if not opened.cancelled():
            opened.exception()  # nobody else may look at it
