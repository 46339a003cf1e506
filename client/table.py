"""Figures of a run as a table in the terminal, or as plain lines where there is no terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from client.engine import Engine
from client.results import STAGES
from client.statistics import Row

STAGE_COLORS: Mapping[str, str] = dict(
    zip(
        STAGES,
        (
            "#4e79a7",
            "#bab0ac",
            "#f28e2b",
            "#9c755f",
            "#edc948",
            "#ff9da7",
            "#59a14f",
            "#76b7b2",
            "#b07aa1",
            "#e15759",
        ),
        strict=True,
    )
)
"""One colour per stage, the same in the terminal and in plots."""

BAR_CELLS = 60


def results_table(title: str, rows: Sequence[Row]) -> Table:
    """The table: a line per camera, the last one for all."""
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("camera")
    for name in ("fps", "p50 ms", "p99 ms", "age p50", "age p99", "ok", "stale", "late", "other", "dropped", "objects"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        other = sum(count for status, count in row.statuses.items() if status not in ("ok", "stale", "late"))
        if row.name == "all":
            table.add_section()
        table.add_row(
            row.name,
            f"{row.fps:.1f}",
            number(row.latency_p50_ms),
            number(row.latency_p99_ms),
            number(row.age_p50_ms),
            number(row.age_p99_ms),
            str(row.statuses.get("ok", 0)),
            _count(row.statuses.get("stale", 0), "yellow"),
            _count(row.statuses.get("late", 0), "yellow"),
            _count(other, "red"),
            _count(row.client_dropped, "yellow"),
            str(row.objects),
            style="bold" if row.name == "all" else None,
        )
    return table


def stage_bar(stages_ms: Mapping[str, float]) -> Text:
    """Where a frame's time goes: one bar, a colour per stage, and its legend."""
    total = sum(stages_ms.values())
    text = Text()
    if total <= 0:
        return text
    for stage, value in stages_ms.items():
        text.append("█" * round(BAR_CELLS * value / total), style=STAGE_COLORS[stage])
    text.append(f" {total:.1f} ms\n")
    for stage, value in stages_ms.items():
        text.append("■ ", style=STAGE_COLORS[stage])
        text.append(f"{stage} {value:.2f}  ")
    return text


def plain_line(row: Row) -> str:
    """One camera's figures without colours or columns."""
    statuses = " ".join(f"{status}={count}" for status, count in sorted(row.statuses.items()))
    return (
        f"{row.name}: {row.fps:.1f} fps, latency p50 {number(row.latency_p50_ms)} p99 {number(row.latency_p99_ms)} ms, "
        f"age p50 {number(row.age_p50_ms)} p99 {number(row.age_p99_ms)} ms, "
        f"{statuses or 'no results'} dropped={row.client_dropped}"
    )


def engine_title(engine: Engine) -> str:
    """The engine in one line."""
    title = f"{engine.name} {engine.version} · {engine.precision} · {engine.backend} · {engine.target}"
    return f"{title} · DEGRADED: {engine.degraded}" if engine.degraded else title


def number(value: float) -> str:
    """A time with three digits that matter, or a dash."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _count(value: int, color: str) -> Text:
    return Text(str(value), style=color if value else "dim")
