"""The gRPC edge: bytes in, bytes out, and each error as the status code that the table says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from protos import wire
from protos.monocoque.v1 import state_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.core import Core
from server.errors import NeverOpened, NotReading, OutOfOrder, Superseded, ending
from server.stream.session import Session

log = logging.getLogger("monocoque.service")

SERVICE = pb.DESCRIPTOR.services_by_name["CameraStreamService"].full_name

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined] # missing from the stubs
OPEN_SECONDS = 10.0
"""For the first message of a stream. A call that says nothing, or half a message, takes the place of one that would."""
Context = Any
"""`grpc.aio.ServicerContext[bytes, bytes]`; its read and write are missing from the stubs' generic form."""


@dataclass
class _Named:
    """What the log calls a call: its stream's id, once it has one."""

    name: str = ""


class Service:
    """The handlers of `CameraStreamService`.

    Args:
        core: What they serve.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._drained = asyncio.Event()
        self._ending: set[asyncio.Task[Any]] = set()
        """Reads and writes of calls that are over, or about to be."""

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handlers without serializers: pixel bytes are never parsed."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamFrames": grpc.stream_stream_rpc_method_handler(self._stream_frames),
                "WatchResults": grpc.unary_stream_rpc_method_handler(self._watch_results),
                "WatchState": grpc.unary_stream_rpc_method_handler(self._watch_state),
                "GetEngine": grpc.unary_unary_rpc_method_handler(self._get_engine),
            },
        )

    def drain(self) -> None:
        """Stop reading frames; every stream then ends once its frames are answered."""
        self._core.drain()
        self._drained.set()

    async def _get_engine(self, request: bytes, context: Context) -> bytes:
        try:
            asked = pb.GetEngineRequest.FromString(request)
            return self._core.catalogue.find(asked.name, asked.version).served.response().SerializeToString()
        except Exception as error:
            refused = ending(error)
        await context.abort(*refused)
        raise AssertionError("abort raises")

    async def _watch_results(self, request: bytes, context: Context) -> None:
        ending = await _ending_of(self._serve_watcher(request, context))
        if ending is not None:
            await context.abort(*ending)

    async def _watch_state(self, request: bytes, context: Context) -> None:
        ending = await _ending_of(self._serve_state(request, context))
        if ending is not None:
            await context.abort(*ending)

    async def _stream_frames(self, _: object, context: Context) -> None:
        named = _Named()
        try:
            ending = await _ending_of(self._serve(context, named))
        except asyncio.CancelledError:
            self._ended_stream(context, named, "CANCELLED", "the client has left")
            raise
        if ending is None:
            self._ended_stream(context, named, "OK", "all answered")
            return
        self._ended_stream(context, named, ending[0].name, ending[1])
        await context.abort(*ending)

    def _ended_stream(self, context: Context, named: _Named, code: str, why: str) -> None:
        self._core.metrics.streams_ended(code).inc()
        if named.name:
            log.info("%s of %s ended: %s", named.name, context.peer(), why)
        else:
            log.info("a stream of %s did not open: %s", context.peer(), why)

    async def _serve_watcher(self, request: bytes, context: Context) -> None:
        self._core.check_not_draining()
        camera_ids = pb.WatchResultsRequest.FromString(request).camera_ids
        with self._core.seats.seat():
            watcher = self._core.audience.join(camera_ids)
            try:
                await context.send_initial_metadata(())  # tells the client that it follows from here on
                while (message := await watcher.next()) is not None:
                    await context.write(message)
            finally:
                self._core.audience.leave(watcher)

    async def _serve_state(self, request: bytes, context: Context) -> None:
        """Tell the state, also while draining, which is one."""
        state_pb2.WatchStateRequest.FromString(request)
        with self._core.seats.seat():
            watcher = self._core.state.join()
            try:
                while (status := await watcher.next()) is not None:
                    await context.write(status.message())
            finally:
                self._core.state.leave(watcher)

    async def _serve(self, context: Context, named: _Named) -> None:
        try:
            first = await asyncio.wait_for(_next(context), OPEN_SECONDS)
        except asyncio.TimeoutError:
            raise NeverOpened(
                f"no whole message came within {OPEN_SECONDS:g} s", remedy="send `open` as soon as the call is made"
            ) from None
        if first is EOF:
            raise OutOfOrder("the stream ended before its first message", remedy="send `open` first")
        request, _ = wire.split(first)
        if request.WhichOneof("message") != "open":
            raise OutOfOrder("the first message is not `open`", remedy="send `open` first")
        session = self._core.open(request.open)
        named.name = session.id
        log.info(
            "%s opened by %s: %s, %s",
            session.id,
            context.peer(),
            ", ".join(session.cameras),
            "every frame" if session.replays else "freshest frames",
        )
        try:
            await self._core.share_memory(session, request.open)
            # Awaited here: gRPC cannot abort a call whose first message is on its way.
            await context.write(
                pb.StreamFramesResponse(opened=self._core.opened(session, request.open)).SerializeToString()
            )
            await self._exchange(context, session)
        finally:
            self._core.close(session)
        self._core.finished(session)

    async def _exchange(self, context: Context, session: Session) -> None:
        """Read and write at the same time, until the client is done and has all its answers."""
        read, write, alarm, superseded, drained = tasks = [
            asyncio.ensure_future(_read(context, session)),
            asyncio.ensure_future(_write(context, session)),
            asyncio.ensure_future(_alarm(session)),
            asyncio.ensure_future(_superseded(session)),
            asyncio.ensure_future(self._drained.wait()),
        ]
        try:
            await _first(read, drained, write, alarm, superseded)
            read.cancel()
            await asyncio.wait({read})
            tasks.append(asyncio.ensure_future(session.answered()))
            await _first(tasks[-1], write, alarm, superseded)
            session.outbox.finish()
            await _first(write, alarm, superseded)
            if drained.done():
                self._core.check_not_draining()
        finally:
            session.close()
            session.outbox.close()
            for task in (alarm, superseded, drained, *tasks[5:]):
                task.cancel()
            # gRPC keeps the memory of a read or write that is cancelled; with their call, they end by themselves.
            for task in (read, write):
                self._ending.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            error.__traceback__ = None  # gRPC keeps the exception, and that the stream


async def _next(context: Context) -> bytes:
    """A client's next message; EOF where it sends no more. Where it has cancelled, the call's task is cancelled."""
    message: bytes = await context.read()
    if message is EOF:
        # A cancel ends the messages as well, and gRPC may tell that first. Another read comes back after both.
        await context.read()
    return message


async def _read(context: Context, session: Session) -> None:
    while not session.is_closed:
        message = await _next(context)
        if message is EOF or session.is_closed:
            return
        await session.receive(message)
        del message  # a frame must not be kept until the next one comes


async def _write(context: Context, session: Session) -> None:
    while (message := await session.outbox.next()) is not None:
        await context.write(message)


async def _alarm(session: Session) -> None:
    await session.outbox.full.wait()
    raise NotReading(
        f"{len(session.outbox)} results were not read",
        remedy="read results while sending frames",
    )


async def _superseded(session: Session) -> None:
    await asyncio.wait({session.superseded})  # a plain await would cancel it with its task
    raise Superseded(
        f"SUPERSEDED: {session.superseded.result()}",
        remedy="if that was another client, give each camera an id of its own",
    )


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one is done, and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _ending_of(call: Awaitable[None]) -> tuple[grpc.StatusCode, str] | None:
    """Code and details that a call ends with; None where it ends well.

    gRPC keeps the exception that `abort` raises, and with it whatever was handled at that moment. So the call must
    abort outside of any `except`, or its frames would stay in memory.
    """
    try:
        await call
    except grpc.aio.InternalError:  # gRPC takes no message for a client that has just left
        return grpc.StatusCode.CANCELLED, "the client has left"
    except Exception as error:
        return ending(error)
    return None
