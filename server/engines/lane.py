"""One engine under its name: frames and requests wait here, whichever threads compute them at the moment."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle
from engine.errors import EngineError
from server.engines.extent import Extent
from server.engines.mailbox import QUEUED_REQUESTS, Mailbox
from server.engines.memory_fit import check_fit
from server.engines.opening import OpenEngine, OpenRuntime, open_engine
from server.engines.probation import Probation
from server.engines.served_engine import ServedEngine, takes_frames
from server.engines.statistics import Statistics
from server.engines.tensor_request import Arrays, Inferred, Outcome, TensorRequest, check_inputs
from server.engines.thread import EngineThread, Turn
from server.errors import EngineNotReady, LimitReached, ServerError, SwapRefused
from server.frames import Frame
from server.host.process_memory import ProcessMemory
from server.host.tuning import run_first
from server.schedule.recorder import RecordingScheduler, open_record
from server.schedule.scheduler import Scheduler
from server.stream.answers import AnswerWriter, EngineFacts

log = logging.getLogger("monocoque.engine")
UNLOADED = "the engine was unloaded"
_numbers = itertools.count(1)


class EngineState(enum.Enum):
    """What may be asked of an engine."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class EngineHost:
    """What every engine of a server is opened with.

    Attributes:
        open_runtime: Loads a runtime.
        max_batch: Frames per launch, at most.
        instances: Runtimes of each bundle, each with a thread.
        self_check: Whether an engine is compared with its bundle's reference.
        overlap: Whether a batch is prepared while another is computed.
        realtime_priority: Of the engines' threads in SCHED_FIFO; None leaves them as they are.
        record: Directory for the schedulers' events; None writes none.
        clock: Monotonic clock in nanoseconds.
        process: The server's own memory.
        report: Told of each turn; on an engine's thread.
        died: Told that an engine's thread ended on its own; on that thread.
    """

    open_runtime: OpenRuntime
    max_batch: int
    instances: int
    self_check: bool
    overlap: bool
    realtime_priority: int | None
    record: Path | None
    clock: Callable[[], int]
    process: ProcessMemory
    report: Callable[[Lane, Turn], None]
    died: Callable[[], None]


@dataclass(frozen=True)
class _Serving:
    """What serves.

    Attributes:
        threads: Its threads.
        engine: The engine.
        version: The bundle's.
        statistics: What it has done.
    """

    threads: list[EngineThread]
    engine: OpenEngine
    version: str
    statistics: Statistics


class Lane:
    """One engine, from its bundle to its answers. Everything but `Mailbox` belongs to the event loop.

    Args:
        name: The bundle's name.
        version: The bundle's version.
        host: What it is opened with.
    """

    def __init__(self, name: str, version: str, host: EngineHost) -> None:
        self.name = name
        self.version = version
        self.state = EngineState.LOADING
        self.reason = "it is being loaded"
        self._record = None if host.record is None else open_record(host.record / f"{name}-{version}.jsonl")
        self.mailbox = Mailbox(Scheduler() if self._record is None else RecordingScheduler(self._record), host.clock)
        self._host = host
        self._threads: list[EngineThread] = []
        self._engine: OpenEngine | None = None
        self.writer = AnswerWriter(EngineFacts(""), host.process)
        """Writes the answers to frames that are not computed."""
        self.statistics = Statistics()
        """What it has done since its bundle was loaded."""
        self.on_rollback: Callable[[Lane, ServedEngine], None] = lambda _, __: None
        """Told that the engine before serves again, since the one that took its place failed."""
        self._probation: Probation | None = None
        self._before: _Serving | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, bundle: Bundle) -> None:
        """Load the engine and begin to serve it.

        Raises:
            EngineError: It cannot be loaded.
            StartFailed: It does not compute what it did when the bundle was built.
        """
        try:
            self._threads, self._engine = await self._open_threads(bundle)
        except (EngineError, ServerError) as error:
            self.state, self.reason = EngineState.UNAVAILABLE, error.message
            raise
        self.mailbox.frame_ns = self._engine.frame_ns
        self.writer.serve(self._engine.served.facts())
        for thread in self._threads:
            thread.serve()
        self.state, self.reason = EngineState.READY, ""

    @property
    def engine(self) -> OpenEngine:
        """The engine that is served now.

        Raises:
            EngineNotReady: There is none.
        """
        if self.state is not EngineState.READY or self._engine is None:
            raise EngineNotReady(
                f"{self.name} {self.version} is {self.state.value}: {self.reason}",
                remedy="wait until it is READY" if self.state is EngineState.LOADING else "load it again",
            )
        return self._engine

    @property
    def served(self) -> ServedEngine:
        """What the engine is that is served now.

        Raises:
            EngineNotReady: There is none.
        """
        return self.engine.served

    async def swap(self, bundle: Bundle) -> None:
        """Put another bundle in the engine's place, between two batches.

        It is opened, checked and warmed beside the old one, which serves on; whatever fails, nothing has changed. The
        old one then waits until the new one has computed some batches. If that fails one of them, the old one serves
        again, now or after this has returned.

        Raises:
            SwapRefused: It is another engine's bundle, takes no frames, does not fit into memory, or failed its first
                frames.
            EngineError: It cannot be loaded.
            StartFailed: It does not compute what it did when the bundle was built.
        """
        old, manifest = self.served, bundle.manifest
        if self._probation is not None and self._probation.conclude():
            self._end_probation(self._probation, "")
        if manifest.name != self.name:
            raise SwapRefused(
                f"{bundle.path} is {manifest.name}, the engine is {self.name}",
                remedy=f"build it with --name {self.name}, or serve it beside with --repository",
            )
        if old.takes_frames and not takes_frames(manifest):
            raise SwapRefused(
                f"{bundle.path} takes tensors, {self.name} {self.version} takes camera frames",
                remedy="build it with --mean, --std and --color",
            )
        check_fit(old, bundle, self._host.instances)
        threads, engine = await self._open_threads(bundle)
        self._before = _Serving(self._threads, self.engine, self.version, self.statistics)
        self._probation = Probation(self._threads, threads, self._end_probation)
        self._put(_Serving(threads, engine, manifest.version, Statistics()))
        self._probation.begin()
        if self.mailbox.is_used and (fault := await self._probation.first_batch()):
            raise SwapRefused(
                f"{bundle.path} failed its first frames, and {self.name} {self.version} serves again: {fault}",
                remedy="try it with python -m build_engine verify, and look into the server's log",
            )

    def _put(self, serving: _Serving) -> None:
        """Serve something else from now on."""
        self._threads, self._engine = serving.threads, serving.engine
        self.version, self.statistics = serving.version, serving.statistics
        self.mailbox.frame_ns = serving.engine.frame_ns
        self.writer.serve(serving.engine.served.facts())

    def _end_probation(self, probation: Probation, fault: str) -> None:
        """The new engine has proved itself and the old one is let go, or the other way round."""
        self._probation = None
        for thread in probation.new:
            thread.judge = None
        before, self._before = self._before, None
        if not fault or before is None:
            self._let_go(probation.old)
            return
        failed = self.served
        self._put(before)
        self._let_go(probation.new)
        log.error(
            "%s %s failed its first frames; %s (%.12s) serves again: %s",
            self.name,
            failed.bundle.manifest.version,
            self.version,
            self.served.bundle.digest,
            fault,
        )
        self.on_rollback(self, failed)

    def _let_go(self, threads: list[EngineThread]) -> None:
        """End threads that take nothing any more, without waiting for it."""
        task = asyncio.ensure_future(self._end(threads))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def infer(
        self,
        inputs: Arrays,
        *,
        timeout_ns: int | None = None,
        priority: int = 0,
        checked: Extent | None = None,
    ) -> Inferred:
        """Compute one request of tensors, in a turn of its own among the cameras' frames.

        Args:
            inputs: Every input by name, batch first where the engine has one. They are copied once, when the turn has
                come: leave them alone until this returns.
            timeout_ns: How long it may wait for its turn; None means for ever.
            priority: Higher is served first, on the scale of streams.
            checked: How large it is, where the caller has just checked the inputs; None checks them here.

        Raises:
            EngineNotReady: The engine is loading or gone.
            RequestInvalid: An input is missing, unknown, or of another type or shape.
            LimitReached: Too many requests wait.
            RequestLate: Its time ran out.
            InferenceFailed: The engine failed.
        """
        engine = self.engine
        extent = checked or check_inputs(engine.served.description, inputs)
        answered: asyncio.Future[Inferred] = asyncio.get_running_loop().create_future()
        received = self._host.clock()
        request = TensorRequest(
            inputs=inputs,
            extent=extent,
            digest=engine.served.bundle.digest,
            received=received,
            answer=functools.partial(_settle, answered),
            deadline_ns=None if timeout_ns is None else received + timeout_ns,
        )
        if not self.mailbox.submit(request, priority):
            raise LimitReached(
                f"{QUEUED_REQUESTS} requests of priority {priority} wait for {self.name}",
                remedy="send fewer at a time, or serve more engine instances with --instances",
            )
        try:
            return await answered
        except asyncio.CancelledError:
            request.cancelled = True
            raise

    async def close(self) -> None:
        """Stop serving, for good; what waits is answered."""
        self.state, self.reason = EngineState.UNAVAILABLE, "it was unloaded"
        self.mailbox.close()
        await self._end([*self._threads, *(self._probation.old if self._probation is not None else ())])
        await asyncio.gather(*self._ending)
        self._threads = []
        for item in self.mailbox.drain():
            if isinstance(item, Frame):
                item.camera.owner.deliver(self.writer.without_numbers(item, "failed", UNLOADED))
            else:
                item.answer(EngineNotReady(f"{self.name} {self.version} was unloaded", remedy="load it again"))
        self._engine = None
        if self._record is not None:
            self._record.close()

    async def _open_threads(self, bundle: Bundle) -> tuple[list[EngineThread], OpenEngine]:
        """An engine per instance, each on its own thread, none of which takes a frame yet."""
        host = self._host
        threads = [
            EngineThread(next(_numbers), self.mailbox, self._report, host.died, host.clock)
            for _ in range(host.instances)
        ]

        def on_thread(stack: contextlib.ExitStack) -> OpenEngine:
            if host.realtime_priority is not None:
                run_first(host.realtime_priority)
            return open_engine(
                bundle,
                host.open_runtime,
                max_batch=host.max_batch,
                self_check=host.self_check,
                overlap=host.overlap,
                clock=host.clock,
                process=host.process,
                stack=stack,
            )

        try:
            for thread in threads:  # one after the other: each may measure what it takes
                engine = await asyncio.wrap_future(thread.open(on_thread))
        except BaseException:
            await self._end(threads)
            raise
        return threads, engine

    @staticmethod
    async def _end(threads: list[EngineThread]) -> None:
        for thread in threads:
            thread.stop()
        for thread in threads:
            await asyncio.to_thread(thread.join)

    def _report(self, turn: Turn) -> None:
        self._host.report(self, turn)


def _settle(answered: asyncio.Future[Inferred], outcome: Outcome) -> None:
    if answered.done():  # whoever asked has gone
        return
    if isinstance(outcome, Inferred):
        answered.set_result(outcome)
    else:
        answered.set_exception(outcome)
