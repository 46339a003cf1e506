"""The one thread that owns a runtime: it opens it, runs every batch, and closes it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from engine.runtime import MemoryReport
from server.engine_opening import OpenEngine
from server.frames import Answer, Frame
from server.mailbox import Mailbox
from server.process_memory import SAMPLE_INTERVAL_NS
from server.tensor_pipeline import late
from server.tensor_request import TensorRequest

log = logging.getLogger("monocoque.engine")

LATE_AT_DEQUEUE = "past its maximum age when its turn came"


@dataclass
class Turn:
    """What the event loop is told of a turn.

    Attributes:
        taken: Frames that left their slots; sent before they are computed.
        answers: What became of frames.
        batch_size: Frames that were launched; 0 in a message about something else.
        busy_ns: Time the engine's thread spent.
        memory: What the engine holds, once in a while.
    """

    taken: Sequence[Frame] = ()
    answers: Sequence[Answer] = ()
    batch_size: int = 0
    busy_ns: int = 0
    memory: MemoryReport | None = None


class EngineThread:
    """Takes batches from the mailbox until it is closed, or until this thread is retired.

    Args:
        number: Names it among the threads that share the mailbox.
        mailbox: Where frames wait.
        report: Hands a turn to the event loop; called on this thread.
        died: Told that the thread ended on its own, which only a bug of ours can cause; called on this thread.
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
        self.number = number
        self._mailbox = mailbox
        self._report = report
        self._died = died
        self._memory_sampled_at = 0
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self._stopping = False

    def open(self, open_engine: Callable[[contextlib.ExitStack], OpenEngine]) -> Future[OpenEngine]:
        """Start the thread and open the engine on it. It takes nothing from the mailbox yet.

        Args:
            open_engine: Opens the engine; what it pushes on the stack is undone on the same thread at the end.

        Returns:
            Done when the engine is open, or failed to open.
        """
        opened: Future[OpenEngine] = Future()
        self._thread = threading.Thread(target=self._main, args=(open_engine, opened), name=f"engine-{self.number}")
        self._thread.start()
        return opened

    def serve(self) -> None:
        """Begin to take batches."""
        self._serving.set()

    def stop(self) -> None:
        """End the thread after the batch it has; what it would have taken is left to others."""
        self._stopping = True
        self._mailbox.retire(self.number)
        self._serving.set()

    def join(self) -> None:
        """Wait for the thread to end; `stop` it first."""
        if self._thread is not None:
            self._thread.join()

    def _main(self, open_engine: Callable[[contextlib.ExitStack], OpenEngine], opened: Future[OpenEngine]) -> None:
        with contextlib.ExitStack() as stack:
            try:
                engine = open_engine(stack)
            except BaseException as error:  # whoever waits for the future raises it
                opened.set_exception(error)
                return
            opened.set_result(engine)
            self._serving.wait()
            try:
                while not self._stopping and self._turn(engine):  # nothing of a turn is held while waiting for the next
                    pass
            except BaseException:
                log.exception("the engine's thread ended; restart the server")
                self._died()

    def _turn(self, engine: OpenEngine) -> bool:
        """Wait for frames and compute them; False once there will be none."""
        selection = self._mailbox.take(engine.max_batch, engine.curve, self.number)
        if selection is None:
            return False
        started = self._clock()
        self._shed(engine, selection.late, started)
        requests = [item for item in selection.batch if isinstance(item, TensorRequest)]
        frames = [item for item in selection.batch if isinstance(item, Frame)]
        for request in requests:
            engine.infer(request)
        taken = [frame for frame in frames if frame.camera.owner.replays]
        if taken:  # a live stream need not know, and waking the event loop costs the engine's thread its turn
            self._report(Turn(taken=taken))
        answers = self._compute(engine, frames) if frames else []
        self._mailbox.finish(selection.keys)
        if selection.batch:
            launched = sum(frame.ledger.inferred is not None for frame in frames)
            now = self._clock()
            memory = None
            if now - self._memory_sampled_at >= SAMPLE_INTERVAL_NS:
                self._memory_sampled_at, memory = now, engine.memory()
            self._report(Turn(answers=answers, batch_size=launched, busy_ns=now - started, memory=memory))
        return True

    def _shed(self, engine: OpenEngine, items: Sequence[Frame | TensorRequest], now: int) -> None:
        """Answer what was late when its turn came."""
        frames = []
        for item in items:
            if isinstance(item, TensorRequest):
                item.answer(late(item, now))
                continue
            item.ledger.selected = now
            frames.append(item)
        if frames:
            answers = [engine.writer.without_numbers(frame, "late", LATE_AT_DEQUEUE) for frame in frames]
            self._report(Turn(taken=[frame for frame in frames if frame.camera.owner.replays], answers=answers))

    @staticmethod
    def _compute(engine: OpenEngine, batch: Sequence[Frame]) -> list[Answer]:
        try:
            return engine.run(batch)
        except Exception as error:  # a bug of ours must cost these frames and no more
            log.exception("a batch of %d frames failed", len(batch))
            reason = f"the server failed to compute this frame: {type(error).__name__}: {error}"
            return [engine.writer.without_numbers(frame, "failed", reason) for frame in batch]
