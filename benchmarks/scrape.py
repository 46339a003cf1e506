"""What a scrape a second costs the slowest frames.

    python -m benchmarks.scrape

Six cameras at a steady rate below what the engine can do, in windows of a few seconds that take turns: Prometheus reads
the page once a second in one, nobody in the next. The ratio is of the 99th percentiles of neighbouring windows; the
median over all pairs is told. Latency counts from when a frame was due.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.table import Table

import client
from benchmarks import reference_model
from benchmarks.serving import Running, machine, server, verdict
from client.bench.closed_loop import measure_capacity
from client.bench.frames import Ammunition, load
from client.bench.open_loop import run_open_loop
from client.bench.record import percentile

AIM = 1.05
SHARE = 0.5
"""Of the engine's rate: busy, but with no queue of its own making."""
SCRAPE_SECONDS = 1.0


async def scrape(url: str) -> None:
    """Read the page once a second, for ever."""
    while True:
        await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())  # noqa: S310 - our own server's URL
        await asyncio.sleep(SCRAPE_SECONDS)


async def window(connection: client.Connection, frames: Ammunition, rate: float, seconds: float) -> float:
    """99th percentile of one window, ms."""
    record = await run_open_loop(connection, frames, rate, seconds, stop=asyncio.Event())
    return percentile(record.computed_ms(), 99)


async def measure(running: Running, pairs: int, seconds: float) -> tuple[list[float], list[float]]:
    """99th percentiles without and with scrapes, by pair."""
    frames = load(6, ["rgb8"], 224, 224)
    without: list[float] = []
    scraped: list[float] = []
    async with client.connect(running.address) as connection:
        capacity = await measure_capacity(connection, frames, 2.0, stop=asyncio.Event())
        rate = SHARE * capacity / 6
        await window(connection, frames, rate, 1.0)  # warms up
        for number in range(pairs):
            for with_scrapes in (False, True) if number % 2 else (True, False):
                scraping = asyncio.ensure_future(scrape(running.metrics)) if with_scrapes else None
                found = await window(connection, frames, rate, seconds)
                (scraped if with_scrapes else without).append(found)
                if scraping is not None:
                    scraping.cancel()
                    await asyncio.gather(scraping, return_exceptions=True)
    return without, scraped


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="takes colour frames (the RepVGG-A0 shape, built here)")
    parser.add_argument("--pairs", type=int, default=7, help="windows without and with (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window (%(default)g)")
    arguments = parser.parse_args()
    with server(arguments.bundle or reference_model.camera_bundle(), "--threads", "1") as running:
        without, scraped = asyncio.run(measure(running, arguments.pairs, arguments.seconds))
    ratios = [one / other for one, other in zip(scraped, without, strict=True)]
    console = Console()
    table = Table(title=f"p99 of a frame, {arguments.pairs} pairs of windows; {machine()}", title_justify="left")
    for name in ("scraped", "p99 ms, median", "least", "most"):
        table.add_column(name)
    for name, values in (("never", without), ("every second", scraped)):
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values))))
    console.print(table)
    console.print(f"ratio of each pair: {', '.join(f'{ratio:.2f}' for ratio in ratios)}", highlight=False)
    console.print(verdict("p99 with a scrape a second over p99 without", statistics.median(ratios), AIM))


if __name__ == "__main__":
    main()
