"""What a hot swap costs the slowest frames: p99 of windows in which the engine is swapped, over those without.

    python -m benchmarks.swap

Six cameras at a steady rate below what the engine can do. The bundle is swapped for the same network under another
version, back and forth, one swap in every second window. Latency counts from when a frame was due; every frame that was
offered must have its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import grpc.aio
from rich.console import Console

import client
from benchmarks import reference_model
from benchmarks.serving import Running, machine, server, verdict
from client.bench.closed_loop import measure_capacity
from client.bench.frames import load
from client.bench.open_loop import run_open_loop
from client.bench.record import percentile
from engine.bundle import MANIFEST, Bundle, BundleWriter
from protos.monocoque.v1 import admin_pb2

AIM = 1.5
SHARE = 0.5
"""Of the engine's rate."""


def another_version(bundle: Path, path: Path) -> Path:
    """A copy of a bundle under another version."""
    old = Bundle.open(bundle)
    writer = BundleWriter()
    for name in old.manifest.files:
        writer.add(name, old.read(name))
    manifest = old.manifest.model_copy(update={"version": f"{old.manifest.version}-swapped", "files": writer.entries()})
    reports = {name: old.read(name) for name in old.names if name.startswith("report.")}
    writer.write(path, manifest, reports)
    if not (path / MANIFEST).is_file():
        raise SystemExit(f"{path} was not written")
    return path


async def swap(address: str, bundle: Path) -> None:
    """Swap the server's engine."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/monocoque.v1.AdminService/SwapEngine",
            request_serializer=admin_pb2.SwapEngineRequest.SerializeToString,
            response_deserializer=admin_pb2.SwapEngineResponse.FromString,
        )
        await call(admin_pb2.SwapEngineRequest(bundle=str(bundle.absolute())))


async def measure(running: Running, bundles: list[Path], pairs: int, seconds: float) -> tuple[list[float], int]:
    """Ratios of neighbouring windows, with a swap over without; and frames without an answer."""
    frames = load(6, ["rgb8"], 224, 224)
    ratios, unanswered = [], 0
    async with client.connect(running.address) as connection:
        capacity = await measure_capacity(connection, frames, 2.0, stop=asyncio.Event())
        rate = SHARE * capacity / 6
        await run_open_loop(connection, frames, rate, 1.0, stop=asyncio.Event())  # warms up
        for number in range(pairs):
            quiet = await run_open_loop(connection, frames, rate, seconds, stop=asyncio.Event())
            window = asyncio.ensure_future(run_open_loop(connection, frames, rate, seconds, stop=asyncio.Event()))
            await asyncio.sleep(seconds / 3)
            await swap(running.address, bundles[(number + 1) % 2])
            swapped = await window
            ratios.append(percentile(swapped.computed_ms(), 99) / percentile(quiet.computed_ms(), 99))
            unanswered += swapped.counts["unanswered"] + quiet.counts["unanswered"]
    return ratios, unanswered


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="takes colour frames (the RepVGG-A0 shape, built here)")
    parser.add_argument("--pairs", type=int, default=5, help="windows without and with (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window (%(default)g)")
    arguments = parser.parse_args()
    bundle = arguments.bundle or reference_model.camera_bundle()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        bundles = [bundle, another_version(bundle, Path(scratch) / "swapped")]
        with server(bundle, "--threads", "1") as running:
            ratios, unanswered = asyncio.run(measure(running, bundles, arguments.pairs, arguments.seconds))
    console.print(f"{machine()}; ratio of each pair: {', '.join(f'{one:.2f}' for one in ratios)}", highlight=False)
    console.print(f"frames without an answer: {unanswered}")
    console.print(verdict("p99 with a swap over p99 without", statistics.median(ratios), AIM))


if __name__ == "__main__":
    main()
