"""Servers without an engine to speak of, for `benchmarks.messages`.

python -m benchmarks.engineless aio|threads|ours
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.messages import HEIGHT, STREAMS, WIDTH
from benchmarks.small_bundle import write_bundle
from engine.bundle import Bundle
from engine.manifest import Manifest, Preprocessing
from engine.runtime import Batch, MemoryReport, RunReport, Runtime, RuntimeDescription
from engine.slots import RegionTable
from engine.tensors import TensorSpec
from server.app import Server
from server.host.allocator import keep_large_buffers
from server.settings import Settings

ANSWER = bytes(200)


async def aio_echo() -> None:
    """A `grpc.aio` handler that reads and answers."""

    async def stream(_: object, context: Any) -> None:  # noqa: ANN401 - the stubs know only typed calls
        while isinstance(await context.read(), bytes):
            await context.write(ANSWER)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(stream),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _say(f"127.0.0.1:{port}")
    await server.wait_for_termination()


def threaded_echo() -> None:
    """The same with a thread per stream."""

    def stream(messages: Iterator[bytes], _: object) -> Iterator[bytes]:
        return (ANSWER for _ in messages)

    server = grpc.server(ThreadPoolExecutor(2 * STREAMS))
    server.add_generic_rpc_handlers((_handlers(stream),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _say(f"127.0.0.1:{port}")
    threading.Event().wait()


async def ours() -> None:
    """Our server, all of it, around a runtime that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Settings(bundle=(_bundle(Path(folder) / "nothing"),), port=0, metrics_port=0), _nothing)
        addresses = await server.start()
        _say(addresses.frames, addresses.metrics)
        await asyncio.Event().wait()


class Nothing:
    """A runtime that takes no time."""

    def __init__(self, manifest: Manifest) -> None:
        self._description = RuntimeDescription(
            "fake", "1", "cpu", "float", "fp32", manifest.inputs, manifest.outputs, manifest.max_batch, "none"
        )

    def describe(self) -> RuntimeDescription:
        """What it claims to be."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Compute nothing."""
        return RunReport(inference_ns=0)

    def memory(self) -> MemoryReport:
        """None."""
        return MemoryReport({})

    def close(self) -> None:
        """Nothing to give back."""


def _nothing(bundle: Bundle, _: RegionTable) -> Runtime:
    return Nothing(bundle.manifest)


def _bundle(path: Path) -> Path:
    return write_bundle(
        path,
        b"never loaded",
        TensorSpec(name="images", dtype="uint8", shape=("batch", HEIGHT, WIDTH, 1)),
        TensorSpec(name="mean", dtype="float32", shape=("batch", 1)),
        Preprocessing(input="images", color="gray", width=WIDTH, height=HEIGHT),
    )


def _handlers(stream: Any) -> grpc.GenericRpcHandler[Any, Any]:  # noqa: ANN401 - either kind of handler
    return grpc.method_handlers_generic_handler(
        "benchmark.Echo", {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
    )


def _say(address: str, metrics: str = "none") -> None:
    print(f"serving nothing at {address}, metrics at {metrics}", flush=True)


if __name__ == "__main__":
    keep_large_buffers(64 << 20)
    kind = sys.argv[1]
    if kind == "threads":
        threaded_echo()
    else:
        asyncio.run(aio_echo() if kind == "aio" else ours())
