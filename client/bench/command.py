"""`python -m client bench`: load of a known shape, and what the server made of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from client.bench.closed_loop import measure_capacity, run_single_stream
from client.bench.frames import Ammunition, load
from client.bench.loadgen import SUMMARY, load_library, run_loadgen
from client.bench.open_loop import run_open_loop
from client.bench.plot import check_can_plot, write_plot
from client.bench.record import Record
from client.bench.table import show
from client.connection import Connection, connect
from client.engine import Engine
from client.errors import ClientError
from client.interrupt import interruptible
from client.table import engine_title

CAPACITY_SECONDS = 3.0
"""How long `overload` asks for the engine's rate."""
INTERRUPTED = 130
"""Exit code, as a shell reports SIGINT."""
FILE_COLUMNS = 132
"""Width of tables that go to a file or a pipe."""


async def bench(options: argparse.Namespace, console: Console) -> bool:
    """Run the scenario and show it; tells whether it ran to its end.

    Args:
        options: As `arguments.add_bench` defines them.
        console: Where to show it.

    Raises:
        ClientError: An option cannot be used here, or the server or the stream failed.
    """
    _check(options)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    stop = asyncio.Event()
    records: list[Record] = []
    with interruptible(stop):
        async with connect(options.server, wait_seconds=options.wait) as connection:
            engine = await connection.engine()
            console.print(f"engine: {engine_title(engine)}", soft_wrap=True, highlight=False)
            try:
                with _progress(console) as progress:
                    await _Runs(options, connection, engine, stop, progress, records).all()
            except ClientError:  # runs that ended were worth their time, though a later one failed
                _tell(options, engine, records, console)
                raise
    _tell(options, engine, records, console)
    if stop.is_set() and options.loadgen is not None:
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # LoadGen's threads cannot be ended, and abort a process that exits in the usual way
    return not stop.is_set()


class _Runs:
    """The runs of one command, each appended to the records as it ends."""

    def __init__(
        self,
        options: argparse.Namespace,
        connection: Connection,
        engine: Engine,
        stop: asyncio.Event,
        progress: Progress,
        records: list[Record],
    ) -> None:
        self._options = options
        self._connection = connection
        self._size = options.size or _input_size(engine)
        self._stop = stop
        self._progress = progress
        self._records = records

    async def all(self) -> None:
        options = self._options
        counts: Sequence[int] = [1] if options.scenario == "single-stream" else options.cameras
        if options.warm_up:
            await self._warm_up(await self._ammunition(counts[0]))
        for cameras in counts:
            ammunition = await self._ammunition(cameras)
            if options.scenario == "single-stream":
                await self._single(ammunition)
            elif options.scenario == "overload":
                await self._overload(ammunition)
            else:
                for rate in options.rate:
                    await self._open_loop(ammunition, rate)

    async def _ammunition(self, cameras: int) -> Ammunition:
        options = self._options
        width, height = self._size
        return await asyncio.to_thread(
            load, cameras, options.encoding, width, height, options.quality, options.source, options.prefix
        )

    async def _warm_up(self, ammunition: Ammunition) -> None:
        self._step("warm-up", None)
        options = self._options
        await run_single_stream(
            self._connection, ammunition, options.warm_up, stop=self._stop, shared_memory=options.shared_memory
        )

    async def _single(self, ammunition: Ammunition) -> None:
        options = self._options
        on_offer = self._step("single-stream", None)
        if self._stop.is_set():
            return
        if options.loadgen is not None:
            record = await run_loadgen(
                options.server, ammunition, options.seconds, options.loadgen, stop=self._stop, on_offer=on_offer
            )
        else:
            record = await run_single_stream(
                self._connection,
                ammunition,
                options.seconds,
                stop=self._stop,
                shared_memory=options.shared_memory,
                on_offer=on_offer,
            )
        self._records.append(record)

    async def _overload(self, ammunition: Ammunition) -> None:
        options = self._options
        self._step("measuring what the engine can do", None)
        capacity = await measure_capacity(
            self._connection, ammunition, CAPACITY_SECONDS, stop=self._stop, shared_memory=options.shared_memory
        )
        if self._stop.is_set():
            return
        if not capacity:
            raise ClientError("the server computed nothing\n  → python -m client stream surround shows why")
        rate = options.factor * capacity / len(ammunition.cameras)
        await self._open_loop(ammunition, round(rate, 2), capacity)

    async def _open_loop(self, ammunition: Ammunition, rate: float, capacity: float | None = None) -> None:
        options = self._options
        if self._stop.is_set():
            return
        total = len(ammunition.cameras) * round(rate * options.seconds)
        record = await run_open_loop(
            self._connection,
            ammunition,
            rate,
            options.seconds,
            stop=self._stop,
            together=options.together,
            policy=options.policy,
            max_age_ns=round(options.max_age_ms * 1e6),
            shared_memory=options.shared_memory,
            scenario=options.scenario,
            on_offer=self._step(f"{len(ammunition.cameras)} x {rate:g}/s", total),
        )
        record.computed_per_second = capacity
        self._records.append(record)

    def _step(self, what: str, total: int | None) -> Callable[[], None]:
        """Show a new step on the bar; gives what advances it."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        task = self._progress.add_task(what, total=total)
        return lambda: self._progress.advance(task)


def _progress(console: Console) -> Progress:
    """A bar on a terminal, nothing elsewhere; it is drawn four times a second, so that it costs the run little."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} frames"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )


def _check(options: argparse.Namespace) -> None:
    """What can be said before anything is sent."""
    if options.plot is not None:
        check_can_plot(options.plot)
    for path in (options.json, options.plot):
        if path is not None:
            _check_can_write(path)
    if options.loadgen is not None:
        if options.shared_memory:
            raise ClientError("LoadGen sends its frames by gRPC\n  → leave --shared-memory out")
        if options.scenario != "single-stream":
            raise ClientError(
                f"LoadGen has no {options.scenario} scenario\n  → python -m client bench single-stream --loadgen DIR"
            )
        load_library()
    if options.policy == "live" and options.scenario == "single-stream":
        return
    if options.scenario == "constant-stream" and options.seconds * max(options.rate) < 1:
        raise ClientError(
            f"no frame is due within {options.seconds:g} s at {max(options.rate):g}/s\n  → raise --seconds"
        )


def _check_can_write(path: Path) -> None:
    """Raise `ClientError` unless a file can be written there; one that is there is left as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}\n  → name another file") from None


def _input_size(engine: Engine) -> tuple[int, int]:
    """Columns and rows of the engine's input, (batch, H, W, C)."""
    shape = engine.inputs[0].shape if engine.inputs else ()
    if len(shape) == 4 and shape[1] > 0 and shape[2] > 0:
        return shape[2], shape[1]
    raise ClientError(f"the engine's input is {list(shape)}, which is no camera's\n  → say --size WxH")


def _tell(options: argparse.Namespace, engine: Engine, records: Sequence[Record], console: Console) -> None:
    """Show the runs that ended, and write the files that were asked for."""
    if not records:
        return
    show(console, records)
    if options.json is not None:
        options.json.write_text(json.dumps(_document(engine, records), indent=2) + "\n")
        _said(console, "figures", options.json)
    if options.plot is not None:
        write_plot(records, options.plot)
        _said(console, "plot", options.plot)
    if options.loadgen is not None and not records[-1].interrupted:
        _said(console, "LoadGen's verdict", options.loadgen / SUMMARY)


def _said(console: Console, what: str, path: Path) -> None:
    console.print(f"{what}: {path}", soft_wrap=True, highlight=False, markup=False)


def _document(engine: Engine, records: Sequence[Record]) -> dict[str, object]:
    return {
        "engine": {
            "name": engine.name,
            "version": engine.version,
            "digest": engine.digest,
            "backend": f"{engine.backend} {engine.backend_version}".strip(),
            "target": engine.target,
            "precision": engine.precision,
            "degraded": engine.degraded,
        },
        "client": {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()},
        "runs": [record.summary() for record in records],
    }
