"""Everything between the network and the engine: who is connected, what they may do, and who gets which answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from protos.monocoque.v1 import admin_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.engines.catalogue import EngineCatalogue
from server.engines.lane import UNLOADED, Lane
from server.engines.served_engine import ServedEngine, count_memory
from server.engines.thread import Turn
from server.errors import Draining, InferenceFailed, LimitReached, SwapRefused
from server.frames import CameraKey
from server.host.process_memory import ProcessMemory
from server.observe.metrics import OTHER_CAMERA, Metrics
from server.shared_memory.store import RegionStore
from server.state import StateFeed, judge
from server.stream.clock import HostClock
from server.stream.opening import Limits, check_open, reserved_bytes, slots_of
from server.stream.pieces import PIECE_BYTES
from server.stream.session import Session
from server.stream.watch import Audience, Seats

log = logging.getLogger("monocoque.server")


class Core:
    """Streams, watchers and their limits, on the event loop.

    Args:
        catalogue: What is served.
        limits: What is accepted.
        metrics: Where everything is counted.
        host: Our clocks.
        process: Our own memory.
        version: Of the server.
    """

    def __init__(
        self,
        catalogue: EngineCatalogue,
        limits: Limits,
        metrics: Metrics,
        host: HostClock,
        process: ProcessMemory,
        version: str,
    ) -> None:
        self.catalogue = catalogue
        self.limits = limits
        self.seats = Seats(limits.max_watchers, metrics)
        self.audience = Audience(metrics)
        self.state = StateFeed(host.utc_ns)
        self.sessions: dict[Session, int] = {}
        """Open streams, and the bytes reserved for each."""
        self.on_streams: Callable[[int], None] = lambda _: None
        """Told how many streams are open."""
        self.draining = False
        self._started = False
        self._broken = ""
        self.regions = RegionStore(None)
        """Where streams get shared memory from."""
        self.metrics = metrics
        self._host = host
        self._process = process
        self._version = version
        catalogue.on_load = self._count_engine
        catalogue.on_rollback = self._rolled_back
        catalogue.on_unload = self._forget_engine
        catalogue.on_restart = self._restarting
        catalogue.on_change = self._engines_changed

    @property
    def engine(self) -> ServedEngine:
        """The engine of clients that name none: the first that was loaded.

        Raises:
            EngineNotFound: None is served.
            EngineNotReady: It is loading or gone.
        """
        return self.catalogue.find().served

    def open(self, request: pb.Open) -> Session:
        """Open a stream.

        Raises:
            StreamEnded: It is not accepted; the message says why.
        """
        self.check_not_draining()
        lane = self.catalogue.find(request.engine, request.engine_version)
        lane.check_accepts()
        check_open(request, lane.served.bundle.manifest, self.limits)
        names = {camera.id for camera in request.cameras}
        outdated = [old for old in self.sessions if old.mailbox is lane.mailbox and not names.isdisjoint(old.cameras)]
        reserved = self._check_limits(request, outdated)
        session = Session(
            request,
            self.limits.max_frame_bytes,
            self._host,
            lane.mailbox,
            lane.writer,
            self.audience,
            self.metrics,
            lane.served.labels,
            lane.served.schema,
        )
        session.pins_version = bool(request.engine_version)
        for old in outdated:
            both = ", ".join(sorted(names & old.cameras.keys()))
            self.close(old)
            old.superseded.set_result(f"{session.id} sends {both} now")
        self.sessions[session] = reserved
        self._count_streams()
        self._expect(names, True)
        return session

    async def swap(self, name: str, version: str, path: str) -> admin_pb2.SwapEngineResponse:
        """Put another bundle in an engine's place while its streams go on.

        Args:
            name: The engine's name; empty means the first that was loaded.
            version: The engine's version; empty means the newest.
            path: The new bundle; empty means that it lies where the old one was.

        Raises:
            EngineError: It cannot be loaded.
            ServerError: It is refused. Nothing has changed, as above.
        """
        lane = self.catalogue.find(name, version)
        pinned = [session.id for session in self.sessions if session.mailbox is lane.mailbox and session.pins_version]
        if pinned:
            raise SwapRefused(
                f"{', '.join(pinned)} asked for version {lane.version} of {lane.name} by name",
                remedy="end these streams, or open them without engine_version",
            )
        lane, old = await self.catalogue.swap(name, version, Path(path) if path else None)
        new = lane.served
        if new is not old:
            self.metrics.forget_engine(old.bundle.manifest.name, old.bundle.manifest.version)
            self._count_engine(lane)
            log.info(
                "%s: version %s (%.12s) took the place of %s (%.12s)%s",
                lane.name,
                lane.version,
                new.bundle.digest,
                old.bundle.manifest.version,
                old.bundle.digest,
                "; its labels or outputs are others" if new.schema != old.schema else "",
            )
        else:
            log.info("%s: version %s (%.12s) is the bundle that lies there", lane.name, lane.version, old.bundle.digest)
        return admin_pb2.SwapEngineResponse(
            version=lane.version,
            digest=new.bundle.digest,
            replaced_digest=old.bundle.digest,
            schema_changed=new.schema != old.schema,
        )

    def _count_engine(self, lane: Lane) -> None:
        """An engine is served."""
        lane.served.count(self.metrics, self._version)

    def _rolled_back(self, lane: Lane, failed: ServedEngine) -> None:
        """An engine serves again in whose place another one failed."""
        self.metrics.forget_engine(lane.name, failed.bundle.manifest.version)
        self._count_engine(lane)
        self.metrics.rollbacks(lane.name).inc()

    def _restarting(self, lane: Lane) -> None:
        """An engine is opened again whose process died."""
        self.metrics.restarts(lane.name).inc()

    def _engines_changed(self) -> None:
        """An engine came, went, or has another state."""
        self._refresh_state()
        for session in self.sessions:
            session.go_on()

    def _refresh_state(self) -> None:
        self.state.update(
            judge(self.catalogue.lanes, started=self._started, draining=self.draining, broken=self._broken)
        )

    def start(self) -> None:
        """Everything is open: the state is the engines' from now on."""
        self._started = True
        self._refresh_state()

    def drain(self) -> None:
        """Accept nothing new from now on."""
        self.draining = True
        self._refresh_state()

    def fail(self, reason: str) -> None:
        """Only a restart helps, and everyone who asks is told so."""
        self._broken = reason
        self._refresh_state()

    def _forget_engine(self, lane: Lane) -> None:
        """An engine is about to be unloaded: its streams get no more answers."""
        self.metrics.forget_engine(lane.name, lane.version)
        for session in self.sessions:
            if session.mailbox is lane.mailbox:
                session.refuse_waiting(UNLOADED)

    async def share_memory(self, session: Session, request: pb.Open) -> None:
        """Make the memory that a stream asked for, if it did.

        Raises:
            StreamEnded: It cannot be had.
        """
        if request.shared_memory:
            session.region = await self.regions.create(request.cameras, slots_of(request))

    def check_not_draining(self) -> None:
        """Refuse new work while shutting down.

        Raises:
            Draining: The server is shutting down.
        """
        if self.draining:
            raise Draining("the server is shutting down", remedy="connect again once it is back")

    def close(self, session: Session) -> None:
        """End a stream, whatever the reason."""
        session.close()
        if session.region is not None:
            self.regions.close(session.region)
        self.sessions.pop(session, None)
        self._count_streams()

    def finished(self, session: Session) -> None:
        """A closed stream was ended by its client, in order: silence of its cameras is no fault."""
        self._expect(session.cameras.keys() - {name for other in self.sessions for name in other.cameras}, False)

    def _expect(self, cameras: Collection[str], frames: bool) -> None:
        """Note of which cameras frames are expected. Those that share a label are never all known to be done."""
        for label in {self.metrics.label(name) for name in cameras}:
            if frames or label != OTHER_CAMERA:
                self.metrics.camera_expected(label).set(frames)

    def opened(self, session: Session, request: pb.Open) -> pb.Opened:
        """The answer to `Open`."""
        served = self.catalogue.find(request.engine, request.engine_version).served
        region = session.region
        return pb.Opened(
            shared_memory=None if region is None else region.describe(self.regions.socket),
            stream_id=session.id,
            credits=session.credits,
            max_frame_bytes=self.limits.max_frame_bytes,
            max_width=self.limits.max_width,
            max_height=self.limits.max_height,
            engine_digest=served.bundle.digest,
            clock_kind=session.clock.kind,
            labels=served.labels,
            piece_bytes=PIECE_BYTES,
        )

    def on_turn(self, lane: Lane, turn: Turn) -> None:
        """What an engine's thread did. A bug of ours in one frame's answer costs no other frame its own."""
        if _failed(turn):
            lane.failed()
        for answer in turn.answers:
            answer.frame.camera.owner.deliver(answer)
        try:  # after the answers, which their credits go with
            for frame in turn.taken:
                frame.camera.owner.left_slot(frame)
        except Exception:  # credits are late by a frame then, answers are not
            log.exception("a frame's credit was not returned")
        if turn.answers:
            lane.statistics.answered(turn.answers, turn.batch_size)
        for request, outcome in turn.outcomes:
            request.answer(outcome)
        if turn.batch_size:
            self.metrics.batch_size().observe(turn.batch_size)
        if lane.closed:  # its series are gone
            return
        if turn.busy_ns:
            self.metrics.engine_busy(lane.name, lane.version).inc(turn.busy_ns / 1e9)
        if turn.memory is not None:
            count_memory(turn.memory, self.metrics, lane.name, lane.version)

    def refresh_gauges(self) -> None:
        """Bring up to date what is read only when someone asks."""
        depths: dict[str, int] = {values[0]: 0 for values in self.metrics.queue_depth.series}
        for lane in self.catalogue.lanes:
            for key, depth in lane.mailbox.depths().items():
                if isinstance(key, CameraKey):
                    label = self.metrics.label(key.camera_id)
                    depths[label] = depths.get(label, 0) + depth
            able, count = lane.instances
            if count:
                self.metrics.instances(lane.name, lane.version).set(able)
                self.metrics.degraded(lane.name, lane.version).set(bool(lane.served.degraded))
        for label, depth in depths.items():
            self.metrics.queue_depth(label).set(depth)
        self.metrics.process_memory("resident").set(self._process.resident_bytes())
        self.metrics.process_memory("peak").set(self._process.peak_bytes())
        self.metrics.refresh_ages()
        self.metrics.serving().set(self.state.current.state.computes)

    def _check_limits(self, request: pb.Open, outdated: Collection[Session]) -> int:
        """Bytes to reserve for a stream that takes the place of others, if any."""
        limits = self.limits
        sessions = {session: reserved for session, reserved in self.sessions.items() if session not in outdated}
        if len(sessions) >= limits.max_streams:
            raise LimitReached(
                f"{len(sessions)} streams are open, {limits.max_streams} are allowed",
                remedy="close one, or start the server with a larger --max-streams",
            )
        cameras = sum(len(session.cameras) for session in sessions)
        if cameras + len(request.cameras) > limits.max_cameras:
            raise LimitReached(
                f"{cameras} cameras are open and {len(request.cameras)} more were asked for, "
                f"{limits.max_cameras} are allowed",
                remedy="close a stream, or start the server with a larger --max-cameras",
            )
        reserved, needed = sum(sessions.values()), reserved_bytes(request)
        if reserved + needed > limits.memory_budget_bytes:
            raise LimitReached(
                f"the stream's frames need {needed} bytes, {limits.memory_budget_bytes - reserved} of "
                f"{limits.memory_budget_bytes} are left",
                remedy="open fewer or smaller cameras, or start the server with a larger --memory-budget",
            )
        return needed

    def _count_streams(self) -> None:
        self.on_streams(len(self.sessions))
        self.metrics.streams().set(len(self.sessions))
        self.metrics.cameras().set(sum(len(session.cameras) for session in self.sessions))


def _failed(turn: Turn) -> bool:
    """Whether nothing came of a turn."""
    if turn.answers:
        return turn.answers[0].status == "failed"
    return bool(turn.outcomes) and isinstance(turn.outcomes[0][1], InferenceFailed)
