"""Messages per second without an engine: 100 kB frames on eight streams, against the best bare gRPC echo of the run.

    python -m benchmarks.messages

The same client for all: `grpc.aio` at bytes level, four messages in flight per stream, as many as our credits allow.
The echoes take the bytes and answer with 200; one is `grpc.aio`, one the same with gRPC reading as our command has it
read (`server.host.grpc_core`), one has a thread per stream, and the fastest is the reference. Our server replays 100 kB
grey frames through an engine that does nothing, and does everything else: checks, scheduling, the thread of the engine,
ledger, metrics, the result.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc.aio
from rich.console import Console
from rich.table import Table

from benchmarks.engineless import HEIGHT, STREAMS, WIDTH
from benchmarks.serving import Running, cpu_ns, machine, python, verdict
from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2
from server.host import grpc_core

AIM = 0.60
IN_FLIGHT = 4
STREAM_FRAMES = "/monocoque.v1.CameraStreamService/StreamFrames"
READS_AS_WE_DO = {grpc_core.VARIABLE: grpc_core.READ_WHERE_POLLED}
"""What our command sets."""
WAYS: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "aio echo": (("benchmarks.echoes", "aio"), {}),
    "aio echo, reading as ours": (("benchmarks.echoes", "aio"), READS_AS_WE_DO),
    "threaded echo": (("benchmarks.echoes", "threads"), {}),
    "ours": (("benchmarks.engineless",), READS_AS_WE_DO),
}
"""Modules with their arguments, and what is added to the environment."""


async def _echo(call: Any, _camera_id: str, seconds: float) -> int:  # noqa: ANN401 - an untyped call
    """Messages answered on one stream."""
    message, answered, until = bytes(WIDTH * HEIGHT), 0, time.monotonic() + seconds
    for _ in range(IN_FLIGHT):
        await call.write(message)
    while time.monotonic() < until:
        await call.read()
        answered += 1
        await call.write(message)
    return answered


async def _frames(call: Any, camera_id: str, seconds: float) -> int:  # noqa: ANN401 - as above
    """Frames answered on one stream of ours."""
    camera = camera_pb2.Camera(id=camera_id, width=WIDTH, height=HEIGHT, encoding=camera_pb2.ENCODING_GRAY8)
    opening = stream_pb2.Open(cameras=[camera], policy=stream_pb2.POLICY_REPLAY, credits_with_results=True)
    await call.write(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
    await call.read()
    pixels, answered, until = bytes(WIDTH * HEIGHT), 0, time.monotonic() + seconds
    header = camera_pb2.FrameHeader(camera_id=camera_id, encoding=camera_pb2.ENCODING_GRAY8, width=WIDTH, height=HEIGHT)
    request = stream_pb2.StreamFramesRequest(frame=header)

    async def send() -> None:
        request.frame.sequence += 1
        await call.write(wire.join(request, pixels))

    for _ in range(IN_FLIGHT):
        await send()
    while time.monotonic() < until:
        # A message that is long is a result, a short one a credit: parsing is no part of what is compared.
        if len(await call.read()) > 64:
            answered += 1
            await send()
    return answered


@contextlib.asynccontextmanager
async def _calls(running: Running, method: str) -> AsyncIterator[list[Any]]:
    channel: Any
    async with grpc.aio.insecure_channel(running.address) as channel:
        calls = [channel.stream_stream(method)() for _ in range(STREAMS)]
        yield calls
        for call in calls:
            call.cancel()


async def rate(running: Running, way: str, seconds: float) -> tuple[float, float]:
    """Messages per second, and CPU time of the server per message in ns."""
    method, work = (STREAM_FRAMES, _frames) if way == "ours" else ("/benchmark.Echo/Stream", _echo)
    async with _calls(running, method) as calls:
        used, started = cpu_ns(running.pid), time.monotonic()
        answered = sum(
            await asyncio.gather(*(work(call, f"camera_{number}", seconds) for number, call in enumerate(calls)))
        )
        return answered / (time.monotonic() - started), (cpu_ns(running.pid) - used) / max(1, answered)


async def measure(rounds: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Every way in each round."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        servers = {
            way: stack.enter_context(python("-m", *module, environment=environment))
            for way, (module, environment) in WAYS.items()
        }
        for number in range(rounds + 1):
            for way, running in servers.items():
                measured = await rate(running, way, seconds if number else 0.5)
                if number:  # the first warms up
                    found[way].append(measured)
    return found


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each way per round (%(default)g)")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rounds, arguments.seconds))
    rates = {way: [one for one, _ in values] for way, values in found.items()}
    best = max((way for way in WAYS if way != "ours"), key=lambda way: statistics.median(rates[way]))
    console = Console()
    table = Table(title=f"{WIDTH * HEIGHT / 1e3:.0f} kB, {STREAMS} streams; {machine()}", title_justify="left")
    table.add_column("server")
    for name in ("messages/s", "of the best echo", "of each round", "server's CPU µs"):
        table.add_column(name, justify="right")
    for way in WAYS:
        shares = [one / other for one, other in zip(rates[way], rates[best], strict=True)]
        table.add_row(
            way,
            f"{statistics.median(rates[way]):.0f}",
            f"{statistics.median(shares):.2f}",
            f"{min(shares):.2f} to {max(shares):.2f}",
            f"{statistics.median(cpu for _, cpu in found[way]) / 1e3:.0f}",
        )
    console.print(table)
    share = statistics.median(one / other for one, other in zip(rates["ours"], rates[best], strict=True))
    console.print(verdict(f"ours of the {best}", share, AIM, at_least=True))


if __name__ == "__main__":
    main()
