"""The CPU backend: the embedded default, and the fallback that announces itself as degraded."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from engine.checks import check_batch, view_slot
from engine.errors import BundleInvalid, RunFailed, RuntimeUnavailable
from engine.runtime import Batch, MemoryReport, RunReport, RuntimeDescription
from engine.slots import RegionTable, SlotHandle
from engine.tensors import TensorSpec

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(uint32)": "uint32",
    "tensor(int32)": "int32",
    "tensor(uint64)": "uint64",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}

MAX_BINDINGS = 64
"""Batches whose slots are kept bound: a server has one or two per batch size."""


@dataclass(frozen=True)
class _Bound:
    """Slots bound to the session.

    Attributes:
        binding: ONNX Runtime's.
        values: What it refers to, by name.
        size: Entries of the batch.
        regions: Numbers of the regions that the slots lie in.
        told: Slots of the outputs whose size only a run tells: ONNX Runtime makes them, and they are copied there.
    """

    binding: Any
    values: Mapping[str, Any]
    size: int
    regions: frozenset[int]
    told: Mapping[str, npt.NDArray[Any]]


class OnnxRuntime:
    """Executes a graph with ONNX Runtime, reading and writing the slots in place.

    Args:
        graph: Bytes of the ONNX file.
        description: What the bundle says about it; the backend's own facts are filled in.
        regions: The memory that handles refer to.
        threads: Threads of one inference; None leaves it to ONNX Runtime (one per core).
        spin: Whether its idle threads wait for work without sleeping.

    Raises:
        RuntimeUnavailable: ONNX Runtime refuses the graph; its own words are in the message.
        BundleInvalid: The graph's inputs and outputs are not the description's.
    """

    def __init__(
        self,
        graph: bytes,
        description: RuntimeDescription,
        regions: RegionTable,
        threads: int | None = None,
        spin: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle threads sleep where nobody asks otherwise: between two frames the cores belong to decoding and to gRPC.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        before = _resident_bytes()
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise RuntimeUnavailable(
                f"ONNX Runtime {onnxruntime.__version__} refuses graph {description.graph!r}: {error}",
                remedy="build the bundle again with --target cpu, or install a newer onnxruntime",
            ) from None
        self._graph_bytes = len(graph)
        self._description = description
        self._told_by_run = description.told_by_run
        self._regions = regions
        self._check_network()
        self._grown_bytes = max(0, _resident_bytes() - before)
        self._seen_batches: set[int] = set()
        self._input_names = [spec.name for spec in description.inputs]
        self._output_names = [spec.name for spec in description.outputs]
        self._bindings: dict[tuple[SlotHandle | None, ...], _Bound] = {}

    def describe(self) -> RuntimeDescription:
        """What is loaded."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch.

        Raises:
            RunFailed: A tensor is missing, has the wrong shape or dtype, or ONNX Runtime failed.
        """
        if self._session is None:
            raise RunFailed("the engine was closed", remedy="open it again")
        bound = self._bound(batch)
        before = None if bound.size in self._seen_batches else _resident_bytes()
        started = time.perf_counter_ns()
        try:
            for name in bound.told:  # anew: what the last run made has the last run's shape
                bound.binding.bind_output(name)
            self._session.run_with_iobinding(bound.binding)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise _failed(error) from error
        shapes = {name: self._take(name, slot, bound.binding) for name, slot in bound.told.items()}
        report = RunReport(inference_ns=time.perf_counter_ns() - started, shapes=shapes)
        if before is not None:
            self._seen_batches.add(bound.size)
            self._grown_bytes += max(0, _resident_bytes() - before)
        return report

    def memory(self) -> MemoryReport:
        """Weights by the graph's size; activations by what else loading, and the first run per batch size, added.

        The process's resident memory is all that can be asked on a CPU, so other threads that allocate meanwhile are
        counted too; in an engine process of its own there are none.
        """
        return MemoryReport(
            {"weights": self._graph_bytes, "activations": max(0, self._grown_bytes - self._graph_bytes)}
        )

    def close(self) -> None:
        """Give the session back. A second call does nothing."""
        self._bindings.clear()
        self._session = None

    def _bound(self, batch: Batch) -> _Bound:
        """The batch checked and bound. Servers use the same few slots for ever, so both are done once.

        Raises:
            RunFailed: The batch does not fit, or a slot is not usable.
        """
        key = (*map(batch.inputs.get, self._input_names), *map(batch.outputs.get, self._output_names))
        bound = self._bindings.get(key)
        if bound is not None and all(number in self._regions for number in bound.regions):
            return bound
        self._forget_closed()
        size = check_batch(self._description, batch)
        # Each value is a view of the slot's own memory, so nothing is copied; they live as long as the binding.
        binding = self._session.io_binding()
        handles = {**batch.inputs, **batch.outputs}
        values, told = {}, {}
        try:
            for spec in (*self._description.inputs, *self._description.outputs):
                view = view_slot(self._regions, handles[spec.name])
                if self._told_by_run.isdisjoint(spec.free):
                    values[spec.name] = onnxruntime.OrtValue.ortvalue_from_numpy(view)
                else:
                    told[spec.name] = view
            for spec in self._description.inputs:
                binding.bind_ortvalue_input(spec.name, values[spec.name])
            for spec in self._description.outputs:
                if spec.name in told:
                    binding.bind_output(spec.name)
                else:
                    binding.bind_ortvalue_output(spec.name, values[spec.name])
        except RunFailed:
            raise
        except Exception as error:  # as above
            raise _failed(error) from error
        regions = frozenset(handle.region for handle in handles.values())
        bound = _Bound(binding, values, size, regions, told)
        if len(self._bindings) >= MAX_BINDINGS:
            self._bindings.pop(next(iter(self._bindings)))
        self._bindings[key] = bound
        return bound

    def _take(self, name: str, slot: npt.NDArray[Any], binding: Any) -> tuple[int, ...]:  # noqa: ANN401 - untyped
        """Copy an output whose size the run told to the beginning of its slot; returns its shape.

        Raises:
            RunFailed: It is larger than the largest size that was laid out.
        """
        made = binding.get_outputs()[self._output_names.index(name)].numpy()
        if made.ndim != slot.ndim or any(size > room for size, room in zip(made.shape, slot.shape, strict=True)):
            spec = next(spec for spec in self._description.outputs if spec.name == name)
            raise RunFailed(
                f"output {name!r} has shape {list(made.shape)}, there is room for {list(slot.shape)}",
                remedy="build the bundle again with a larger "
                + " ".join(f"--dimension {free}=N" for free in spec.free if free in self._told_by_run),
            )
        np.copyto(slot.reshape(-1)[: made.size], made.reshape(-1))
        shape: tuple[int, ...] = made.shape
        return shape

    def _forget_closed(self) -> None:
        """Let go of regions that were given back: a binding's views would keep their memory."""
        for key, bound in list(self._bindings.items()):
            if any(number not in self._regions for number in bound.regions):
                del self._bindings[key]

    def _check_network(self) -> None:
        """The graph's tensors against the description's."""
        for kind, specs, held in (
            ("input", self._description.inputs, self._session.get_inputs()),
            ("output", self._description.outputs, self._session.get_outputs()),
        ):
            graph = {tensor.name: (_DTYPES.get(tensor.type, tensor.type), tensor.shape) for tensor in held}
            for spec in specs:
                dtype, shape = graph.pop(spec.name, ("absent", []))
                if dtype != spec.dtype or not _same_shape(spec, shape):
                    raise BundleInvalid(
                        f"{kind} {spec.name!r} is {spec.dtype}{list(spec.shape)} in the manifest, "
                        f"{dtype}{shape} in graph {self._description.graph!r}",
                        remedy="build the bundle again",
                    )
            if graph and kind == "input":
                raise BundleInvalid(
                    f"graph {self._description.graph!r} wants {', '.join(graph)}, which the manifest does not name",
                    remedy="build the bundle again",
                )


def _same_shape(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """Whether known sizes agree; a graph may leave free what the manifest knows."""
    return len(shape) == len(spec.shape) and all(
        not isinstance(held, int) or held == wanted for held, wanted in zip(shape, spec.shape, strict=True)
    )


def _failed(error: Exception) -> RunFailed:
    return RunFailed(f"ONNX Runtime failed: {error}", remedy="check the bundle: build_engine verify")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
