"""Six cameras that offer twice what the engine can do: what is computed, and how old it is when it is back.

    python -m benchmarks.overload                      150 kB, JPEG and raw 1080p frames, in turns: two minutes
    python -m benchmarks.overload out/demo/bundle      another bundle
    python -m benchmarks.overload --json out/overload.json

Each round measures what the server computes when it always has the next frame (every camera replays), and then offers
twice that, freshest frame first. Ages are the client's own: from when a frame was due, which is its capture time, to
its result's return. The engine's time is one over its rate, decoding included; the period is that of one camera.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import client
from benchmarks import reference_model
from benchmarks.serving import machine, server, verdict
from client.bench.closed_loop import measure_capacity
from client.bench.frames import Ammunition, load
from client.bench.open_loop import run_open_loop
from client.bench.record import percentile

CAMERAS = 6
FACTOR = 2.0
RATE_AIM = 0.95
"""Of the engine's rate."""
CAPACITY_SECONDS = 2.0


@dataclass(frozen=True)
class Kind:
    """Frames of one kind, and how they go."""

    name: str
    frames: Ammunition
    shared_memory: bool = False


@dataclass(frozen=True)
class Round:
    """One round of one kind of frames. Times in milliseconds.

    Attributes:
        capacity: Frames per second that the server computes when it always has the next one.
        kept: Frames per second computed under the overload, over `capacity`.
        age_p50: Median age of the results.
        age_p99: 99th percentile.
        bound: Two engine times and one period of a camera.
        lag_p99: How late the load generator was; it is in the ages.
        counts: Frames by what became of them.
    """

    capacity: float
    kept: float
    age_p50: float
    age_p99: float
    bound: float
    lag_p99: float
    counts: dict[str, int]


async def one_round(connection: client.Connection, kind: Kind, seconds: float) -> Round:
    """Capacity, then the overload."""
    stop, frames, shared = asyncio.Event(), kind.frames, kind.shared_memory
    capacity = await measure_capacity(connection, frames, CAPACITY_SECONDS, stop=stop, shared_memory=shared)
    rate = FACTOR * capacity / CAMERAS
    record = await run_open_loop(
        connection, frames, rate, seconds, stop=stop, scenario="overload", shared_memory=shared
    )
    ages = record.age_ms()
    return Round(
        capacity=capacity,
        kept=record.ok_per_second / capacity,
        age_p50=percentile(ages, 50),
        age_p99=percentile(ages, 99),
        bound=2e3 / capacity + 1e3 / rate,
        lag_p99=percentile(record.lag_ms(), 99),
        counts=record.counts,
    )


async def measure(bundle: Path, kinds: list[Kind], rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Every kind of frames in each round; the server's defaults but for one engine thread."""
    found: dict[str, list[Round]] = {kind.name: [] for kind in kinds}
    with server(bundle, "--threads", "1") as running:
        async with client.connect(running.address) as connection:
            for number in range(rounds + 1):
                for kind in kinds:
                    measured = await one_round(connection, kind, seconds if number else 0.5)
                    if number:  # the first warms up
                        found[kind.name].append(measured)
    return found


def report(console: Console, found: dict[str, list[Round]], bundle: Path) -> None:
    """Print the table and the verdicts; medians over the rounds."""
    table = Table(
        title=f"{bundle.name}, six cameras at {FACTOR:g} times the engine's rate; {machine()}", title_justify="left"
    )
    table.add_column("frames", no_wrap=True)
    for name in ("engine/s", "kept", "age p50", "p99", "bound", "p99/bound", "lag p99"):
        table.add_column(name, justify="right")
    for name, rounds in found.items():
        middle = {field: statistics.median(getattr(one, field) for one in rounds) for field in
                  ("capacity", "kept", "age_p50", "age_p99", "bound", "lag_p99")}  # fmt: skip
        table.add_row(
            name,
            f"{middle['capacity']:.0f}",
            f"{middle['kept']:.3f}",
            f"{middle['age_p50']:.1f}",
            f"{middle['age_p99']:.1f}",
            f"{middle['bound']:.1f}",
            f"{statistics.median(one.age_p99 / one.bound for one in rounds):.2f}",
            f"{middle['lag_p99']:.1f}",
        )
    console.print(table)
    for position, (name, rounds) in enumerate(found.items()):
        console.print(
            verdict(f"{name}: p99 age over its bound", statistics.median(r.age_p99 / r.bound for r in rounds), 1.0)
        )
        if position == 0:
            kept = statistics.median(one.kept for one in rounds)
            console.print(verdict(f"{name}: of the engine's rate", kept, RATE_AIM, at_least=True))


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="takes colour frames (the RepVGG-A0 shape, built here)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each overload (%(default)g)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    bundle = arguments.bundle or reference_model.camera_bundle()
    large = load(CAMERAS, ["rgb8"], 1920, 1080)
    kinds = [
        Kind("raw 224x224, 150 kB", load(CAMERAS, ["rgb8"], 224, 224)),
        Kind("JPEG 640x384", load(CAMERAS, ["jpeg"], 640, 384)),
        Kind("raw 1920x1080", large),
        Kind("the same, shared memory", large, shared_memory=True),
    ]
    found = asyncio.run(measure(bundle, kinds, arguments.rounds, arguments.seconds))
    report(Console(), found, bundle)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        document = {name: [asdict(one) for one in rounds] for name, rounds in found.items()}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
