"""What a server says about itself: the engine it serves, and what it grants a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protos.monocoque.v1 import stream_pb2


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy element type and shape of an input or output; -1 is chosen at run time."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """The engine that is served.

    Attributes:
        name: Bundle name.
        version: Bundle version.
        digest: SHA-256 of the bundle's manifest.
        backend: `onnxruntime`, `tensorrt` or `tensorrt-rtx`.
        backend_version: Its full version.
        target: Target that is served.
        graph: Graph of the bundle.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        device: Device name.
        degraded: Why it is not the engine that was asked for; empty when it is.
        inputs: What it takes.
        outputs: What it gives.
        labels: Labels of detections by index.
        max_batch: Largest batch.
        memory_bytes: Memory by kind.
    """

    name: str
    version: str
    digest: str
    backend: str
    backend_version: str
    target: str
    graph: str
    precision: str
    device: str
    degraded: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    max_batch: int
    memory_bytes: Mapping[str, int]


def engine_from_proto(message: stream_pb2.GetEngineResponse) -> Engine:
    """The typed answer of `GetEngine`."""
    return Engine(
        name=message.name,
        version=message.version,
        digest=message.digest,
        backend=message.backend,
        backend_version=message.backend_version,
        target=message.target,
        graph=message.graph,
        precision=message.precision,
        device=message.device,
        degraded=message.degraded,
        inputs=tuple(TensorSpec(item.name, item.dtype, tuple(item.shape)) for item in message.inputs),
        outputs=tuple(TensorSpec(item.name, item.dtype, tuple(item.shape)) for item in message.outputs),
        labels=tuple(message.labels),
        max_batch=message.max_batch,
        memory_bytes=dict(message.memory_bytes),
    )


@dataclass(frozen=True)
class Opened:
    """The server's answer to an opened stream.

    Attributes:
        stream_id: Names the stream in logs and to watchers.
        credits: Frames of each camera that may be on their way at once.
        max_frame_bytes: Largest frame accepted; 0: not said.
        max_width: Largest width accepted; 0: not said.
        max_height: Largest height accepted; 0: not said.
        engine_digest: SHA-256 of the bundle's manifest.
        same_clock: Whether the server proved that it and this client share one clock.
        labels: Labels of detections by index.
        piece_bytes: Larger frames are sent in pieces of this size; 0: they are not.
    """

    stream_id: str
    credits: int
    max_frame_bytes: int
    max_width: int
    max_height: int
    engine_digest: str
    same_clock: bool
    labels: tuple[str, ...]
    piece_bytes: int = 0


def opened_from_proto(message: stream_pb2.Opened) -> Opened:
    """The typed answer to `Open`."""
    return Opened(
        stream_id=message.stream_id,
        credits=message.credits,
        max_frame_bytes=message.max_frame_bytes,
        max_width=message.max_width,
        max_height=message.max_height,
        engine_digest=message.engine_digest,
        same_clock=message.clock_kind == stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC,
        labels=tuple(message.labels),
        piece_bytes=message.piece_bytes,
    )
