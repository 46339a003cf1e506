"""Those who follow results: the newest per camera for each of them, and never a frame held up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from protos.monocoque.v1.stream_pb2 import WatchResultsResponse
from server.errors import LimitReached
from server.frames import CameraKey, OpenCamera
from server.observe.metrics import Metrics
from server.stream.answers import as_watched


class Watcher:
    """One subscriber: what it has not been sent yet, one result per camera.

    Args:
        camera_ids: Cameras it follows; none means all.
    """

    def __init__(self, camera_ids: Iterable[str]) -> None:
        self._camera_ids = frozenset(camera_ids)
        self._pending: dict[CameraKey, tuple[WatchResultsResponse, bytes]] = {}
        self._changed = asyncio.Event()
        self._finished = False

    def offer(self, camera: OpenCamera, result: bytes) -> bool:
        """Replace what waits of this camera; returns whether a result was missed."""
        if self._camera_ids and camera.key.camera_id not in self._camera_ids:
            return False
        replaced = self._pending.get(camera.key)  # its place in line is kept
        missed = replaced[0].missed + 1 if replaced is not None else 0
        head = WatchResultsResponse(stream_id=camera.key.stream_id, camera=camera.spec, missed=missed)
        self._pending[camera.key] = (head, result)
        self._changed.set()
        return replaced is not None

    def finish(self) -> None:
        """No result will come any more."""
        self._finished = True
        self._changed.set()

    async def next(self) -> bytes | None:
        """The newest result of the camera that waits longest; None when no more will come."""
        while not self._pending:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        return as_watched(*self._pending.pop(next(iter(self._pending))))


class Seats:
    """Room for everyone who follows something, results or the server's state.

    Args:
        limit: At the same time.
        metrics: Where they are counted.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._taken = 0

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """Take one.

        Raises:
            LimitReached: There is none left.
        """
        if self._taken >= self._limit:
            raise LimitReached(
                f"{self._taken} watchers follow results or the state, {self._limit} are allowed",
                remedy="start the server with a larger --max-watchers, or end another watcher",
            )
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._taken += more
        self._metrics.watchers().set(self._taken)


class Audience:
    """All subscribers.

    Args:
        metrics: Where what they miss is counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._watchers: set[Watcher] = set()

    def join(self, camera_ids: Iterable[str]) -> Watcher:
        """Add a subscriber."""
        watcher = Watcher(camera_ids)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Remove a subscriber."""
        self._watchers.discard(watcher)

    def publish(self, camera: OpenCamera, result: bytes) -> None:
        """Offer a result to everyone."""
        missed = sum(watcher.offer(camera, result) for watcher in self._watchers)
        if missed:
            self._metrics.watcher_missed().inc(missed)

    def finish(self) -> None:
        """Let everyone go."""
        for watcher in self._watchers:
            watcher.finish()
