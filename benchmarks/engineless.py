"""Our server around a runtime that does nothing, for `benchmarks.messages`: `python -m benchmarks.engineless`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from benchmarks.small_bundle import write_bundle
from engine.bundle import Bundle
from engine.manifest import Manifest, Preprocessing
from engine.runtime import Batch, MemoryReport, RunReport, Runtime, RuntimeDescription
from engine.slots import RegionTable
from engine.tensors import TensorSpec
from server.app import Server
from server.settings import Settings

STREAMS = 8
WIDTH, HEIGHT = 400, 250
"""100 kB of grey."""


async def serve() -> None:
    """All of it, until the process is ended."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Settings(bundle=(_bundle(Path(folder) / "nothing"),), port=0, metrics_port=0), _nothing)
        addresses = await server.start()
        print(f"serving nothing at {addresses.frames}, metrics at {addresses.metrics}", flush=True)
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


if __name__ == "__main__":
    asyncio.run(serve())
