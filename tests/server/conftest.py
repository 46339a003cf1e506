from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
import pytest

from engine.bundle import Bundle
from engine.fake import Compute, FakeRuntime
from engine.runtime import MemoryReport, Runtime, RuntimeDescription
from engine.slots import RegionTable
from protos.monocoque.v1.result_pb2 import STATUS_OK
from server.app import Addresses, Server
from server.engines.opening import OpenRuntime
from server.settings import Settings
from server.stream.clock import HostClock
from tests.server.bundles import write_bundle
from tests.server.raw_client import PATIENCE_SECONDS, RawStream, RawWatch, camera, frame

Arrays = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "quarters")


@dataclass
class Engine:
    """A fake engine that a test holds in its hands: it waits at each launch while it is held, and fails on demand."""

    hold: bool = False
    fail: str = ""
    nan: bool = False
    degraded: str | None = None
    memory: dict[str, int] = field(default_factory=dict)
    batches: list[list[float]] = field(default_factory=list)
    """Mean input value of each frame, per launch."""
    on_launch: Callable[[], None] = lambda: None
    _entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def entered(self) -> None:
        """Wait for a launch."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE_SECONDS), "the engine was not launched"

    def release(self, launches: int = 1) -> None:
        """Let held launches go on."""
        self._go.release(launches)

    def free(self) -> None:
        """Hold no more."""
        self.hold = False
        self._go.release(1000)

    def compute(self, inputs: Arrays, outputs: Arrays) -> None:
        images = inputs["images"]
        means = images.reshape(len(images), -1).mean(axis=1)
        if means.any():  # the warm-up's input is zero
            self.batches.append([float(mean) for mean in means])
            self.on_launch()
            self._entered.release()
            if self.hold:
                assert self._go.acquire(timeout=PATIENCE_SECONDS), "the engine was never released"
            if self.fail:
                raise RuntimeError(self.fail)
        outputs["scores"][:] = np.nan if self.nan else 0.9
        outputs["classes"][:] = [0, 1]
        outputs["boxes"][:] = [[0, 0, 16, 16], [8, 4, 24, 12]]
        outputs["distances"][:] = [10, 20]
        outputs["drivable"][:] = 0.5

    def open(self, bundle: Bundle, regions: RegionTable) -> Runtime:
        manifest = bundle.manifest
        description = RuntimeDescription(
            backend="fake",
            backend_version="1",
            target="cpu",
            graph="float",
            precision="fp32",
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            max_batch=manifest.max_batch,
            device="none",
            degraded=self.degraded,
        )
        return _WithMemory(description, regions, self.compute, self.memory)


class _WithMemory(FakeRuntime):
    """A fake that says what it holds."""

    def __init__(
        self, description: RuntimeDescription, regions: RegionTable, compute: Compute, held: dict[str, int]
    ) -> None:
        super().__init__(description, regions, compute)
        self._held = held

    def memory(self) -> MemoryReport:
        return MemoryReport(dict(self._held))


@dataclass
class FakeTime:
    """Clocks that move when a test says so."""

    now_ns: int = 1_000_000_000

    def host(self) -> HostClock:
        return HostClock(
            monotonic_ns=lambda: self.now_ns,
            utc_ns=lambda: self.now_ns + 10**18,
            boot_id="boot",
            time_namespace="time",
        )


@dataclass
class Running:
    """A server that runs in this process, and a channel to it."""

    server: Server
    addresses: Addresses
    channel: grpc.aio.Channel

    def stream(self) -> RawStream:
        return RawStream(self.channel)

    def watch(self, *camera_ids: str) -> RawWatch:
        return RawWatch(self.channel, camera_ids)

    async def metrics(self) -> str:
        """The page, as Prometheus gets it."""
        address = self.addresses.metrics.removeprefix("http://").removesuffix("/metrics")
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200")
        return body

    async def open_one(self, camera_id: str) -> RawStream:
        """A stream of one camera."""
        stream = self.stream()
        await stream.open([camera(camera_id)])
        return stream

    async def still_serves(self) -> None:
        """Another stream gets its answer."""
        stream = await self.open_one("other")
        await stream.send(frame(1, "other"))
        assert (await stream.results(1))[0].status == STATUS_OK
        await stream.finish()

    def frames(self, status: str, camera_id: str = "front") -> int:
        """Frames of a camera that ended so."""
        return int(self.server.metrics.camera(camera_id).frames[status]._value.get())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        for _ in range(int(PATIENCE_SECONDS * 1000)):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("what was waited for did not happen")


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and errors that were logged, without what gRPC says of calls of an earlier test, whose loop is gone."""
    said = (
        f"{record.getMessage()} {record.exc_info}" for record in caplog.records if record.levelno >= logging.WARNING
    )
    return [message for message in said if "Event loop is closed" not in message]


@contextlib.asynccontextmanager
async def serving(
    bundle: Path, open_runtime: OpenRuntime | None = None, host: HostClock | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A server in this process, ready.

    Args:
        bundle: What it serves.
        open_runtime: Opens the engine of a test. Nothing is then prepared ahead unless `overlap="on"` is said: whether
            it is depends on how fast the machine is at the moment, and a test that holds its engine counts what waits.
        host: Its clocks; None means this host's.
        settings: What differs from a small server's.
    """
    fields = {"port": 0, "metrics_port": 0, "max_frame": "128x128", "threads": 1, "drain_seconds": 5} | settings
    if open_runtime is not None:
        fields.setdefault("overlap", "off")
    server = Server(Settings(bundle=bundle, **fields), open_runtime, host)
    addresses = await server.start()
    try:
        async with grpc.aio.insecure_channel(addresses.frames) as channel:
            yield Running(server, addresses, channel)
    finally:
        await server.stop()


@pytest.fixture
async def real(bundle_path: Path) -> AsyncIterator[Running]:
    """A server with ONNX Runtime."""
    async with serving(bundle_path) as running:
        yield running


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def running(bundle_path: Path, engine: Engine) -> AsyncIterator[Running]:
    """A server with the engine of the test."""
    async with serving(bundle_path, engine.open) as running:
        yield running
        engine.free()
