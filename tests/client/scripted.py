"""A small server that speaks the proto, and misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from client.clock import host_identity
from protos import wire
from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1 import result_pb2 as r
from protos.monocoque.v1 import stream_pb2 as s

Context = Any
StreamHandler = Callable[["Script", Context], Awaitable[None]]


@dataclass
class Script:
    """What the server does, and what it has seen.

    Attributes:
        handler: Runs each stream.
        credits: Of `Opened`.
        clock_offset_ns: The server's monotonic clock minus ours; not 0: it does not accept ours as its own.
    """

    handler: StreamHandler
    credits: int = 2
    max_width: int = 1920
    max_height: int = 1080
    max_frame_bytes: int = 1920 * 1080 * 3
    clock_offset_ns: int = 0
    engine: s.GetEngineResponse = field(
        default_factory=lambda: s.GetEngineResponse(
            name="scripted",
            version="1",
            digest="ab" * 32,
            backend="onnxruntime",
            precision="fp32",
            target="cpu",
            labels=["car", "truck"],
            max_batch=1,
            memory_bytes={"weights": 1_000_000},
            outputs=[s.TensorSpec(name="drivable", dtype="float32", shape=[1, 4, 4])],
        )
    )
    opens: list[s.Open] = field(default_factory=list)
    frames: list[tuple[str, int, int]] = field(default_factory=list)
    pixels: list[bytes] = field(default_factory=list)
    watched: list[s.WatchResultsResponse] = field(default_factory=list)

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.clock_offset_ns

    def watch_again(self, camera: camera_pb2.Camera, times: int, missed: int = 0) -> None:
        """Give every watcher so many results of a camera."""
        frame = s.StreamFramesRequest(frame=camera_pb2.FrameHeader(camera_id=camera.id))
        result = s.StreamFramesResponse.FromString(answer(frame, 0, 1)).result
        self.watched += [s.WatchResultsResponse(stream_id="s1", camera=camera, result=result, missed=missed)] * times

    async def open(self, context: Context) -> s.Open:
        """Read `Open` and answer it."""
        request, _ = wire.split(await context.read())
        assert request.HasField("open")
        self.opens.append(request.open)
        same = not self.clock_offset_ns and request.open.clock.boot_id == (host_identity() or ("",))[0]
        await context.write(
            s.StreamFramesResponse(
                opened=s.Opened(
                    stream_id="s1",
                    credits=self.credits,
                    max_frame_bytes=self.max_frame_bytes,
                    max_width=self.max_width,
                    max_height=self.max_height,
                    engine_digest="ab" * 32,
                    clock_kind=s.CLOCK_KIND_SAME_HOST_MONOTONIC if same else s.CLOCK_KIND_UNKNOWN,
                    labels=["car", "truck"],
                )
            ).SerializeToString()
        )
        return request.open

    async def requests(self, context: Context) -> AsyncIterator[tuple[s.StreamFramesRequest, bytes, int]]:
        """Frames and probes with their pixels and receipt times; ends when the client has finished."""
        while isinstance(message := await context.read(), bytes):
            received = self.now_ns()
            request, pixels = wire.split(message)
            if request.HasField("frame"):
                self.frames.append((request.frame.camera_id, request.frame.sequence, request.frame.client_dropped))
                self.pixels.append(bytes(pixels))
            yield request, bytes(pixels), received


def answer(request: s.StreamFramesRequest, received_ns: int, answered_ns: int, **more: Any) -> bytes:
    """A result of a frame; its transport is known where `more` says so."""
    frame = request.frame
    ledger = more.pop("ledger", None) or r.Ledger(
        queue_ns=1000, inference_ns=answered_ns - received_ns - 1000, total_ns=answered_ns - received_ns,
        received_at_ns=received_ns, answered_at_ns=answered_ns,
    )  # fmt: skip
    fields: dict[str, Any] = {"status": r.STATUS_OK, "valid": True, "batch_size": 1} | more
    result = r.Result(
        camera_id=frame.camera_id, sequence=frame.sequence, capture_time_ns=frame.capture_time_ns,
        ledger=ledger, age=r.Age(age_ns=answered_ns - frame.capture_time_ns), **fields,
    )  # fmt: skip
    return s.StreamFramesResponse(result=result).SerializeToString()


def credit(camera_id: str, frames: int = 1) -> bytes:
    return s.StreamFramesResponse(credit=s.Credit(camera_id=camera_id, frames=frames)).SerializeToString()


CAR = r.Detection(class_index=0, label="car", score=0.9, x_min=10, y_min=12, x_max=30, y_max=28, distance_m=14.5)


async def well_behaved(script: Script, context: Context) -> None:
    """Give credit back on receipt, and answer every frame at once with a car."""
    await script.open(context)
    async for request, _, received in script.requests(context):
        if request.HasField("clock_probe"):
            reply = s.ClockReply(
                client_time_ns=request.clock_probe.client_time_ns,
                server_receive_time_ns=received,
                server_send_time_ns=script.now_ns(),
            )
            await context.write(s.StreamFramesResponse(clock_reply=reply).SerializeToString())
            continue
        await context.write(credit(request.frame.camera_id))
        if script.clock_offset_ns:
            await context.write(answer(request, received, script.now_ns(), detections=[CAR]))
        else:
            answered = script.now_ns()
            transport = received - request.frame.client_send_time_ns
            ledger = r.Ledger(
                transport_ns=transport, queue_ns=0, inference_ns=answered - received,
                total_ns=transport + answered - received, received_at_ns=received, answered_at_ns=answered,
            )  # fmt: skip
            await context.write(answer(request, received, answered, detections=[CAR], ledger=ledger))


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, script: Script) -> None:
        self._script = script

    def service(self, details: Any) -> Any:
        name = details.method.rsplit("/", 1)[-1]
        script = self._script
        if name == "StreamFrames":

            async def stream(_: Any, context: Context) -> None:
                await script.handler(script, context)

            return grpc.stream_stream_rpc_method_handler(stream)
        if name == "GetEngine":

            async def engine(_: bytes, __: Context) -> bytes:
                return script.engine.SerializeToString()

            return grpc.unary_unary_rpc_method_handler(engine)
        if name == "WatchResults":

            async def watch(_: bytes, context: Context) -> None:
                for message in script.watched:
                    await context.write(message.SerializeToString())

            return grpc.unary_stream_rpc_method_handler(watch)
        return None


async def listen(script: Script, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    """Start it; gives the server and its address."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_Handler(script),))
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """Run it on a free port of the loopback; gives the address."""
    server, address = await listen(script)
    try:
        yield address
    finally:
        await server.stop(None)


@contextlib.contextmanager
def serving_in_thread(script: Script) -> Iterator[str]:
    """The same for tests without an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server, address = asyncio.run_coroutine_threadsafe(listen(script), loop).result()
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
