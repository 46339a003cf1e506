"""The engines of one bundle, each on its own thread, and another one in place of each whose process dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from engine.bundle import Bundle
from engine.errors import EngineError
from server.engines.mailbox import Mailbox
from server.engines.opening import EngineHost, OpenEngine, open_engine
from server.engines.supervision import Backoff, ProcessWatch
from server.engines.thread import EngineThread, Turn
from server.errors import Draining, ServerError
from server.host.tuning import run_first

log = logging.getLogger("monocoque.engine")
_numbers = itertools.count(1)


class Owner(Protocol):
    """Who is told of instances, on the event loop."""

    def died(self, instances: Instances, fault: str) -> bool:
        """One of them computes nothing any more; returns whether another one is to be opened in its place."""

    def reopening(self, instances: Instances) -> None:
        """One of them is opened again."""

    def changed(self, instances: Instances) -> None:
        """One of them died, serves again, could not be opened again, or was given up."""


@dataclass(eq=False)
class _Instance:
    """One engine.

    Attributes:
        thread: The thread that runs it.
        engine: The engine.
        since_ns: When it was opened.
        fault: Why it computes nothing; empty while it does. Its thread then answers FAILED, where no other instance
            can do better.
        given_up: Whether it is not opened again.
        backoff: When it is.
        watch: Of its process, if it has one.
    """

    thread: EngineThread
    engine: OpenEngine
    since_ns: int
    fault: str = ""
    given_up: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    watch: ProcessWatch | None = None


class Instances:
    """As many engines of a bundle as a server is told to open. On the event loop, but for `pause` and `resume`.

    Args:
        bundle: What they are opened from.
        host: What they are opened with.
        mailbox: Where they take turns from.
        report: Told of each turn; on an engine's thread.
        owner: Told of what happens to them.
    """

    def __init__(
        self, bundle: Bundle, host: EngineHost, mailbox: Mailbox, report: Callable[[Turn], None], owner: Owner
    ) -> None:
        self._bundle = bundle
        self._host = host
        self._mailbox = mailbox
        self._report = report
        self._owner = owner
        self._all: list[_Instance] = []
        self._lock = threading.Lock()
        """Around who takes turns: a new engine's thread hands back to the old one's."""
        self._paused = False
        self._serving = False
        self._reopening: set[asyncio.Task[None]] = set()
        self._retired: set[EngineThread] = set()

    async def open(self) -> None:
        """Open them, one after the other: each may measure what it takes. None takes a turn yet.

        Raises:
            EngineError: One cannot be loaded.
            StartFailed: One does not compute what it did when the bundle was built.
            Draining: The server ends, and does not wait for it.
        """
        try:
            for _ in range(self._host.instances):
                instance = _Instance(*await self._open_one(), since_ns=self._host.clock())
                self._all.append(instance)
                self._watch(instance)
        except BaseException:
            await self.end()
            raise

    @property
    def engine(self) -> OpenEngine:
        """One that computes, or else one that did."""
        return next((instance.engine for instance in self._all if not instance.fault), self._all[0].engine)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._all)

    @property
    def able(self) -> int:
        """How many of them compute."""
        return sum(not instance.fault for instance in self._all)

    @property
    def fault(self) -> str:
        """What became of those that do not; empty where all do."""
        return "; ".join(dict.fromkeys(instance.fault for instance in self._all if instance.fault))

    @property
    def given_up(self) -> bool:
        """Whether none computes, and none will."""
        return all(instance.given_up for instance in self._all)

    def serve(self) -> None:
        """Begin to take turns."""
        self._serving = True
        for instance in self._all:
            instance.thread.serve()

    def pause(self) -> None:
        """Finish the turns they have, and take no more until `resume`. On any thread."""
        self._paused = True
        self._arrange()

    def resume(self) -> None:
        """Take turns again. On any thread."""
        self._paused = False
        self._arrange()

    def look(self) -> None:
        """Something failed: if a process has ended, do not wait to be told."""
        for instance in self._all:
            if instance.watch is not None:
                instance.watch.look()

    def judge(self, judge: Callable[[str], object] | None) -> None:
        """Have somebody told of each batch, on an engine's thread: what went wrong with it, or nothing."""
        for instance in self._all:
            instance.thread.judge = judge

    async def end(self) -> None:
        """End them after the turns they have; what they would have taken is left to others."""
        for instance in self._all:
            if instance.watch is not None:
                instance.watch.close()
            instance.thread.stop()
        for task in self._reopening:
            task.cancel()
        await asyncio.gather(*self._reopening, return_exceptions=True)
        for thread in (*(instance.thread for instance in self._all), *self._retired):
            await asyncio.to_thread(thread.join)

    def _arrange(self) -> None:
        """Let those take turns that compute. Where none does, each turn is answered with the reason."""
        with self._lock:
            for instance in self._all:
                if self._paused or (instance.fault and self.able):
                    instance.thread.pause()
                else:
                    instance.thread.resume()

    def _watch(self, instance: _Instance) -> None:
        process = instance.engine.process
        if process is not None:
            instance.watch = ProcessWatch(process, lambda: self._on_end(instance))

    def _on_end(self, instance: _Instance) -> None:
        """An instance's process has ended."""
        process = instance.engine.process
        instance.fault = (process.fate if process is not None else "") or "the engine's process ended"
        instance.thread.lost = instance.fault
        self._arrange()
        if self._owner.died(self, instance.fault):
            task = asyncio.ensure_future(self._open_again(instance))
            self._reopening.add(task)
            task.add_done_callback(self._reopening.discard)
        self._owner.changed(self)

    async def _open_again(self, instance: _Instance) -> None:
        """Open another engine in place of one that died, now or later; the dead one's thread serves until then."""
        served_seconds = (self._host.clock() - instance.since_ns) / 1e9
        while (delay_seconds := instance.backoff.failed(served_seconds)) is not None:
            log.error("%s: %s; it is opened again in %g s", self._name, instance.fault, delay_seconds)
            await asyncio.sleep(delay_seconds)
            self._owner.reopening(self)
            try:
                opened = await self._open_one()
            except Draining:
                return
            except Exception as error:
                if not isinstance(error, (EngineError, ServerError)):
                    log.exception("%s could not be opened again", self._name)
                instance.fault = f"it could not be opened again: {getattr(error, 'message', repr(error))}"
                served_seconds = 0
                self._owner.changed(self)
                continue
            await self._replace(instance, *opened)
            return
        instance.given_up = True
        log.error("%s: %s; given up after %d failures in a row", self._name, instance.fault, instance.backoff.failures)
        self._owner.changed(self)

    async def _replace(self, instance: _Instance, thread: EngineThread, engine: OpenEngine) -> None:
        old, instance.thread, instance.engine = instance.thread, thread, engine
        instance.fault, instance.since_ns = "", self._host.clock()
        self._watch(instance)
        self._arrange()
        if self._serving:
            thread.serve()
        self._retired.add(old)
        old.stop()
        log.info("%s: its process %s serves again", self._name, engine.process.pid if engine.process else "")
        self._owner.changed(self)
        await asyncio.to_thread(old.join)
        self._retired.discard(old)

    async def _open_one(self) -> tuple[EngineThread, OpenEngine]:
        """An engine on a thread of its own, which takes no turn yet.

        The thread outlives this only where the server ends meanwhile; it then takes no turn, and ends once it could.
        """
        host = self._host
        host.openings.check()
        thread = EngineThread(next(_numbers), self._mailbox, self._report, host.died, host.clock)

        def on_thread(stack: contextlib.ExitStack) -> OpenEngine:
            if host.realtime_priority is not None:
                run_first(host.realtime_priority)
            return open_engine(self._bundle, host, stack)

        opened = host.openings.begin(self._name, thread.open(on_thread))
        try:
            return thread, await host.openings.result(opened)
        except BaseException:
            thread.stop()
            if await host.openings.finished(opened):
                await asyncio.to_thread(thread.join)
            raise

    @property
    def _name(self) -> str:
        return f"{self._bundle.manifest.name} {self._bundle.manifest.version}"
