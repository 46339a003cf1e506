"""`python -m client stream`: a source through a server, with live figures."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from client.interrupt import interruptible
from client.pictures import PictureWriter
from client.results import Result
from client.session import Options, Report, Started, run
from client.sources import DEFAULT_FPS
from client.table import engine_title, plain_line, results_table, stage_bar

REFRESH_SECONDS = 0.25
"""How often the live table is drawn."""

LINE_SECONDS = 2.0
"""How often figures are printed where there is no terminal."""


async def stream(
    options: Options, console: Console, save: Path | None = None, video: Path | None = None, as_json: bool = False
) -> Report:
    """Run a stream and show it.

    Args:
        options: What to run.
        console: Where to show it.
        save: Folder for annotated pictures.
        video: File for an annotated video.
        as_json: Print nothing but the summary, as JSON.

    Raises:
        ClientError: The source, the server or the stream failed.
    """
    stop = asyncio.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible(stop))
        show = _Display(console, quiet=as_json)
        on_result: list[Callable[[Result], None]] = []
        writers: list[PictureWriter] = []

        def on_start(started: Started) -> None:
            if save is not None or video is not None:
                writer = PictureWriter(
                    cameras=started.cameras,
                    labels=started.engine.labels,
                    title=started.engine.name,
                    directory=save,
                    video=video,
                    fps=options.recipe.fps or DEFAULT_FPS,
                    may_skip=options.policy == "live",
                )
                writers.append(stack.enter_context(writer))
                on_result.append(writer.add)
            show.start(started)

        def each(result: Result) -> None:
            for take in on_result:
                take(result)

        try:
            report = await run(options, stop, on_start, each)
        finally:
            show.stop()
    if as_json:
        console.print_json(json.dumps(report.summary))
    else:
        show.summary(report)
        for writer in writers:
            skipped = f", {writer.skipped} skipped to keep up" if writer.skipped else ""
            console.print(f"{writer.written} pictures written to {save or video}{skipped}")
    if report.broken is not None:  # what came until then was shown
        raise report.broken
    return report


class _Display:
    """A live table on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, started: Started) -> None:
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self._console.print(f"engine: {engine_title(started.engine)}", soft_wrap=True, highlight=False)
        self._task = asyncio.create_task(self._refresh(started))

    async def _refresh(self, started: Started) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS if self._live is not None else LINE_SECONDS)
            rows = started.statistics.rows(started.clock.now_ns())
            if self._live is not None:
                table = results_table(engine_title(started.engine), rows)
                reasons = [Text(f"{name}, newest {why}") for name, why in started.statistics.reasons().items()]
                self._live.update(Group(table, stage_bar(_median_stages(started)), *reasons), refresh=True)
            else:
                self._console.print(plain_line(rows[-1]), soft_wrap=True, highlight=False)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._live is not None:
            self._live.stop()

    def summary(self, report: Report) -> None:
        started = report.started
        rows = started.statistics.rows(started.clock.now_ns(), None)
        title = f"{engine_title(started.engine)} · {report.summary['seconds']:.1f} s"
        if self._console.is_terminal:
            self._console.print(results_table(title, rows), stage_bar(_median_stages(started)))
        else:
            for row in rows:
                self._console.print(plain_line(row), soft_wrap=True, highlight=False)
        for camera_id, reason in started.statistics.reasons().items():
            self._console.print(f"{camera_id}, newest {reason}", soft_wrap=True, highlight=False, markup=False)


def _median_stages(started: Started) -> dict[str, float]:
    """The median time of each stage over the newest results of all cameras, ms."""
    times: dict[str, list[float]] = {}
    for camera in started.cameras:
        for stage, values in started.statistics.stage_times_ms(camera.id, newest=60).items():
            times.setdefault(stage, []).extend(values)
    return {stage: float(np.median(values)) for stage, values in times.items()}
