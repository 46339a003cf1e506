"""Streams six rendered cameras through the server, and shows how it goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from client import Result
from client.producer import Recipe
from client.session import Options, Report, Started, run
from client.table import number
from demo.errors import DemoError
from demo.moments import Moment, Moments

SOURCE = "surround:town=harbour,seed=7"
"""A town that the network was never trained on."""

FPS = 6.0
"""Of each camera: what rendering on one core and the engine on the other keep up with."""


@dataclass(frozen=True)
class Drive:
    """What a drive left: its figures, and its best moment."""

    report: Report
    moment: Moment


def drive(address: str, seconds: float, fps: float, console: Console) -> Drive:
    """Stream for some seconds.

    Raises:
        DemoError: Nothing came back.
        ClientError: The server or the renderer failed.
    """
    return asyncio.run(_drive(address, seconds, fps, console))


async def _drive(address: str, seconds: float, fps: float, console: Console) -> Drive:
    moments: list[Moments] = []
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("cameras start", total=seconds, figures="")
        shown: list[asyncio.Task[None]] = []

        def on_start(started: Started) -> None:
            moments.append(Moments(camera.id for camera in started.cameras))
            shown.append(asyncio.create_task(_show(progress, started)))

        def on_result(result: Result) -> None:
            moments[0].add(result)

        async def _show(progress: Progress, started: Started) -> None:
            begun_ns = started.clock.now_ns()
            while True:
                row = started.statistics.rows(started.clock.now_ns())[-1]
                figures = f"{row.fps:.0f} frames/s, p50 {number(row.latency_p50_ms)} ms, {row.objects} objects in sight"
                elapsed = (started.clock.now_ns() - begun_ns) / 1e9
                progress.update(task, description="streaming", completed=elapsed, figures=figures)
                await asyncio.sleep(0.25)

        options = Options(
            recipe=Recipe(SOURCE, encoding="jpeg", fps=fps, keep_images=True),
            address=address,
            duration_seconds=seconds,
        )
        try:
            report = await run(options, asyncio.Event(), on_start, on_result)
        finally:
            for showing in shown:
                showing.cancel()
        if report.broken is not None:
            raise report.broken
        progress.update(task, completed=seconds)
    moment = moments[0].best()
    if moment is None:
        statuses = report.summary["cameras"]["all"]["statuses"]
        raise DemoError(f"no frame was answered with numbers; statuses were {statuses}\n  → see the server's log")
    return Drive(report, moment)
