"""Single stream under MLCommons' own LoadGen, which times the queries and writes the logs that its checkers read.

https://github.com/mlcommons/inference/tree/master/loadgen
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.bench.frames import Ammunition
from client.bench.record import Record
from client.errors import ClientError
from client.sync import SyncStream, connect_sync

SUMMARY = "mlperf_log_summary.txt"
"""What LoadGen calls its verdict."""


def load_library() -> Any:  # noqa: ANN401 - a compiled module without types
    """The module `mlperf_loadgen`.

    Raises:
        ClientError: It is not installed.
    """
    try:
        import mlperf_loadgen  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ClientError(
            f"--loadgen needs MLCommons' LoadGen ({error})\n"
            "  → pip install 'monocoque[bench]'\n"
            "  → or leave --loadgen out: `single-stream` is the same loop, timed by us"
        ) from None
    return mlperf_loadgen


async def run_loadgen(
    address: str,
    ammunition: Ammunition,
    seconds: float,
    folder: Path,
    *,
    stop: asyncio.Event,
    on_offer: Callable[[], None] = lambda: None,
) -> Record:
    """Let LoadGen send one frame at a time, on a thread of its own.

    Args:
        address: To whom.
        ammunition: What; the frames of its first camera.
        seconds: At least how long.
        folder: Where LoadGen writes its logs.
        stop: Set it to end the run early; LoadGen, which cannot be told to, is left waiting for its next answer.
        on_offer: Told of each frame.

    Raises:
        ClientError: LoadGen is not installed, or the stream failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(
        name=f"LoadGen {ammunition.name}",
        scenario="single-stream",
        cameras=1,
        offered_per_second=0.0,
        frame_bytes=ammunition.mean_bytes,
    )
    run = _Run(load_library(), address, ammunition, record, on_offer)
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    started_ns = time.monotonic_ns()

    def work() -> None:
        run.test(seconds, folder)
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="loadgen", daemon=True).start()
    waits = [asyncio.ensure_future(done.wait()), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if not done.is_set():
        run.held.set()
        record.interrupted = True
    if run.failure is not None:
        raise run.failure
    record.seconds = (time.monotonic_ns() - started_ns) / 1e9
    return record


class _Run:
    """What LoadGen calls.

    Attributes:
        failure: Why the stream failed; LoadGen is C++, where an exception would end the process.
        held: Set it to answer no more.
    """

    def __init__(
        self,
        library: Any,  # noqa: ANN401 - a compiled module without types
        address: str,
        ammunition: Ammunition,
        record: Record,
        on_offer: Callable[[], None],
    ) -> None:
        self._library = library
        self._address = address
        self._ammunition = ammunition
        self._record = record
        self._on_offer = on_offer
        self.failure: ClientError | None = None
        self.held = threading.Event()

    def test(self, seconds: float, folder: Path) -> None:
        """One whole test."""
        library = self._library
        settings, logs = _settings(library, seconds, folder)
        try:
            with connect_sync(self._address) as connection, connection.stream(self._ammunition.cameras[:1]) as stream:
                system = library.ConstructSUT(lambda samples: self._issue(stream, samples), lambda: None)
                samples = library.ConstructQSL(1, 1, lambda _: None, lambda _: None)
                library.StartTestWithLogSettings(system, samples, settings, logs)
                library.DestroyQSL(samples)
                library.DestroySUT(system)
        except ClientError as error:
            self.failure = error

    def _issue(self, stream: SyncStream, samples: list[Any]) -> None:
        for sample in samples:
            if self.held.is_set():
                threading.Event().wait()  # for good: the process is about to end
            if self.failure is None:
                try:
                    self._answer(stream)
                except ClientError as error:
                    self.failure = error
            self._library.QuerySamplesComplete([self._library.QuerySampleResponse(sample.id, 0, 0)])

    def _answer(self, stream: SyncStream) -> None:
        now_ns = time.monotonic_ns()
        index = self._record.offer(now_ns, 0, now_ns)
        stream.submit(self._ammunition.frame(0, index, now_ns, index))
        self._record.answer(index, next(stream), time.monotonic_ns())
        self._on_offer()


def _settings(library: Any, seconds: float, folder: Path) -> tuple[Any, Any]:  # noqa: ANN401 - as above
    settings = library.TestSettings()
    settings.scenario = library.TestScenario.SingleStream
    settings.mode = library.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1000)
    settings.min_query_count = 1
    settings.single_stream_target_latency_percentile = 0.999  # MLPerf Automotive's; MLPerf Inference reports the 90th
    logs = library.LogSettings()
    logs.enable_trace = False
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    return settings, logs
