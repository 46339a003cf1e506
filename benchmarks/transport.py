"""What it costs to get one frame to the engine and its answer back, against the least that gRPC itself takes.

    python -m benchmarks.transport
    python -m benchmarks.transport --size 640x384 --rounds 15 --json out/transport.json

One frame at a time, raw RGB, in interleaved rounds of one run, each server in a process of its own:

- echo: a bare gRPC handler at bytes level that takes the same bytes and answers with 200; nobody copies or parses.
- stream: our client and our server: the client's copy, checks, decoding, a tiny engine, the ledger, the result.
- shared memory: the same, with the pixels copied to a slot of the server's memory.
- slot: the same, with the pixels already there, as a camera that writes to the slot leaves them.
- handle echo: the bare handler with 200 bytes each way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from rich.console import Console
from rich.table import Table

import client
from benchmarks.tiny_engine import write_tiny_bundle

ROOT = Path(__file__).resolve().parents[1]
FRAMES_PER_ROUND = 30
ANSWER_BYTES = 200
ECHO_METHOD = "/benchmark.Echo/Stream"
WAYS = ("echo", "stream", "shared memory", "slot", "handle echo")
TARGETS = {"stream": 1.25}
"""At most this many times the echo."""

ECHO_SERVER = f"""
import asyncio, grpc.aio
from server.host.allocator import keep_large_buffers

async def stream(_, context):
    while isinstance(await context.read(), bytes):
        await context.write(bytes({ANSWER_BYTES}))

async def main():
    keep_large_buffers(256 << 20)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handlers = {{"Stream": grpc.stream_stream_rpc_method_handler(stream)}}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo at 127.0.0.1:{{port}}, metrics", flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[str]:
    """A Python process that says where it listens; yields the address."""
    started = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert started.stdout is not None  # noqa: S101 - it was asked for
    try:
        said = []
        for line in started.stdout:
            said.append(line)
            if found := re.search(r" at (\S+), metrics", line):
                yield found[1]
                break
        else:
            raise SystemExit(f"{' '.join(arguments)} did not start:\n{''.join(said)}")
    finally:
        started.terminate()
        started.communicate()


@contextlib.asynccontextmanager
async def echo_call(address: str) -> AsyncIterator[Any]:
    """One bidirectional call to the echo."""
    channel: Any  # the stubs know only calls with a serializer
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream(ECHO_METHOD)()
        yield call
        await call.done_writing()
        await call.read()


async def round_of(turn: Callable[[], Awaitable[None]]) -> float:
    """Median time of one turn, ns."""
    times = []
    for _ in range(FRAMES_PER_ROUND):
        started = time.perf_counter_ns()
        await turn()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times)


async def measure(width: int, height: int, rounds: int) -> dict[str, list[float]]:
    """Median ns per round, by way; the first round warms everything up and is left out."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    raw, handle = pixels.tobytes(), bytes(ANSWER_BYTES)
    camera = client.Camera("front", width, height, "rgb8")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        size = f"{width}x{height}"
        ours = stack.enter_context(
            process(
                "-m", "server", str(write_tiny_bundle(folder / "tiny")), "--port", "0", "--metrics-port", "0",
                "--threads", "1", "--max-frame", size,
            )
        )  # fmt: skip
        echo = await stack.enter_async_context(echo_call(stack.enter_context(process("-c", ECHO_SERVER))))
        connection = await stack.enter_async_context(client.connect(ours))

        async def echo_frame() -> None:
            await echo.write(raw)
            await echo.read()

        async def echo_handle() -> None:
            await echo.write(handle)
            await echo.read()

        async def answered(stream: client.Stream) -> None:
            result = await anext(stream)
            if result.status != "ok":
                raise SystemExit(f"a frame was answered {result.status}: {result.reason}")

        def submit(stream: client.Stream) -> Callable[[], Awaitable[None]]:
            async def turn() -> None:
                stream.submit(client.Frame("front", pixels))
                await answered(stream)

            return turn

        def write(stream: client.Stream) -> Callable[[], Awaitable[None]]:
            async def turn() -> None:
                with stream.slot("front"):
                    pass  # what a camera's driver would have written
                await answered(stream)

            return turn

        for number in range(rounds + 1):
            times = {"echo": await round_of(echo_frame)}
            async with connection.stream([camera]) as stream:
                await submit(stream)()
                times["stream"] = await round_of(submit(stream))
            async with connection.stream([camera], shared_memory=True) as stream:
                for _ in range(8):  # each slot once
                    await submit(stream)()
                times["shared memory"] = await round_of(submit(stream))
                times["slot"] = await round_of(write(stream))
            times["handle echo"] = await round_of(echo_handle)
            for way, value in times.items():
                found[way] += [value] if number else []
    return found


def report(console: Console, found: dict[str, list[float]], size: str, rounds: int) -> dict[str, Any]:
    """Print the table; returns it as data."""
    table = Table(
        "one frame there, its answer back", "ms", "ratio to echo", "of each round", "target",
        title=f"raw RGB {size}, {rounds} rounds of {FRAMES_PER_ROUND}",
    )  # fmt: skip
    rows = {}
    for way, times in found.items():
        ratios = [one / echo for one, echo in zip(times, found["echo"], strict=True)]
        target = TARGETS.get(way)
        rows[way] = {"ms": statistics.median(times) / 1e6, "ratio": statistics.median(ratios), "ratios": ratios}
        table.add_row(
            way,
            f"{statistics.median(times) / 1e6:.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            "" if target is None else f"<= {target}",
        )
    console.print(table)
    return {"size": size, "rounds": rounds, "ways": rows}


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080", help="frame size (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    found = report(Console(), asyncio.run(measure(width, height, arguments.rounds)), arguments.size, arguments.rounds)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
