"""What our stream adds to an engine, one frame at a time, against the least that a gRPC stream can add.

    python -m benchmarks.stream                          the INT8 RepVGG-A0 shape, 150 kB frames
    python -m benchmarks.stream out/demo/bundle          any bundle that takes camera frames
    python -m benchmarks.stream --json out/stream.json

One frame after another, in random order, so that all see the same machine and nobody always the caches that the same
other has left, with raw frames of the engine's own size and one engine thread everywhere:

- bare: the engine in a hot loop of this process;
- bare stream: a `grpc.aio` handler at bytes level that copies the frame into the engine's input, runs it inside the
  handler and answers with its outputs. No decoding, no checks, no ledger, no metrics, no second client;
- server: `python -m server`, to the same bare client;
- server and client: the same, through our Python client.

Each server is a process of its own. Ratios are of the medians of one round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from rich.console import Console
from rich.table import Table

import client
from benchmarks import reference_model
from benchmarks.serving import Running, cpu_ns, machine, python, server, verdict
from client.bench.frames import picture
from engine.allocate import allocate
from engine.bundle import Bundle
from engine.manifest import Preprocessing
from engine.opening import open_runtime
from engine.slots import RegionTable
from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2

AIM = 1.08
"""Our server against the bare stream."""
SEED = 1
"""Of the order in which the ways are measured."""
STREAM_FRAMES = "/monocoque.v1.CameraStreamService/StreamFrames"
WAYS = ("bare", "bare stream", "server", "server and client")

Turn = Callable[[], Awaitable[None]]


def camera_input(bundle: Bundle) -> Preprocessing:
    """What the bundle wants of a frame.

    Raises:
        SystemExit: It takes no colour frames.
    """
    preprocessing = bundle.manifest.preprocessing
    if preprocessing is None or preprocessing.color == "gray":
        raise SystemExit(f"{bundle.path} takes no colour frames; build it with --mean, --std and --color rgb")
    return preprocessing


class Stages:
    """Server's ledgers: medians per stage."""

    def __init__(self) -> None:
        self._times: dict[str, list[int]] = {}

    def add(self, ledger: Any) -> None:  # noqa: ANN401 - a protobuf message
        """Take one ledger in."""
        for stage, value in ledger.ListFields():
            if stage.name not in ("received_at_ns", "answered_at_ns"):
                self._times.setdefault(stage.name.removesuffix("_ns"), []).append(value)

    def medians_ms(self) -> dict[str, float]:
        """By stage."""
        return {stage: statistics.median(values) / 1e6 for stage, values in self._times.items()}


async def bare_stream_turn(stack: contextlib.AsyncExitStack, running: Running, frame: bytes) -> Turn:
    """One frame through the bare stream."""
    call = await _open_call(stack, running.address, "/benchmark.Bare/Stream")

    async def turn() -> None:
        await call.write(frame)
        await call.read()

    return turn


async def server_turn(
    stack: contextlib.AsyncExitStack, running: Running, frame: memoryview, spec: Preprocessing, stages: Stages
) -> Turn:
    """One frame through our server, from a client that does nothing but write and read."""
    encoding = {"rgb": camera_pb2.ENCODING_RGB8, "bgr": camera_pb2.ENCODING_BGR8}[spec.color]
    call = await _open_call(stack, running.address, STREAM_FRAMES)
    camera = camera_pb2.Camera(id="one", width=spec.width, height=spec.height, encoding=encoding)
    opening = stream_pb2.Open(cameras=[camera], credits_with_results=True)
    await call.write(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
    await call.read()
    sequence = 0

    async def turn() -> None:
        nonlocal sequence
        sequence += 1
        header = camera_pb2.FrameHeader(
            camera_id="one", sequence=sequence, encoding=encoding, width=spec.width, height=spec.height
        )
        await call.write(wire.join(stream_pb2.StreamFramesRequest(frame=header), frame))
        while True:
            response = stream_pb2.StreamFramesResponse.FromString(await call.read())
            if response.HasField("result"):
                stages.add(response.result.ledger)
                return

    return turn


async def client_turn(stack: contextlib.AsyncExitStack, running: Running, frame: Any, spec: Preprocessing) -> Turn:  # noqa: ANN401 - an array
    """One frame through our server and our client."""
    connection = await stack.enter_async_context(client.connect(running.address))
    encoding: client.Encoding = "rgb8" if spec.color == "rgb" else "bgr8"
    camera = client.Camera("two", spec.width, spec.height, encoding)
    stream = await stack.enter_async_context(connection.stream([camera]))

    async def turn() -> None:
        stream.submit(client.Frame("two", frame))
        result = await anext(stream)
        if result.status != "ok":
            raise SystemExit(f"a frame was answered {result.status}: {result.reason}")

    return turn


async def _open_call(stack: contextlib.AsyncExitStack, address: str, method: str) -> Any:  # noqa: ANN401 - untyped
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    channel: Any = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
    call = channel.stream_stream(method)()
    stack.push_async_callback(call.done_writing)
    return call


async def measure(bundle_path: Path, rounds: int, frames: int) -> dict[str, Any]:
    """Medians per round by way in ns, and the server's stages and CPU time per frame."""
    bundle = Bundle.open(bundle_path)
    spec = camera_input(bundle)
    image = picture(spec.width, spec.height, seed=7)
    medians: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {"bare": [], "server": []}
    stages, shuffled = Stages(), np.random.default_rng(SEED)
    async with contextlib.AsyncExitStack() as stack:
        ours, other = (stack.enter_context(server(bundle_path, "--threads", "1")) for _ in range(2))
        bare = stack.enter_context(python("-m", "benchmarks.bare_stream", str(bundle_path)))
        regions = RegionTable()
        stack.callback(regions.close)
        runtime = open_runtime(bundle, "cpu", regions, threads=1)
        stack.callback(runtime.close)
        slots = stack.enter_context(allocate(runtime.describe(), regions, 1))
        slots.view(spec.input)[0] = image
        batch = slots.batch(1)

        async def hot_loop() -> None:
            runtime.run(batch)

        turns: dict[str, Turn] = {
            "bare": hot_loop,
            "bare stream": await bare_stream_turn(stack, bare, image.tobytes()),
            "server": await server_turn(stack, ours, image.data, spec, stages),
            "server and client": await client_turn(stack, other, image, spec),
        }
        for number in range(rounds + 1):  # the first warms everything up
            times: dict[str, list[int]] = {way: [] for way in WAYS}
            used = {"bare": 0, "server": 0}
            for _ in range(frames):
                for way in shuffled.permutation(list(turns)):
                    server_cpu, started_cpu = cpu_ns(ours.pid) if way == "server" else 0, time.process_time_ns()
                    started = time.perf_counter_ns()
                    await turns[way]()
                    times[way].append(time.perf_counter_ns() - started)
                    if way == "server":
                        used["server"] += cpu_ns(ours.pid) - server_cpu
                    elif way == "bare":
                        used["bare"] += time.process_time_ns() - started_cpu
            if number:
                for way, values in times.items():
                    medians[way].append(statistics.median(values))
                for name, value in used.items():
                    cpu[name].append(value / frames)
    return {"bundle": bundle.manifest.name, "medians_ns": medians, "stages_ms": stages.medians_ms(), "cpu_ns": cpu}


def ratios(found: dict[str, Any], way: str, to: str) -> list[float]:
    """Per round."""
    return [one / other for one, other in zip(found["medians_ns"][way], found["medians_ns"][to], strict=True)]


def report(console: Console, found: dict[str, Any], rounds: int, frames: int) -> None:
    """Print the tables."""
    table = Table(
        title=f"{found['bundle']}, one frame at a time, {rounds} rounds of {frames}; {machine()}", title_justify="left"
    )
    table.add_column("way")
    for name in ("ms", "x bare", "x bare stream", "of each round"):
        table.add_column(name, justify="right")
    for way in WAYS:
        to_stream = ratios(found, way, "bare stream")
        table.add_row(
            way,
            f"{statistics.median(found['medians_ns'][way]) / 1e6:.2f}",
            f"{statistics.median(ratios(found, way, 'bare')):.3f}",
            f"{statistics.median(to_stream):.3f}",
            f"{min(to_stream):.2f} to {max(to_stream):.2f}",
        )
    console.print(table)
    stages = ", ".join(f"{stage} {value:.3f}" for stage, value in found["stages_ms"].items())
    console.print(f"server's ledger, p50 ms: {stages}", highlight=False)
    used = {name: statistics.median(values) / 1e6 for name, values in found["cpu_ns"].items()}
    added = used["server"] - used["bare"]
    console.print(
        f"CPU time a frame, ms: bare {used['bare']:.2f}, server {used['server']:.2f}, so {added:.2f} around the engine",
        highlight=False,
    )
    console.print(
        verdict("server against the bare stream", statistics.median(ratios(found, "server", "bare stream")), AIM)
    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="takes colour frames (the RepVGG-A0 shape, built here)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="of each way per round (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    bundle = arguments.bundle or reference_model.camera_bundle()
    found = asyncio.run(measure(bundle, arguments.rounds, arguments.frames))
    report(Console(), found, arguments.rounds, arguments.frames)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
