"""A connection to a server: its engine, streams of frames, and everybody's results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType

import grpc
import grpc.aio

from client.clock import StreamClock
from client.engine import Engine, engine_from_proto
from client.errors import ClientError, Rejected, ServerUnreachable
from client.frames import Camera
from client.results import Result, result_from_proto
from client.rpc import DEFAULT_ADDRESS, GET_ENGINE, WATCH_RESULTS, WATCH_STATE, error_of, open_channel
from client.state import ServerState, state_from_proto
from client.stream import Policy, Stream
from protos.monocoque.v1 import state_pb2, stream_pb2

CALL_SECONDS = 10.0
"""How long a unary call may take."""

RETRY_SECONDS = 0.2
"""Pause between two attempts to reach a server that is starting."""


@dataclass(frozen=True)
class Watched:
    """A result of some stream, as a watcher sees it.

    Attributes:
        stream_id: Which stream.
        camera: The camera, as its stream declared it.
        result: Its newest result.
        missed: Results of this camera that this watcher missed since the last one it got.
    """

    stream_id: str
    camera: Camera
    result: Result
    missed: int


class Connection:
    """A server that has answered, made by `connect`; open inside `async with`.

    Args:
        address: `host:port`, or `unix:/path`.
        wait_seconds: How long to try while nobody listens there yet.
        credentials: For TLS; None: plain.
    """

    def __init__(
        self, address: str, wait_seconds: float = 0.0, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.address = address
        self._wait_seconds = wait_seconds
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None

    async def engine(self) -> Engine:
        """Which engine the server serves."""
        call = self._open_channel().unary_unary(
            GET_ENGINE,
            request_serializer=stream_pb2.GetEngineRequest.SerializeToString,
            response_deserializer=stream_pb2.GetEngineResponse.FromString,
        )
        try:
            return engine_from_proto(await call(stream_pb2.GetEngineRequest(), timeout=CALL_SECONDS))
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "", self.address) from None

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
    ) -> Stream:
        """A stream of these cameras' frames; opens in `async with`.

        Args:
            cameras: Whose frames follow.
            policy: `live`: the freshest frame of each camera. `replay`: every frame, in order.
            clock: What capture times mean; None: this host's monotonic clock (`time.monotonic_ns`).
            priority: Streams of a higher priority are served first.
            max_age_ns: Age at which an answer is of no use any more; 0: none.
            tensors: Dense outputs to answer beside detections, for example `drivable`.
            shared_memory: Whether frames go through memory that the server shares instead of gRPC; for a server on
                this host.
            sets: Whether the cameras' frames of one moment are computed as one; `Stream.sets` then follows them.
            set_tolerance_ns: Frames further apart in their capture times are of different sets; 0: 20 ms.
            engine: Name of the engine; empty: the server's first.
            engine_version: Its version, which then no other takes the place of; empty: the newest.
        """
        return Stream(
            self._open_channel(),
            self.address,
            cameras,
            policy,
            clock or StreamClock(),
            priority,
            max_age_ns,
            tensors,
            shared_memory,
            stream_pb2.Sets(tolerance_ns=set_tolerance_ns) if sets else None,
            engine,
            engine_version,
        )

    async def watch(self, camera_ids: Sequence[str] = ()) -> AsyncGenerator[Watched, None]:
        """Follow the results of all streams. A watcher that is slow misses results; it delays nobody.

        Args:
            camera_ids: Cameras to follow; none means all.
        """
        call = self._open_channel().unary_stream(
            WATCH_RESULTS,
            request_serializer=stream_pb2.WatchResultsRequest.SerializeToString,
            response_deserializer=stream_pb2.WatchResultsResponse.FromString,
        )(stream_pb2.WatchResultsRequest(camera_ids=camera_ids))
        try:
            async for message in call:
                yield Watched(
                    stream_id=message.stream_id,
                    camera=Camera.from_proto(message.camera),
                    result=result_from_proto(message.result),
                    missed=message.missed,
                )
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "", self.address, was_there=True) from None
        finally:
            call.cancel()

    async def watch_state(self) -> AsyncGenerator[ServerState, None]:
        """Follow what the server can do: its state now, then every change until it ends.

        Who reads slowly gets the newest state only.
        """
        call = self._open_channel().unary_stream(
            WATCH_STATE,
            request_serializer=state_pb2.WatchStateRequest.SerializeToString,
            response_deserializer=state_pb2.WatchStateResponse.FromString,
        )(state_pb2.WatchStateRequest())
        try:
            async for message in call:
                yield state_from_proto(message)
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "", self.address, was_there=True) from None
        finally:
            call.cancel()

    async def __aenter__(self) -> Connection:
        deadline = time.monotonic() + self._wait_seconds
        self._channel = open_channel(self.address, self._credentials)
        try:
            while not await self._answers(last_try=time.monotonic() >= deadline):
                await asyncio.sleep(RETRY_SECONDS)
        except BaseException:
            await self._channel.close(None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close(None)

    async def _answers(self, last_try: bool) -> bool:
        try:
            await self.engine()
        except ServerUnreachable:
            if last_try:
                raise
            return False
        except Rejected:  # it answers, though it has no engine to tell of
            return True
        return True

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise ClientError("the connection is not open; use it inside `async with client.connect(...)`")
        return self._channel


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    wait_seconds: float = 0.0,
    credentials: grpc.ChannelCredentials | None = None,
) -> Connection:
    """Connect to a server.

    ```python
    async with client.connect("127.0.0.1:8001") as server:
        async with server.stream(cameras) as stream:
            stream.submit(client.Frame("front", pixels))
            async for result in stream:
                print(result.status, result.detections)
    ```

    Args:
        address: `host:port`, or `unix:/path`.
        wait_seconds: How long to try while nobody listens there yet; 0: fail at once.
        credentials: For TLS; None: plain.

    Raises:
        ServerUnreachable: On entering: nobody answers.
    """
    return Connection(address, wait_seconds, credentials)
