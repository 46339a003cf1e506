"""What the server's flags for cores, scheduling, memory and threads gain: each against none of them, in turns.

    python -m benchmarks.flags                 the RepVGG-A0 shape, built here
    python -m benchmarks.flags out/demo/bundle

One server per flag, all of them up; one camera at half the engine's rate goes to each in turn, in windows of a few
seconds. Ratios are of neighbouring windows, flag over none; their median is told. A flag that is not permitted here is
left out and said.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

import client
from benchmarks import reference_model
from benchmarks.serving import Running, machine, server
from client.bench.closed_loop import measure_capacity
from client.bench.frames import Ammunition, load
from client.bench.open_loop import run_open_loop
from client.bench.record import percentile

SHARE = 0.5
"""Of the engine's rate."""
FLAGS = {
    "--overlap off": ("--overlap", "off"),
    "--cpus (the last core)": ("--cpus", str(max(os.sched_getaffinity(0)))),
    "--realtime-priority 1": ("--realtime-priority", "1"),
    "--lock-memory": ("--lock-memory",),
    "--wake-latency-us 0": ("--wake-latency-us", "0"),
    "--spin": ("--spin",),
    "--engine-process": ("--engine-process",),
}


async def window(running: Running, frames: Ammunition, rate: float, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile of one window, ms."""
    async with client.connect(running.address) as connection:
        record = await run_open_loop(connection, frames, rate, seconds, stop=asyncio.Event())
    return percentile(record.computed_ms(), 50), percentile(record.computed_ms(), 99)


async def capacity_of(running: Running, frames: Ammunition) -> float:
    """Frames per second that a server computes."""
    async with client.connect(running.address) as connection:
        return await measure_capacity(connection, frames, 2.0, stop=asyncio.Event())


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="takes colour frames (the RepVGG-A0 shape, built here)")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each flag (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window (%(default)g)")
    parser.add_argument("--threads", default="1", help="threads of one inference (%(default)s)")
    arguments = parser.parse_args()
    bundle = arguments.bundle or reference_model.camera_bundle()
    console = Console()
    frames = load(1, ["rgb8"], 224, 224)
    ratios: dict[str, list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(server(bundle, "--threads", arguments.threads))
        others = {}
        for name, flags in FLAGS.items():
            with contextlib.suppress(SystemExit):  # not permitted here
                others[name] = stack.enter_context(server(bundle, "--threads", arguments.threads, *flags))
        if missing := FLAGS.keys() - others.keys():
            console.print(f"not permitted here: {', '.join(sorted(missing))}", highlight=False)
        rate = SHARE * asyncio.run(capacity_of(plain, frames))
        for _ in range(arguments.rounds):
            for name, running in others.items():
                none = asyncio.run(window(plain, frames, rate, arguments.seconds))
                with_flag = asyncio.run(window(running, frames, rate, arguments.seconds))
                ratios.setdefault(name, []).append((with_flag[0] / none[0], with_flag[1] / none[1]))
    table = Table(
        title=f"one camera at half the engine's rate, flag over none, medians of {arguments.rounds}; {machine()}",
        title_justify="left",
    )
    for column in ("flag", "p50", "p99"):
        table.add_column(column)
    for name, pairs in ratios.items():
        table.add_row(name, *(f"{statistics.median(pair[index] for pair in pairs):.2f}" for index in (0, 1)))
    console.print(table)


if __name__ == "__main__":
    main()
