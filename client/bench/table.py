"""The figures of a bench in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from client.bench.record import PERCENTILES, Record, percentile
from client.table import number

LAG_WARNING_MS = 1.0
"""A generator that is later than this at its 99th percentile measures itself too."""


def show(console: Console, records: Sequence[Record]) -> None:
    """Print the tables: latency, age, and what became of the frames."""
    console.print(_latencies(records), _counts(records))
    for record in records:
        for remark in remarks(record):
            console.print(f"{record.name}: {remark}", soft_wrap=True, highlight=False, markup=False)


def remarks(record: Record) -> list[str]:
    """What a reader of the figures must know."""
    found = []
    if record.interrupted:
        found.append("interrupted: these are the figures up to then")
    if record.computed_per_second:
        kept_up = record.ok_per_second / record.computed_per_second
        found.append(
            f"the engine computes {record.computed_per_second:.1f} frames/s when it always has the next one; "
            f"under this load {record.ok_per_second:.1f}, which is {kept_up:.0%} of it"
        )
    lag = percentile(record.lag_ms(), 99)
    if lag > LAG_WARNING_MS:
        found.append(
            f"the load generator itself was {number(lag)} ms late at p99, which is in the latencies: give it a core of "
            "its own (taskset), or offer less"
        )
    if record.counts.get("failed") or record.counts.get("refused") or record.counts.get("invalid"):
        found.append("some frames failed or were refused: `client stream` shows the reasons")
    return found


def _latencies(records: Sequence[Record]) -> Table:
    table = Table(
        title="milliseconds",
        title_justify="left",
        caption="latency: of computed frames, from when they were due · all: of every frame offered, ∞ where it was "
        "not computed · age: from capture to the result's return · peak age: how old a camera's newest result had "
        "grown when the next one came",
        caption_justify="left",
    )
    table.add_column("load")
    for name in ("of", *(f"p{value:g}" for value in PERCENTILES), "max", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        rows = [("latency", record.computed_ms()), ("age", record.age_ms())]
        if record.scenario != "single-stream":
            rows += [("all", record.offered_ms()), ("peak age", record.peak_age_ms())]
        for position, (kind, values) in enumerate(rows):
            figures = [percentile(values, value) for value in PERCENTILES] + [max(values, default=math.nan)]
            table.add_row(record.name if position == 0 else "", kind, *map(_time, figures), str(len(values)))
        table.add_section()
    return table


def _counts(records: Sequence[Record]) -> Table:
    """Statuses that no frame had have no column."""
    statuses = [name for name in dict.fromkeys(name for record in records for name in record.counts) if name != "ok"]
    statuses = [name for name in statuses if any(record.counts.get(name) for record in records)]
    table = Table(title="what became of the frames", title_justify="left")
    table.add_column("load")
    for name in ("offered/s", "ok/s", "offered", "ok", *statuses, "kB/frame", "lag p99"):
        table.add_column(name.replace("_", " "), justify="right")
    for record in records:
        table.add_row(
            record.name,
            f"{record.offered_per_second:.1f}" if record.offered_per_second else "–",
            f"{record.ok_per_second:.1f}",
            str(len(record.due_ns)),
            *(str(record.counts.get(name, 0)) for name in ("ok", *statuses)),
            f"{record.frame_bytes / 1e3:.1f}",
            _time(percentile(record.lag_ms(), 99)),
        )
    return table


def _time(value: float) -> str:
    return "∞" if math.isinf(value) else number(value)
