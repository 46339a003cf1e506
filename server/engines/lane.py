"""One engine under its name: frames and requests wait here, whichever threads compute them at the moment."""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from engine.bundle import Bundle
from engine.errors import EngineError
from server.engines.extent import Extent
from server.engines.instances import Instances
from server.engines.mailbox import QUEUED_REQUESTS, Mailbox
from server.engines.memory_fit import check_fit
from server.engines.opening import EngineHost, OpenEngine
from server.engines.probation import Probation
from server.engines.served_engine import ServedEngine, takes_frames
from server.engines.statistics import Statistics
from server.engines.tensor_request import Arrays, Inferred, Outcome, TensorRequest, check_inputs
from server.engines.thread import Turn
from server.errors import EngineNotReady, LimitReached, ServerError, SwapRefused
from server.frames import Frame
from server.schedule.recorder import RecordingScheduler, open_record
from server.schedule.scheduler import Scheduler
from server.stream.answers import AnswerWriter, EngineFacts

log = logging.getLogger("monocoque.engine")
UNLOADED = "the engine was unloaded"


class EngineState(enum.Enum):
    """What may be asked of an engine."""

    LOADING = "LOADING"
    """It is being opened, for the first time or in place of a process that died."""
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    """It could not be loaded, was unloaded, or died too often."""


@dataclass(frozen=True)
class _Serving:
    """What serves.

    Attributes:
        instances: Its engines.
        version: The bundle's.
        statistics: What it has done.
    """

    instances: Instances
    version: str
    statistics: Statistics


class Lane:
    """One engine, from its bundle to its answers. Everything but `Mailbox` belongs to the event loop.

    Args:
        name: The bundle's name.
        version: The bundle's version.
        host: What it is opened with.
        report: Told of each turn; on an engine's thread.
    """

    def __init__(self, name: str, version: str, host: EngineHost, report: Callable[[Lane, Turn], None]) -> None:
        self.name = name
        self.version = version
        self.state = EngineState.LOADING
        self.reason = "it is being loaded"
        self._record = None if host.record is None else open_record(host.record / f"{name}-{version}.jsonl")
        self.mailbox = Mailbox(Scheduler() if self._record is None else RecordingScheduler(self._record), host.clock)
        self._host = host
        self._report = functools.partial(report, self)
        self._instances: Instances | None = None
        self._engine: OpenEngine | None = None
        self.writer = AnswerWriter(EngineFacts(""), host.process)
        """Writes the answers to frames that are not computed."""
        self.statistics = Statistics()
        """What it has done since its bundle was loaded."""
        self.restarts = 0
        """How often an engine was opened again because its process had died."""
        self.closed = False
        """Whether it was unloaded."""
        self.on_rollback: Callable[[Lane, ServedEngine], None] = lambda _, __: None
        """Told that the engine before serves again, since the one that took its place failed."""
        self.on_restart: Callable[[Lane], None] = lambda _: None
        """Told that an engine is opened again."""
        self.on_change: Callable[[Lane], None] = lambda _: None
        """Told of a new state, or of an instance more or less that serves."""
        self._probation: Probation | None = None
        self._before: _Serving | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, bundle: Bundle) -> None:
        """Load the engine and begin to serve it.

        Raises:
            EngineError: It cannot be loaded.
            StartFailed: It does not compute what it did when the bundle was built.
        """
        instances = Instances(bundle, self._host, self.mailbox, self._report, self)
        try:
            await instances.open()
        except (EngineError, ServerError) as error:
            self._become(EngineState.UNAVAILABLE, error.message)
            raise
        instances.serve()
        self._put(_Serving(instances, self.version, self.statistics))

    @property
    def engine(self) -> OpenEngine:
        """The engine that computes now.

        Raises:
            EngineNotReady: There is none.
        """
        if self.state is not EngineState.READY or self._engine is None:
            raise self._not_ready()
        return self._engine

    @property
    def served(self) -> ServedEngine:
        """What the engine is, whether or not it computes at the moment.

        Raises:
            EngineNotReady: None was opened yet, or it was unloaded.
        """
        if self._engine is None:
            raise self._not_ready()
        return self._engine.served

    @property
    def instances(self) -> tuple[int, int]:
        """How many of its engines compute, and how many there are."""
        return (0, 0) if self._instances is None else (self._instances.able, self._instances.count)

    @property
    def impairment(self) -> str:
        """What it lacks of what was asked for; empty where that is nothing, or where it never served."""
        if self._instances is None or self.state is not EngineState.READY:
            return "" if self._engine is None else self.reason
        return self._instances.fault or self.served.degraded

    def check_accepts(self) -> None:
        """Refuse what would wait for an engine that nobody is about to open.

        Raises:
            EngineNotReady: It is not served, or was given up.
        """
        if self._engine is None or self.state is EngineState.UNAVAILABLE:
            raise self._not_ready()

    def _not_ready(self) -> EngineNotReady:
        return EngineNotReady(
            f"{self.name} {self.version} is {self.state.value}: {self.reason}",
            remedy="wait until it is READY" if self.state is EngineState.LOADING else "load it again",
        )

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
        new = Instances(bundle, self._host, self.mailbox, self._report, self)
        await new.open()
        if self._instances is None or self.closed:
            await new.end()
            raise self._not_ready()
        before = _Serving(self._instances, self.version, self.statistics)
        if not before.instances.able:  # it died: there is nothing to go back to
            new.serve()
            self._put(_Serving(new, manifest.version, Statistics()))
            self._let_go(before.instances)
            return
        self._before = before
        self._probation = Probation(before.instances, new, self._end_probation)
        self._put(_Serving(new, manifest.version, Statistics()))
        self._probation.begin()
        if self.mailbox.is_used and (fault := await self._probation.first_batch()):
            raise SwapRefused(
                f"{bundle.path} failed its first frames, and {self.name} {self.version} serves again: {fault}",
                remedy="try it with python -m build_engine verify, and look into the server's log",
            )

    def failed(self) -> None:
        """A turn of an engine failed, maybe because its process ended. Nothing is let in for it from here on then."""
        if self._instances is not None:
            self._instances.look()

    def died(self, instances: Instances, fault: str) -> bool:
        """See `Owner`. What dies after a swap, before the new engine has proved itself, is not opened again."""
        probation = self._probation
        if probation is None:
            return True
        if instances is probation.new:
            return not probation.judge(fault)
        if instances.able:
            return True
        if probation.conclude():  # nothing is left to go back to
            self._end_probation(probation, "")
        return False

    def reopening(self, instances: Instances) -> None:
        """See `Owner`."""
        if instances is self._instances:
            self.restarts += 1
            self.on_restart(self)

    def changed(self, instances: Instances) -> None:
        """See `Owner`."""
        if instances is not self._instances or self.closed:
            return
        self._engine = instances.engine
        self.mailbox.frame_ns = self._engine.frame_ns
        self.writer.serve(self._engine.served.facts())
        if instances.able:
            self._become(EngineState.READY, "")
        else:
            self._become(EngineState.UNAVAILABLE if instances.given_up else EngineState.LOADING, instances.fault)

    def _become(self, state: EngineState, reason: str) -> None:
        self.state, self.reason = state, reason
        self.mailbox.held = state is EngineState.LOADING
        self.on_change(self)

    def _put(self, serving: _Serving) -> None:
        """Serve something else from now on."""
        self._instances, self.version, self.statistics = serving.instances, serving.version, serving.statistics
        self.changed(serving.instances)

    def _end_probation(self, probation: Probation, fault: str) -> None:
        """The new engine has proved itself and the old one is let go, or the other way round."""
        self._probation = None
        probation.new.judge(None)
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

    def _let_go(self, instances: Instances) -> None:
        """End engines that take nothing any more, without waiting for it."""
        task = asyncio.ensure_future(instances.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def infer(
        self, inputs: Arrays, *, timeout_ns: int | None = None, priority: int = 0, checked: Extent | None = None
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
        self.closed = True
        self._become(EngineState.UNAVAILABLE, "it was unloaded")
        self.mailbox.close()
        if self._instances is not None:
            await self._instances.end()
        if self._before is not None:
            await self._before.instances.end()
        await asyncio.gather(*self._ending)
        for item in self.mailbox.drain():
            if isinstance(item, Frame):
                item.camera.owner.deliver(self.writer.without_numbers(item, "failed", UNLOADED))
            else:
                item.answer(EngineNotReady(f"{self.name} {self.version} was unloaded", remedy="load it again"))
        self._engine = None
        if self._record is not None:
            self._record.close()


def _settle(answered: asyncio.Future[Inferred], outcome: Outcome) -> None:
    if answered.done():  # whoever asked has gone
        return
    if isinstance(outcome, Inferred):
        answered.set_result(outcome)
    else:
        answered.set_exception(outcome)
