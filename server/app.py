"""The server as a whole: everything is put together, started, drained and stopped here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
from collections import deque
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import cv2
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.bundle import Bundle
from engine.errors import EngineError
from engine.opening import open_runtime
from engine.process import WorkerRuntime
from engine.runtime import Runtime
from engine.slots import RegionTable
from server.admin import ADMIN_SERVICE, AdminService
from server.core import Core
from server.engines.catalogue import EngineCatalogue
from server.engines.lane import Lane
from server.engines.mailbox import Mailbox
from server.engines.opening import EngineHost, OpenRuntime
from server.engines.thread import Turn
from server.errors import ServerError
from server.grpc_options import calls_at_once, server_options
from server.host.allocator import keep_large_buffers
from server.host.huge_pages import use_huge_pages
from server.host.ports import join, listening, probe
from server.host.process_memory import ProcessMemory
from server.host.tuning import WakeLatency, lock_memory, parse_cpus, pin
from server.host.wakeup import Wakeup
from server.observe.metrics import Metrics
from server.observe.scrape import ScrapeServer
from server.open_inference.models import request_bytes
from server.open_inference.service import SERVICE as OPEN_INFERENCE
from server.open_inference.service import OpenInferenceService
from server.service import SERVICE, Service
from server.settings import Settings
from server.shared_memory.handover import Handover
from server.shared_memory.store import RegionStore
from server.state import State
from server.stream.clock import HostClock
from server.stream.opening import Limits

log = logging.getLogger("monocoque.server")

LIVENESS = "liveness"
"""Health service that says whether the process needs a restart: NOT_SERVING in the state FAILED alone."""
MESSAGE_OVERHEAD_BYTES = 64 << 10
"""Room for a frame's header beside its pixels."""
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LAST_WORDS_SECONDS = 1.0
"""For the last answers to leave, once everything is answered."""


def server_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("monocoque")
    except PackageNotFoundError:
        return "unknown"


def limits_of(settings: Settings) -> Limits:
    """What a configuration accepts."""
    width, height = settings.frame_size
    return Limits(
        max_width=width,
        max_height=height,
        max_streams=settings.max_streams,
        max_cameras=settings.max_cameras,
        max_watchers=settings.max_watchers,
        memory_budget_bytes=settings.memory_budget,
    )


def overlaps(setting: str) -> bool:
    """Whether a batch is prepared while another is computed: that takes a second core."""
    return setting == "on" or (setting == "auto" and len(os.sched_getaffinity(0)) > 1)


@dataclass
class Addresses:
    """Where a running server is reached.

    Attributes:
        frames: `host:port` for gRPC.
        metrics: URL for Prometheus.
    """

    frames: str
    metrics: str


class Server:
    """A server in this process.

    ::

        server = Server(Settings(bundle="out/bundle", port=0, metrics_port=0))
        addresses = await server.start()
        ...
        await server.stop()

    Args:
        settings: The configuration.
        open_engine_runtime: Loads the runtime; None opens the one that the settings ask for. Tests pass a fake.
        host_clock: The clocks; None means this host's.
    """

    def __init__(
        self, settings: Settings, open_engine_runtime: OpenRuntime | None = None, host_clock: HostClock | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.max_cameras)
        self._open_runtime = open_engine_runtime or self._configured_runtime
        self._host_clock = host_clock or HostClock.of_this_host()
        self._process = ProcessMemory(self._host_clock.monotonic_ns)
        host = EngineHost(
            open_runtime=self._open_runtime,
            max_batch=settings.max_batch,
            instances=settings.instances,
            self_check=settings.self_check,
            overlap=overlaps(settings.overlap),
            realtime_priority=settings.realtime_priority,
            record=settings.record_scheduler,
            clock=self._host_clock.monotonic_ns,
            process=self._process,
            died=self._on_thread_death,
        )
        self._opening_process = host.openings.ending
        self.catalogue = EngineCatalogue(host, self._report, settings.repository)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined] # missing from the stubs
        self._telling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()
        self._turns: deque[tuple[Lane, Turn]] = deque()
        self._turns_waiting = False

    async def start(self) -> Addresses:
        """Open the engine, then the ports; frames are accepted when this returns.

        Raises:
            EngineError: The bundle or its engine cannot be used.
            StartFailed: A port is taken, or the engine does not compute what it should.
        """
        self._loop = asyncio.get_running_loop()
        limits = limits_of(self.settings)
        if self.settings.cpus is not None:
            pin(parse_cpus(self.settings.cpus))
        if self.settings.lock_memory:
            lock_memory()
        wake_latency: WakeLatency | None = None
        if self.settings.wake_latency_us is not None:
            wake_latency = WakeLatency(self.settings.wake_latency_us)
            self._stack.callback(wake_latency.close)
        keep_large_buffers(2 * limits.max_frame_bytes * self.settings.max_cameras)
        cv2.setNumThreads(self.settings.threads or os.cpu_count() or 1)
        self._wakeup = Wakeup(self._take_turns)
        self._stack.callback(self._wakeup.close)  # last: engines' threads have ended
        try:
            self._check_ports()
            self._stack.push_async_callback(self.catalogue.close)
            self.core = Core(self.catalogue, limits, self.metrics, self._host_clock, self._process, server_version())
            self.core.state.on_change = self._on_state
            if wake_latency is not None:
                self.core.on_streams = lambda count: wake_latency.hold() if count else wake_latency.release()
            await self.catalogue.open(self.settings.bundle)
            addresses = await self._listen(limits)
        except BaseException:
            await self._stack.aclose()
            raise
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the process: no collection needs to look at it again
        log.debug("%d MB of memory lie in huge pages", use_huge_pages() >> 20)
        self.core.start()
        await self._tell_health()
        for lane in self.catalogue.lanes:
            description = lane.served.description
            log.info(
                "serving %s %s (%s, %s on %s) at %s, metrics at %s",
                lane.name,
                lane.version,
                description.graph,
                description.backend,
                description.device,
                addresses.frames,
                addresses.metrics,
            )
        return addresses

    async def stop(self) -> None:
        """Accept nothing new, answer what was accepted, close everything."""
        self.service.drain()
        await self._tell_health()
        self.open_inference.drain()
        deadline = self._loop.time() + self.settings.drain_seconds
        while not (self.open_inference.idle and not self.core.sessions) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for session in list(self.core.sessions):
            session.refuse_waiting("the server is shutting down")
        self.catalogue.give_up()
        self.core.audience.finish()
        self.core.state.finish()
        await self._stack.aclose()

    async def reload(self) -> None:
        """Look at every bundle again, and swap the engines whose bundle is another one now; see `Core.swap`."""
        for lane in self.catalogue.lanes:
            await self._reload(lane)

    async def _reload(self, lane: Lane) -> None:
        try:
            await self.core.swap(lane.name, lane.version, "")
        except (EngineError, ServerError) as error:
            log.warning("%s %s stays as it is: %s", lane.name, lane.version, error)

    @property
    def mailbox(self) -> Mailbox:
        """Where frames wait for the first engine."""
        return self.catalogue.find().mailbox

    def _check_ports(self) -> None:
        """Say that a port cannot be had before an engine is opened, which may take minutes."""
        settings = self.settings
        for flag, port in (("--port", settings.port), ("--metrics-port", settings.metrics_port)):
            with listening(flag, settings.host, port):
                probe(settings.host, port)

    async def _listen(self, limits: Limits) -> Addresses:
        settings = self.settings
        largest = self._largest_message(limits)
        calls = calls_at_once(limits, largest)
        server = grpc.aio.server(options=server_options(calls, largest), maximum_concurrent_rpcs=calls)
        if settings.shared_memory_socket != "off":
            handover = Handover(settings.shared_memory_socket)
            handover.start()
            self._stack.push_async_callback(handover.stop)
            self.core.regions = RegionStore(handover)
        self.service = Service(self.core)
        self.open_inference = OpenInferenceService(self.core, server_version(), settings.instances)
        handlers = (self.service.handler(), self.open_inference.handler(), AdminService(self.core).handler())
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, ADMIN_SERVICE, OPEN_INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        scrape = ScrapeServer(self.metrics, self._refresh_metrics)
        with listening("--port", settings.host, settings.port):
            port = self.open_inference.port = server.add_insecure_port(join(settings.host, settings.port))
        with listening("--metrics-port", settings.host, settings.metrics_port):
            metrics_port = await scrape.start(settings.host, settings.metrics_port)
        self._stack.push_async_callback(scrape.stop)
        await server.start()
        self._stack.push_async_callback(server.stop, LAST_WORDS_SECONDS)
        return Addresses(join(settings.host, port), f"http://{join(settings.host, metrics_port)}/metrics")

    def _refresh_metrics(self) -> None:
        """Called when Prometheus asks."""
        self.core.refresh_gauges()
        self.open_inference.refresh_metrics()

    def _largest_message(self, limits: Limits) -> int:
        """Bytes: the largest frame, or the largest request of an engine that was loaded at the start."""
        requests = max((request_bytes(lane.served) for lane in self.catalogue.lanes), default=0)
        return max(limits.max_frame_bytes, min(requests, limits.memory_budget_bytes)) + MESSAGE_OVERHEAD_BYTES

    def _on_state(self) -> None:
        task = asyncio.ensure_future(self._tell_health())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_health(self) -> None:
        """Let the health service say what the state is."""
        async with self._telling:  # in order: the last one to speak has seen the newest state
            state = self.core.state.current.state
            for services, good in (
                (("", SERVICE, OPEN_INFERENCE), state.computes),
                ((LIVENESS,), state is not State.FAILED),
            ):
                for service in services:
                    await self._health.set(service, _SERVING if good else _NOT_SERVING)

    def _configured_runtime(self, bundle: Bundle, regions: RegionTable) -> Runtime:
        settings = self.settings
        in_process = functools.partial(WorkerRuntime, opening=self._opening_process)
        return (in_process if settings.engine_process else open_runtime)(
            bundle,
            settings.target,
            regions,
            threads=settings.threads,
            spin=settings.spin,
            fallback=settings.fallback,
            plan_cache=settings.plan_cache,
        )

    def _on_thread_death(self) -> None:
        """Called on an engine's thread, which a bug of ours has ended: only a restart helps."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(
                self.core.fail, "an engine's thread ended, the log says why; restart the server"
            )

    def _report(self, lane: Lane, turn: Turn) -> None:
        """Called on an engine's thread. The event loop is woken once for all turns that it has not seen yet."""
        self._turns.append((lane, turn))
        if not self._turns_waiting:
            self._turns_waiting = True
            self._wakeup.ask()

    def _take_turns(self) -> None:
        self._turns_waiting = False  # first: a turn that comes from here on wakes us again
        while self._turns:
            self._take_turn(*self._turns.popleft())

    def _take_turn(self, lane: Lane, turn: Turn) -> None:
        try:
            self.core.on_turn(lane, turn)
        except Exception:  # a bug of ours must not keep the turns behind it from the loop
            log.exception("what an engine did was not taken in whole")
