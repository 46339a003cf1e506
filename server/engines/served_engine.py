"""The engine that is served, as clients, results and Prometheus are told of it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.bundle import Bundle
from engine.manifest import Manifest
from engine.runtime import MemoryReport, RuntimeDescription
from protos.monocoque.v1 import stream_pb2 as pb
from server.observe.metrics import Metrics
from server.stream.answers import EngineFacts


def takes_frames(manifest: Manifest) -> bool:
    """Whether camera frames are all that an engine needs."""
    return manifest.preprocessing is not None and len(manifest.inputs) == 1


def own_memory(memory: MemoryReport) -> dict[str, int]:
    """What the engine itself holds, by kind; the device as a whole is left out."""
    return {kind: size for kind, size in memory.bytes_by_kind.items() if not kind.startswith("device_")}


def count_memory(memory: MemoryReport, metrics: Metrics, name: str, version: str) -> None:
    """Tell Prometheus what an engine and its device hold.

    Args:
        memory: What it says.
        metrics: Where.
        name: The bundle's name.
        version: The bundle's version.
    """
    for kind, size_bytes in own_memory(memory).items():
        metrics.engine_memory(name, version, kind).set(size_bytes)
    kinds = memory.bytes_by_kind
    if "device_total" in kinds and "device_free" in kinds:
        metrics.gpu_memory("total").set(kinds["device_total"])
        metrics.gpu_memory("used").set(kinds["device_total"] - kinds["device_free"])


@dataclass(frozen=True)
class ServedEngine:
    """An engine once it is open.

    Attributes:
        bundle: Where it comes from.
        description: What it is.
        memory: What it holds, sampled after warm-up. Kinds that begin with `device_` are the device's, not its own.
    """

    bundle: Bundle
    description: RuntimeDescription
    memory: MemoryReport

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of detections by index; empty for an engine without."""
        return tuple(getattr(self.bundle.manifest.postprocessing, "labels", ()))

    @property
    def takes_frames(self) -> bool:
        """Whether camera frames are all that it needs."""
        return takes_frames(self.bundle.manifest)

    @property
    def schema(self) -> str:
        """What a client knows the answers by: labels and outputs."""
        return repr((self.labels, [(spec.name, spec.dtype, spec.shape) for spec in self.description.outputs]))

    @property
    def degraded(self) -> str:
        """Why it is not the engine that was asked for; empty when it is."""
        return self.description.degraded or ""

    def facts(self) -> EngineFacts:
        """What every result says of it."""
        return EngineFacts(
            digest=self.bundle.digest,
            degraded=self.degraded,
            memory_bytes=own_memory(self.memory),
            labels=self.labels,
            schema=self.schema,
        )

    def response(self) -> pb.GetEngineResponse:
        """The answer to `GetEngine`."""
        manifest, description = self.bundle.manifest, self.description
        response = pb.GetEngineResponse(
            name=manifest.name,
            version=manifest.version,
            digest=self.bundle.digest,
            backend=description.backend,
            backend_version=description.backend_version,
            target=description.target,
            graph=description.graph,
            precision=description.precision,
            device=description.device,
            degraded=self.degraded,
            labels=self.labels,
            max_batch=description.max_batch,
            memory_bytes=dict(self.memory.bytes_by_kind),
        )
        for specs, told in ((description.inputs, response.inputs), (description.outputs, response.outputs)):
            for spec in specs:
                shape = [size if isinstance(size, int) else -1 for size in spec.shape]
                told.add(name=spec.name, dtype=spec.dtype, shape=shape)
        return response

    def count(self, metrics: Metrics, version: str) -> None:
        """Tell Prometheus.

        Args:
            metrics: Where.
            version: Version of the server.
        """
        manifest = self.bundle.manifest
        count_memory(self.memory, metrics, manifest.name, manifest.version)
        metrics.rollbacks(manifest.name)  # what never happened is a 0, not a series that is missing
        metrics.restarts(manifest.name)
        metrics.degraded(manifest.name, manifest.version).set(bool(self.degraded))
        metrics.build_info(
            version,
            manifest.name,
            manifest.version,
            self.bundle.digest,
            self.description.target,
            self.description.backend,
            self.description.backend_version,
            self.description.precision,
        ).set(1)
