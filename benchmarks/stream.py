"""What the server adds to the engine, and what six cameras at full rate get from it.

    python benchmarks/stream.py out/bundle
    python benchmarks/stream.py out/bundle --threads 2 --seconds 20 --json out/stream.json

Everything is measured in one run, in interleaved rounds, and told as ratios: absolute times belong to a machine and
its mood. The engine has the same threads on both sides. One request at a time for the round trip; six cameras
through our client, in real time, for the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import grpc.aio
import numpy as np
from rich.console import Console
from rich.table import Table

import client
from engine.allocate import allocate
from engine.bundle import Bundle
from engine.manifest import Preprocessing
from engine.opening import open_runtime
from engine.slots import RegionTable
from protos import wire
from protos.monocoque.v1 import camera_pb2, result_pb2, stream_pb2

ROUNDS = 7
PAIRS_PER_ROUND = 40
CAMERAS = ("front_wide", "front_narrow", "left_front", "right_front", "left_rear", "right_rear")
FRAMES_PER_SECOND = 30
STREAM_FRAMES = "/monocoque.v1.CameraStreamService/StreamFrames"


@dataclass
class RoundTrip:
    """Times of one request at a time, in nanoseconds, one median per round.

    Attributes:
        bare: The runtime alone, in a hot loop of this process.
        through: Client's send to client's receipt.
        stages: Server's ledger, per stage, over all rounds.
        bare_cpu: CPU time of one execution, which other processes on the machine hardly change.
        server_cpu: CPU time of the server's process for one frame, all its threads together.
    """

    bare: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    stages: dict[str, list[int]] = field(default_factory=dict)
    bare_cpu: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)

    def add(self, bare: list[int], through: list[int], results: list[result_pb2.Result]) -> None:
        """Take in a round."""
        self.bare.append(statistics.median(bare))
        self.through.append(statistics.median(through))
        for result in results:
            for stage, value in result.ledger.ListFields():
                if stage.name not in ("received_at_ns", "answered_at_ns"):
                    self.stages.setdefault(stage.name.removesuffix("_ns"), []).append(value)


def scene(width: int, height: int) -> np.ndarray:
    """A picture that is about as hard to compress as a road."""
    noise = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@contextlib.asynccontextmanager
async def server(bundle: Path, threads: int) -> AsyncIterator[tuple[str, int]]:
    """A server in a process of its own; yields its address and its process id."""
    command = [sys.executable, "-m", "server", str(bundle), "--port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", str(threads)], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    log = process.stderr or sys.stdin
    try:
        for line in log:
            if found := re.search(r"serving .* at (\S+), metrics", line):
                yield found[1], process.pid
                break
        else:
            raise SystemExit(f"the server did not start: {' '.join(command)}")
    finally:
        process.terminate()
        process.wait()
        log.close()


def _cpu_ns(pid: int) -> int:
    """CPU time of a process so far, all threads, in steps of a clock tick. proc(5): utime, stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


async def round_trips(bundle: Bundle, preprocessing: Preprocessing, address: str, pid: int, threads: int) -> RoundTrip:
    """The runtime alone and through the server, in turns, with raw frames of the network's own size."""
    width, height = preprocessing.width, preprocessing.height
    frame = scene(width, height)
    encoding = {"rgb": camera_pb2.ENCODING_RGB8, "bgr": camera_pb2.ENCODING_BGR8}[preprocessing.color]
    regions = RegionTable()
    runtime = open_runtime(bundle, "cpu", regions, threads=threads)
    found = RoundTrip()
    channel: Any  # at bytes level; the stubs know only calls with a serializer
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(STREAM_FRAMES)()
        camera = camera_pb2.Camera(id="one", width=width, height=height, encoding=encoding)
        await call.write(stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera])).SerializeToString())
        await call.read()
        with allocate(runtime.describe(), regions, 1) as slots:
            slots.view(preprocessing.input)[0] = frame
            batch = slots.batch(1)
            sequence = 0
            for round_number in range(ROUNDS + 1):  # the first warms both up
                bare, through, results = [], [], []
                bare_cpu, server_cpu = 0, _cpu_ns(pid)
                for _ in range(PAIRS_PER_ROUND):  # in turns, so that both see the same machine
                    started, started_cpu = time.perf_counter_ns(), time.process_time_ns()
                    runtime.run(batch)
                    bare_cpu += time.process_time_ns() - started_cpu
                    bare.append(time.perf_counter_ns() - started)
                    header = camera_pb2.FrameHeader(
                        camera_id="one", sequence=sequence, encoding=encoding, width=width, height=height
                    )
                    sequence += 1
                    started = time.perf_counter_ns()
                    await call.write(wire.join(stream_pb2.StreamFramesRequest(frame=header), frame.data))
                    results.append(await _next_result(call))
                    through.append(time.perf_counter_ns() - started)
                if round_number:
                    found.add(bare, through, results)
                    found.bare_cpu.append(bare_cpu / PAIRS_PER_ROUND)
                    found.server_cpu.append((_cpu_ns(pid) - server_cpu) / PAIRS_PER_ROUND)
        await call.done_writing()
    runtime.close()
    regions.close()
    return found


async def _next_result(call: Any) -> Any:  # noqa: ANN401 - the stubs know no untyped call
    while True:
        response = stream_pb2.StreamFramesResponse.FromString(await call.read())
        if response.HasField("result"):
            return response.result


@dataclass
class Load:
    """What six cameras got.

    Attributes:
        name: The frames.
        frame_bytes: Bytes of one frame.
        seconds: How long it ran.
        submitted: Frames that the cameras took.
        statuses: Frames by what became of them; `client_dropped` never left the client.
        ages_ns: Capture to the result's return, by the client's clock, of frames that were computed.
    """

    name: str
    frame_bytes: int
    seconds: float
    submitted: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    ages_ns: list[int] = field(default_factory=list)


async def six_cameras(
    address: str, name: str, encoding: client.Encoding, width: int, height: int, seconds: float
) -> Load:
    """Six cameras at 30 frames/s, their shutters spread evenly over the period."""
    picture = scene(width, height)
    pixels = client.encode(picture, encoding)
    cameras = [client.Camera(camera, width, height, encoding) for camera in CAMERAS]
    load = Load(name, pixels.nbytes if isinstance(pixels, np.ndarray) else len(pixels), seconds)
    async with client.connect(address) as connection, connection.stream(cameras) as stream:

        async def read() -> None:
            async for result in stream:
                load.statuses[result.status] += 1
                if result.status == "ok" and result.age.returned_ns is not None:
                    load.ages_ns.append(result.age.returned_ns)

        reading = asyncio.ensure_future(read())
        started = time.monotonic()
        shots = int(seconds * FRAMES_PER_SECOND * len(CAMERAS))
        for shot in range(shots):
            due = started + shot / (FRAMES_PER_SECOND * len(CAMERAS))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            stream.submit(client.Frame(CAMERAS[shot % len(CAMERAS)], pixels, capture_time_ns=int(due * 1e9)))
            load.submitted += 1
        await stream.finish()
        await reading
        load.seconds = time.monotonic() - started
        load.statuses["client_dropped"] = sum(counts.client_dropped for counts in stream.counts.values())
    return load


def report(console: Console, trip: RoundTrip, loads: list[Load], threads: int, bundle: Bundle) -> dict[str, Any]:
    """Print the tables; returns them as data."""
    bare, through = statistics.median(trip.bare), statistics.median(trip.through)
    console.print(
        f"[bold]{bundle.manifest.name}[/] on cpu, engine threads on both sides: {threads}, "
        f"cores: {os.cpu_count()}, {ROUNDS} rounds of {PAIRS_PER_ROUND} pairs"
    )
    table = Table("one frame at a time", "ms", "ratio to bare")
    table.add_row("bare runtime, p50", f"{bare / 1e6:.2f}", "1.00")
    table.add_row("through the server, p50", f"{through / 1e6:.2f}", f"{through / bare:.2f}")
    for stage, values in trip.stages.items():
        median = statistics.median(values)
        table.add_row(f"  {stage}", f"{median / 1e6:.3f}", f"{median / bare:.3f}")
    bare_cpu, server_cpu = statistics.median(trip.bare_cpu), statistics.median(trip.server_cpu)
    table.add_row("CPU time, bare", f"{bare_cpu / 1e6:.2f}", "1.00")
    table.add_row("CPU time, server", f"{server_cpu / 1e6:.2f}", f"{server_cpu / bare_cpu:.2f}")
    console.print(table)
    possible = min(1e9 / bare, float(FRAMES_PER_SECOND * len(CAMERAS)))
    load_table = Table(
        "six cameras x 30 frames/s", "ok/s", "of possible", "age p50/p99 ms", "stale", "late", "failed", "unsent"
    )
    rows = []
    for load in loads:
        p50, p99 = (float(value) / 1e6 for value in np.percentile(load.ages_ns or [0], [50, 99]))
        rate = load.statuses["ok"] / load.seconds
        rows.append(
            {
                "frames": load.name,
                "frame_bytes": load.frame_bytes,
                "submitted": load.submitted,
                "ok_per_second": rate,
                "share_of_possible": rate / possible,
                "age_p50_ms": p50,
                "age_p99_ms": p99,
                "statuses": dict(load.statuses),
            }
        )
        load_table.add_row(
            load.name,
            f"{rate:.0f}",
            f"{rate / possible:.2f}",
            f"{p50:.1f} / {p99:.1f}",
            *(str(load.statuses[status]) for status in ("stale", "late", "failed", "client_dropped")),
        )
    console.print(load_table)
    console.print(
        f"possible: {possible:.0f}/s, the lesser of what the cameras take and the bare runtime computes. "
        "stale: replaced in the server; unsent: replaced in the client, which had no credit for them"
    )
    return {
        "engine": bundle.manifest.name,
        "digest": bundle.digest,
        "threads": threads,
        "cores": os.cpu_count(),
        "bare_p50_ms": bare / 1e6,
        "through_p50_ms": through / 1e6,
        "ratio": through / bare,
        "bare_cpu_ms": bare_cpu / 1e6,
        "server_cpu_ms": server_cpu / 1e6,
        "cpu_ratio": server_cpu / bare_cpu,
        "ratios_per_round": [one / other for one, other in zip(trip.through, trip.bare, strict=True)],
        "stages_p50_ms": {stage: statistics.median(values) / 1e6 for stage, values in trip.stages.items()},
        "six_cameras": rows,
    }


async def measure(arguments: argparse.Namespace) -> None:
    """Run everything."""
    bundle = Bundle.open(arguments.bundle)
    preprocessing = bundle.manifest.preprocessing
    if preprocessing is None or preprocessing.color == "gray":
        raise SystemExit(f"{arguments.bundle} takes no colour frames; build it with --mean, --std and --color rgb")
    width, height = preprocessing.width, preprocessing.height
    async with server(arguments.bundle, arguments.threads) as (address, pid):
        trip = await round_trips(bundle, preprocessing, address, pid, arguments.threads)
    loads = []
    kinds: tuple[tuple[str, client.Encoding, int, int], ...] = (
        (f"JPEG {width}x{height}", "jpeg", width, height),
        (f"raw {width}x{height}", "rgb8", width, height),
        ("JPEG 1920x1080", "jpeg", 1920, 1080),
        ("raw 1920x1080", "rgb8", 1920, 1080),
    )
    for name, encoding, columns, rows in kinds:
        async with server(arguments.bundle, arguments.threads) as (address, _):
            loads.append(await six_cameras(address, name, encoding, columns, rows, arguments.seconds))
    found = report(Console(), trip, loads, arguments.threads, bundle)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="engine bundle that takes colour frames")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each six-camera run (default: 10)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
