"""The same client without `async`: an event loop in a thread of its own, behind plain calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from client.clock import StreamClock
from client.connection import Connection, Watched
from client.engine import Engine, Opened
from client.frames import Camera, Frame, Image
from client.outbox import Counts
from client.results import Result
from client.rpc import DEFAULT_ADDRESS
from client.sets import SurroundSet
from client.shared_memory import Slot
from client.state import ServerState
from client.stream import Policy, Stream

T = TypeVar("T")

SETTLE_SECONDS = 1.0
"""For what gRPC still waits for in a loop that is about to be closed. It comes within milliseconds."""


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="monocoque-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop's thread, and wait for what it returns or raises."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread, once gRPC has nothing more to tell this loop: another loop would stumble over it then."""
        self.run(_settled())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _settled() -> None:
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=SETTLE_SECONDS)


def _each(loop: _Loop, following: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an async generator yields, and its end when nobody asks for more."""

    async def read() -> T | None:
        return await anext(following, None)

    try:
        while (found := loop.run(read())) is not None:
            yield found
    finally:
        loop.run(following.aclose())


class SyncStream:
    """`Stream` without `async`; may be used from several threads, for example one that submits and one that reads."""

    def __init__(self, loop: _Loop, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def opened(self) -> Opened:
        """What the server granted."""
        return self._stream.opened

    @property
    def counts(self) -> Mapping[str, Counts]:
        """Frames submitted, dropped, sent and answered so far, by camera."""
        return self._stream.counts

    @property
    def undelivered(self) -> int:
        """Frames sent that have no answer (yet)."""
        return self._stream.undelivered

    @property
    def clock_steps(self) -> int:
        """How often the server's clock or this one was seen to step; see `Stream.clock_steps`."""
        return self._stream.clock_steps

    def submit(self, frame: Frame) -> int:
        """Offer a frame of a live stream; see `Stream.submit`."""

        async def submit() -> int:
            return self._stream.submit(frame)

        return self._loop.run(submit())

    @contextlib.contextmanager
    def slot(
        self,
        camera_id: str,
        *,
        capture_time_ns: int | None = None,
        max_age_ns: int | None = None,
        context: object = None,
    ) -> Iterator[Image]:
        """Write a frame where the server reads it; see `Stream.slot`."""

        async def begin() -> tuple[Slot, Image]:
            return self._stream.begin_slot(camera_id)

        async def end(frame: Frame | None) -> None:
            self._stream.end_slot(camera_id, slot, frame)

        slot, pixels = self._loop.run(begin())
        frame: Frame | None = None
        try:
            yield pixels
            frame = Frame(camera_id, pixels, capture_time_ns, max_age_ns=max_age_ns, context=context)
        finally:
            self._loop.run(end(frame))

    def send(self, frame: Frame) -> int:
        """Send a frame for certain; see `Stream.send`."""
        return self._loop.run(self._stream.send(frame))

    def finish(self) -> None:
        """Send no more frames; see `Stream.finish`."""
        self._loop.run(self._stream.finish())

    def sets(self) -> Iterator[SurroundSet]:
        """The sets; see `Stream.sets`."""
        following = self._stream.sets()

        async def read() -> SurroundSet | None:
            return await anext(following, None)

        while (found := self._loop.run(read())) is not None:
            yield found

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        async def read() -> Result | None:
            try:
                return await self._stream.__anext__()
            except StopAsyncIteration:
                return None

        result = self._loop.run(read())
        if result is None:
            raise StopIteration
        return result

    def __enter__(self) -> SyncStream:
        self._loop.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._stream.close())


class SyncConnection:
    """`Connection` without `async`, made by `connect_sync`; open inside `with`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop: _Loop | None = None

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    def engine(self) -> Engine:
        """Which engine the server serves."""
        return self._running().run(self._connection.engine())

    def stream(
        self,
        cameras: Sequence[Camera],
        *,
        policy: Policy = "live",
        clock: StreamClock | None = None,
        priority: int = 0,
        max_age_ns: int = 0,
        tensors: Sequence[str] = (),
        shared_memory: bool = False,
        sets: bool = False,
        set_tolerance_ns: int = 0,
        engine: str = "",
        engine_version: str = "",
    ) -> SyncStream:
        """A stream of these cameras' frames; see `Connection.stream`."""
        loop = self._running()

        async def make() -> Stream:
            return self._connection.stream(
                cameras,
                policy=policy,
                clock=clock,
                priority=priority,
                max_age_ns=max_age_ns,
                tensors=tensors,
                shared_memory=shared_memory,
                sets=sets,
                set_tolerance_ns=set_tolerance_ns,
                engine=engine,
                engine_version=engine_version,
            )

        return SyncStream(loop, loop.run(make()))

    def watch(self, camera_ids: Sequence[str] = ()) -> Iterator[Watched]:
        """Follow the results of all streams; see `Connection.watch`."""
        return _each(self._running(), self._connection.watch(camera_ids))

    def watch_state(self) -> Iterator[ServerState]:
        """Follow what the server can do; see `Connection.watch_state`."""
        return _each(self._running(), self._connection.watch_state())

    def __enter__(self) -> SyncConnection:
        self._loop = _Loop()
        try:
            self._loop.run(self._connection.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = self._running()
        loop.run(self._connection.__aexit__(kind, error, traceback))
        loop.stop()
        self._loop = None

    def _running(self) -> _Loop:
        if self._loop is None:
            raise RuntimeError("the connection is not open; use it inside `with client.connect_sync(...)`")
        return self._loop


def connect_sync(
    address: str = DEFAULT_ADDRESS,
    *,
    wait_seconds: float = 0.0,
    credentials: grpc.ChannelCredentials | None = None,
) -> SyncConnection:
    """Connect to a server, without `async`; the arguments are those of `connect`.

    ```python
    with client.connect_sync() as server, server.stream(cameras) as stream:
        stream.submit(client.Frame("front", pixels))
        result = next(stream)
    ```
    """
    return SyncConnection(Connection(address, wait_seconds, credentials))
