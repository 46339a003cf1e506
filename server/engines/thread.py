"""The thread that owns a runtime, and the one that prepares its next batch meanwhile."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.errors import EngineError
from engine.runtime import MemoryReport
from server.engines.mailbox import Mailbox, SourceKey, Worker
from server.engines.mailbox import Turn as Selected
from server.engines.opening import OpenEngine
from server.engines.pipeline import Pipeline, Prepared
from server.engines.tensor_pipeline import late
from server.engines.tensor_request import Outcome, TensorRequest
from server.errors import InferenceFailed
from server.frames import Answer, Frame
from server.host.process_memory import SAMPLE_INTERVAL_NS
from server.stream.answers import failure

log = logging.getLogger("monocoque.engine")

LATE_AT_DEQUEUE = "past its maximum age when its turn came"
SET_REPLACED = "its set was replaced by a newer one before work on it began"
REMEMBERED_TURNS = 16
"""Of which the slowest preparation and the fastest inference are expected next: a batch that is ready early ages a
little, one that is ready late keeps the engine waiting."""
HANDOVER_NS = 300_000
"""Between waking the preparing thread and the start of its work."""


@dataclass(slots=True)
class Turn:
    """What the event loop is told of a turn.

    Attributes:
        taken: Frames that left their slots; sent before they are computed.
        answers: What became of frames.
        outcomes: What became of requests of tensors.
        batch_size: Frames that were launched; 0 in a message about something else.
        busy_ns: Time the engine's thread spent.
        memory: What the engine holds, once in a while.
    """

    taken: Sequence[Frame] = ()
    answers: Sequence[Answer] = ()
    outcomes: Sequence[tuple[TensorRequest, Outcome]] = ()
    batch_size: int = 0
    busy_ns: int = 0
    memory: MemoryReport | None = None


@dataclass(slots=True)
class _Work:
    """A turn on its way through the two threads."""

    keys: Sequence[SourceKey]
    frames: list[Frame]
    requests: list[TensorRequest]
    taken: Sequence[Frame] = ()
    prepared: Prepared | None = None
    failed: list[Answer] = field(default_factory=list)
    fault: str = ""


class EngineThread:
    """Takes batches from the mailbox until it is closed, or until this thread is retired.

    Args:
        number: Names it among the threads that share the mailbox.
        mailbox: Where frames wait.
        report: Hands a turn to the event loop; called on either thread.
        died: Told that a thread ended on its own, which only a bug of ours can cause; called on that thread.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(
        self,
        number: int,
        mailbox: Mailbox,
        report: Callable[[Turn], None],
        died: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        self._worker: Worker[_Work] = Worker(number)
        self._mailbox = mailbox
        self._report = report
        self._died = died
        self._memory_sampled_at = 0
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self.judge: Callable[[str], object] | None = None
        """Told on this thread of each batch: what went wrong with it, or nothing. Set it before `serve`."""
        self.lost = ""
        """Why its engine computes nothing any more: frames are then answered so, and not prepared for nothing."""
        self._side = 0
        self._prepare_ns: deque[int] = deque(maxlen=REMEMBERED_TURNS)
        self._launch_ns: deque[int] = deque(maxlen=REMEMBERED_TURNS)

    def open(self, open_engine: Callable[[contextlib.ExitStack], OpenEngine]) -> Future[OpenEngine]:
        """Start the thread and open the engine on it. It takes nothing from the mailbox yet.

        Args:
            open_engine: Opens the engine; what it pushes on the stack is undone on the same thread at the end.

        Returns:
            Done when the engine is open, or failed to open.
        """
        opened: Future[OpenEngine] = Future()
        name = f"engine-{self._worker.number}"
        self._thread = threading.Thread(target=self._main, args=(open_engine, opened), name=name)
        self._thread.start()
        return opened

    def serve(self) -> None:
        """Begin to take batches."""
        self._serving.set()

    def pause(self) -> None:
        """Finish the batches it has, and take no more until `resume`."""
        self._mailbox.pause(self._worker, paused=True)

    def resume(self) -> None:
        """Take batches again."""
        self._mailbox.pause(self._worker, paused=False)

    def stop(self) -> None:
        """End the thread after the batches it has; what it would have taken is left to others."""
        self._mailbox.retire(self._worker)
        self._serving.set()

    def join(self) -> None:
        """Wait for the thread to end; `stop` it first."""
        if self._thread is not None:
            self._thread.join()

    def _main(self, open_engine: Callable[[contextlib.ExitStack], OpenEngine], opened: Future[OpenEngine]) -> None:
        opened.set_running_or_notify_cancel()  # whoever waits may leave, the result is not in doubt
        with contextlib.ExitStack() as stack:
            try:
                engine = open_engine(stack)
            except BaseException as error:  # whoever waits for the future raises it
                opened.set_exception(error)
                return
            opened.set_result(engine)
            self._serving.wait()
            if engine.pipeline is not None and engine.pipeline.sides > 1:
                name = f"prepare-{self._worker.number}"
                preparer = threading.Thread(target=self._guard, args=(self._prepare_ahead, engine), name=name)
                preparer.start()
                stack.callback(preparer.join)
            self._guard(self._turn, engine)
            self._mailbox.retire(self._worker)

    def _guard(self, step: Callable[[OpenEngine], bool], engine: OpenEngine) -> None:
        try:
            while step(engine):  # nothing of a turn is held while waiting for the next
                pass
        except BaseException:
            log.exception("an engine's thread ended; restart the server")
            self._died()

    def _turn(self, engine: OpenEngine) -> bool:
        """Wait for frames and compute them; False once there will be none."""
        taken = self._mailbox.take(engine.max_batch, engine.curve, self._worker)
        if taken is None:
            return False
        started = self._clock()
        work = taken if isinstance(taken, _Work) else self._begin(engine, taken)
        computed = [(request, engine.infer(request)) for request in work.requests]
        answers = self._compute(engine, work) if work.frames else []
        launched = sum(frame.ledger.inferred is not None for frame in work.frames)
        judge = self.judge
        if judge is not None and (fault := _fault(engine, work, computed)) is not None:
            judge(fault)
        if work.keys:
            now = self._clock()
            memory = None
            if now - self._memory_sampled_at >= SAMPLE_INTERVAL_NS:
                self._memory_sampled_at = now
                with contextlib.suppress(EngineError):  # its process may have ended
                    memory = engine.memory()
            outcomes = [(request, outcome) for request, outcome in computed if outcome is not None]
            # One message for all of it: each wakes the event loop, which then waits for this thread to let go.
            self._report(Turn(work.taken, answers, outcomes, launched, now - started, memory))
        self._mailbox.finish(work.keys)  # last: whoever takes a source over reports after us
        return True

    def _prepare_ahead(self, engine: OpenEngine) -> bool:
        """Wait until the engine is about to be free, and prepare its next turn; False once there will be none."""
        taken = self._mailbox.take_ahead(engine.max_batch, engine.curve, self._worker, self._lead_ns)
        if taken is None:
            return False
        try:
            work = self._begin(engine, taken)
        except BaseException:
            self._mailbox.prepared(self._worker, _Work(taken.keys, [], []))
            raise
        self._mailbox.prepared(self._worker, work)
        return True

    def _expected_ns(self, engine: OpenEngine) -> int:
        return min(self._launch_ns, default=engine.frame_ns)

    def _lead_ns(self) -> int:
        return max(self._prepare_ns, default=0) + HANDOVER_NS

    def _begin(self, engine: OpenEngine, selected: Selected) -> _Work:
        """Answer what is late, and prepare the rest."""
        started = self._clock()
        if selected.late:
            self._shed(engine, selected.late, started)
        if selected.stale:
            self._replace(engine, selected.stale, started)
        requests = [item for item in selected.batch if isinstance(item, TensorRequest)]
        frames = [item for item in selected.batch if isinstance(item, Frame)]
        # A live stream need not know, and waking the event loop costs the engine's thread its turn.
        taken = [frame for frame in frames if frame.camera.owner.replays]
        work = _Work(selected.keys, frames, requests)
        if taken and self._expected_ns(engine) > HANDOVER_NS:
            self._report(Turn(taken=taken))
        else:
            work.taken = taken
        if frames and self.lost:
            work.failed, work.fault = _unprepared(engine, frames, self.lost, started), self.lost
        elif frames:
            try:
                self._side = (self._side + 1) % _pipeline(engine).sides
                work.prepared = _pipeline(engine).prepare(frames, self._side)
            except Exception as error:  # a bug of ours must cost these frames and no more
                work.failed, work.fault = _failed(engine, frames, error), failure(error)
            self._prepare_ns.append(self._clock() - started)
        return work

    def _compute(self, engine: OpenEngine, work: _Work) -> Sequence[Answer]:
        if work.prepared is None:
            return work.failed
        try:
            started = self._clock()
            expected_ns = self._expected_ns(engine)
            if expected_ns > HANDOVER_NS:  # else the engine is free before the other thread is awake
                self._mailbox.launching(self._worker, started + expected_ns)
            _pipeline(engine).launch(work.prepared)
            answers = _pipeline(engine).answer(work.prepared)
            self._launch_ns.append(self._clock() - started)
            return answers
        except Exception as error:  # as above
            work.fault = failure(error)
            return _failed(engine, work.frames, error)

    def _shed(self, engine: OpenEngine, items: Sequence[Frame | TensorRequest], now: int) -> None:
        """Answer what was late when its turn came."""
        if not items:
            return
        frames = [item for item in items if isinstance(item, Frame)]
        for frame in frames:
            frame.ledger.selected = now
        self._report(
            Turn(
                taken=[frame for frame in frames if frame.camera.owner.replays],
                answers=[engine.writer.without_numbers(frame, "late", LATE_AT_DEQUEUE) for frame in frames],
                outcomes=[(item, late(item, now)) for item in items if isinstance(item, TensorRequest)],
            )
        )

    def _replace(self, engine: OpenEngine, items: Sequence[Frame | TensorRequest], now: int) -> None:
        """Answer the frames of a set that another one replaced."""
        frames = [item for item in items if isinstance(item, Frame)]
        for frame in frames:
            frame.ledger.selected = now
        if frames:
            answers = [engine.writer.without_numbers(frame, "stale", SET_REPLACED) for frame in frames]
            self._report(Turn(answers=answers))


def _pipeline(engine: OpenEngine) -> Pipeline:
    assert engine.pipeline is not None  # noqa: S101 - streams of an engine without are refused
    return engine.pipeline


def _fault(engine: OpenEngine, work: _Work, computed: Sequence[tuple[TensorRequest, Outcome | None]]) -> str | None:
    """What went wrong with a turn: empty where nothing did, None where nothing came to be computed."""
    fault = work.fault or (work.prepared.fault if work.prepared is not None else "")
    if engine.pipeline is None:  # of an engine for cameras, requests of tensors are the less usual way to ask
        failures = (outcome.message for _, outcome in computed if isinstance(outcome, InferenceFailed))
        fault = fault or next(failures, "")
    launched = computed or any(frame.ledger.inferred is not None for frame in work.frames)
    return fault if fault or launched else None


def _unprepared(engine: OpenEngine, frames: Sequence[Frame], fault: str, now: int) -> list[Answer]:
    for frame in frames:
        frame.ledger.selected = now
    return [engine.writer.without_numbers(frame, "failed", fault) for frame in frames]


def _failed(engine: OpenEngine, frames: Sequence[Frame], error: Exception) -> list[Answer]:
    log.error("a batch of %d frames failed", len(frames), exc_info=error)
    return [engine.writer.without_numbers(frame, "failed", failure(error)) for frame in frames]
