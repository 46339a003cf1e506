"""The five states of a server, and those who follow them: the newest state for each, and nobody waits for them."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from protos.monocoque.v1 import state_pb2 as pb
from server.engines.lane import EngineState, Lane
from server.errors import EngineNotReady

log = logging.getLogger("monocoque.server")
OPENING = "the engines are being opened"


class State(enum.Enum):
    """What a server can do; `state.proto` says what each means."""

    STARTING = pb.SERVER_STATE_STARTING
    SERVING = pb.SERVER_STATE_SERVING
    DEGRADED = pb.SERVER_STATE_DEGRADED
    DRAINING = pb.SERVER_STATE_DRAINING
    FAILED = pb.SERVER_STATE_FAILED

    @property
    def computes(self) -> bool:
        """Whether frames are computed: what the gRPC health service calls SERVING."""
        return self in (State.SERVING, State.DEGRADED)


@dataclass(frozen=True)
class EngineStatus:
    """One engine; the fields are those of the message."""

    name: str
    version: str
    digest: str
    state: EngineState
    reason: str
    instances_ready: int
    instances: int
    restarts: int
    since_utc_ns: int = 0

    @classmethod
    def of(cls, lane: Lane) -> EngineStatus:
        """What an engine is now."""
        try:
            digest = lane.served.bundle.digest
        except EngineNotReady:
            digest = ""
        ready, count = lane.instances
        return cls(
            lane.name, lane.version, digest, lane.state, lane.impairment or lane.reason, ready, count, lane.restarts
        )


@dataclass(frozen=True)
class Status:
    """What a server is now.

    Attributes:
        state: What it can do.
        reason: Why it is not SERVING; empty where it is.
        engines: Its engines.
        since_utc_ns: Since when `state` is so.
    """

    state: State
    reason: str
    engines: tuple[EngineStatus, ...] = ()
    since_utc_ns: int = 0

    def message(self) -> bytes:
        """On the wire."""
        response = pb.WatchStateResponse(state=self.state.value, reason=self.reason, since_utc_ns=self.since_utc_ns)
        for engine in self.engines:
            state = pb.EngineState.Value(f"ENGINE_STATE_{engine.state.name}")
            response.engines.add(**{**vars(engine), "state": state})
        return response.SerializeToString()


def judge(lanes: Sequence[Lane], *, started: bool = True, draining: bool = False, broken: str = "") -> Status:
    """What a server is that serves these engines.

    Args:
        lanes: The engines.
        started: Whether those that it was started with are open, and it listens.
        draining: Whether it is shutting down.
        broken: Why only a restart helps, whatever the engines say; empty where it would not.
    """
    engines = tuple(EngineStatus.of(lane) for lane in lanes)
    if draining:
        return Status(State.DRAINING, "it is shutting down", engines)
    if broken:
        return Status(State.FAILED, broken, engines)
    if not started:
        return Status(State.STARTING, OPENING, engines)
    if not lanes:
        return Status(State.STARTING, "no engine is loaded", engines)
    if any(lane.state is EngineState.READY for lane in lanes):
        lacks = "; ".join(_lack(lane) for lane in lanes if lane.impairment)
        return Status(State.DEGRADED if lacks else State.SERVING, lacks, engines)
    reason = "; ".join(f"{lane.name} {lane.version}: {lane.reason}" for lane in lanes)
    failed = all(lane.state is EngineState.UNAVAILABLE for lane in lanes)
    return Status(State.FAILED if failed else State.STARTING, reason, engines)


def _lack(lane: Lane) -> str:
    able, count = lane.instances
    some = f"{able} of {count} instances: " if 0 < able < count else ""
    return f"{lane.name} {lane.version}: {some}{lane.impairment}"


class StateWatcher:
    """One who follows: what it has not been told yet, of which only the newest counts."""

    def __init__(self, status: Status) -> None:
        self._pending: Status | None = status
        self._changed = asyncio.Event()
        self._finished = False

    def offer(self, status: Status) -> None:
        """Replace what it has not been told yet."""
        self._pending = status
        self._changed.set()

    def finish(self) -> None:
        """No other state will come."""
        self._finished = True
        self._changed.set()

    async def next(self) -> Status | None:
        """The newest state, as soon as it is another one; None when no more will come."""
        while self._pending is None:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        status, self._pending = self._pending, None
        return status


class StateFeed:
    """The state, and its followers. On the event loop.

    Args:
        utc_ns: Unix time in nanoseconds.
    """

    def __init__(self, utc_ns: Callable[[], int]) -> None:
        self._utc_ns = utc_ns
        self._watchers: set[StateWatcher] = set()
        self.current = Status(State.STARTING, OPENING, since_utc_ns=utc_ns())
        self.on_change: Callable[[], None] = lambda: None
        """Told of a state that is another one than before."""

    def update(self, status: Status) -> None:
        """Take note of a state, and tell everyone where it is not the one before."""
        now, before = self._utc_ns(), self.current
        known = {(one.name, one.version, one.digest, one.state): one.since_utc_ns for one in before.engines}
        engines = tuple(
            replace(one, since_utc_ns=known.get((one.name, one.version, one.digest, one.state), now))
            for one in status.engines
        )
        since = before.since_utc_ns if status.state is before.state else now
        status = replace(status, engines=engines, since_utc_ns=since)
        if status == before:
            return
        self.current = status
        if (status.state, status.reason) != (before.state, before.reason):
            good = status.state in (State.SERVING, State.DRAINING, State.STARTING)
            log.log(
                logging.INFO if good else logging.WARNING, "the server is %s%s", status.state.name, _because(status)
            )
        for watcher in self._watchers:
            watcher.offer(status)
        self.on_change()

    def join(self) -> StateWatcher:
        """Add a follower; it is told of the current state first."""
        watcher = StateWatcher(self.current)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: StateWatcher) -> None:
        """Remove a follower."""
        self._watchers.discard(watcher)

    def finish(self) -> None:
        """Let everyone go."""
        for watcher in self._watchers:
            watcher.finish()


def _because(status: Status) -> str:
    return f": {status.reason}" if status.reason else ""
