"""The one protocol that every backend speaks, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.slots import SlotHandle
from engine.tensors import TensorSpec


@dataclass(frozen=True)
class RuntimeDescription:
    """What a loaded engine is.

    Attributes:
        backend: `onnxruntime`, `tensorrt`, `tensorrt-rtx` or `fake`.
        backend_version: The library's full version.
        target: The target it serves, for example `cpu`.
        graph: Name of the bundle's graph it executes, for example `cpu-int8`.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        inputs: Its inputs, in order.
        outputs: Its outputs, in order.
        max_batch: Largest batch it accepts.
        device: The device's name.
        degraded: Why this is not the runtime that was asked for; None when it is.
        smallest: Smallest size of each dimension other than the batch that is chosen at run time, by name.
        largest: Largest size of each of them.
    """

    backend: str
    backend_version: str
    target: str
    graph: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    device: str
    degraded: str | None = None
    smallest: Mapping[str, int] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)

    @property
    def told_by_run(self) -> frozenset[str]:
        """Dimensions of outputs that no input has: only a run tells their size."""
        given = {name for spec in self.inputs for name in spec.free}
        return frozenset(name for spec in self.outputs for name in spec.free if name not in given)


@dataclass(frozen=True)
class Batch:
    """One execution: where its inputs lie and where its outputs go.

    Attributes:
        inputs: Handle per input name, batch first.
        outputs: Handle per output name. Each must be large enough for the batch; where only the run tells an output's
            size, it has the largest one.
    """

    inputs: Mapping[str, SlotHandle]
    outputs: Mapping[str, SlotHandle]


@dataclass(frozen=True)
class RunReport:
    """What one execution took.

    Attributes:
        inference_ns: From launch until every output lay in its slot.
        copy_ns: The part of it spent on copies to and from a device; 0 where memory is shared.
        shapes: Shape of each output whose size only the run told; its elements lie at the beginning of its slot.
    """

    inference_ns: int
    copy_ns: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryReport:
    """Bytes by kind. A kind that a backend cannot know is absent, never guessed.

    Attributes:
        bytes_by_kind: Keys among `weights`, `activations`, `input_output`, `device_free`, `device_total`.
    """

    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)


class Runtime(Protocol):
    """A loaded engine.

    One thread owns a runtime: it opens it, runs every batch and closes it. Tensors never pass through the
    interface, only handles to shared memory, so a runtime may live in this process or in another one.
    """

    def describe(self) -> RuntimeDescription:
        """What is loaded."""

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch; returns once every output lies in its slot.

        Raises:
            RunFailed: A tensor is missing, has the wrong shape or dtype, or the backend failed.
        """

    def memory(self) -> MemoryReport:
        """Memory that the engine holds now."""

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
