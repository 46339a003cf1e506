"""The TensorRT backend: executes a plan on slots in shared memory, copying only where it must."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.checks import check_batch, view_slot
from engine.errors import PlanRejected, RunFailed, RuntimeUnavailable
from engine.runtime import Batch, MemoryReport, RunReport, RuntimeDescription
from engine.slots import ALIGNMENT_BYTES, RegionTable, SlotHandle
from engine.tensorrt.api import TensorRT
from engine.tensorrt.cuda import Gpu, PinnedBuffer
from engine.tensorrt.log import BuildLog, no_collection
from engine.tensors import TensorSpec

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass
class _Buffers:
    """Memory of one tensor at its largest: on the device, and a page-locked copy where slots cannot be."""

    size_bytes: int
    device: int | None = None
    pinned: PinnedBuffer | None = None


class TensorRTRuntime:
    """Executes a plan. One thread opens, runs and closes it.

    A discrete GPU copies from and to the slots themselves, once their region is page-locked; an integrated one reads
    and writes them in place. Where a region cannot be page-locked, each tensor goes through a page-locked copy.

    Memory is laid out for the largest sizes; a run binds the shapes that it has, and its outputs are as large as
    TensorRT infers from them.

    Args:
        plan: A serialized engine whose digest and key have been checked.
        tensorrt: The library.
        gpu: The GPU; the runtime owns it from here on and closes it.
        description: What the bundle says about it.
        regions: The memory that handles refer to.

    Raises:
        PlanRejected: TensorRT cannot read the plan, or it holds another network than the description's.
        RuntimeUnavailable: The device has too little memory.
    """

    def __init__(
        self, plan: bytes, tensorrt: TensorRT, gpu: Gpu, description: RuntimeDescription, regions: RegionTable
    ) -> None:
        self._tensorrt = tensorrt
        self._gpu = gpu
        self._description = description
        self._regions = regions
        self._log = BuildLog()
        self._mapped: dict[int, tuple[npt.NDArray[Any], int | None]] = {}
        self._buffers: dict[str, _Buffers] = {}
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._closed = False
        self._told = description.told_by_run
        self._told_outputs = [spec.name for spec in description.outputs if not self._told.isdisjoint(spec.free)]
        try:
            with gpu.current():
                self._load(plan)
        except BaseException:
            with contextlib.suppress(RunFailed):  # the first failure is the one to tell
                self.close()
            raise
        self._buffers = {
            spec.name: _Buffers(spec.size_bytes(description.max_batch, description.largest))
            for spec in (*description.inputs, *description.outputs)
        }

    def describe(self) -> RuntimeDescription:
        """What is loaded."""
        return self._description

    def run(self, batch: Batch) -> RunReport:
        """Execute one batch; returns once every output lies in its slot.

        Raises:
            RunFailed: A tensor is missing, has the wrong shape or dtype, or TensorRT or CUDA failed.
        """
        check_batch(self._description, batch)
        gpu = self._gpu
        with gpu.current():
            self._forget_removed_regions()
            started = time.perf_counter_ns()
            host_copies_ns = 0
            for spec in self._description.inputs:
                self._set_shape(spec, batch.inputs[spec.name])
            made = {spec.name: self._made(spec, batch.outputs[spec.name]) for spec in self._description.outputs}
            gpu.mark("start")
            for spec in self._description.inputs:
                host_copies_ns += self._feed(spec, batch.inputs[spec.name])
            gpu.mark("fed")
            for spec in self._description.outputs:
                self._bind(spec, self._place(spec, made[spec.name])[0])
            if not self._context.execute_async_v3(gpu.stream):
                raise self._failed("could not launch")
            gpu.mark("computed")
            afterwards = [self._fetch(spec, made[spec.name]) for spec in self._description.outputs]
            gpu.mark("end")
            gpu.wait("end")
            copying = time.perf_counter_ns()
            for copy in afterwards:
                copy()
            ended = time.perf_counter_ns()
            device_copies_ns = gpu.elapsed_ns("start", "fed") + gpu.elapsed_ns("computed", "end")
        return RunReport(
            inference_ns=ended - started,
            # The stream waits while the host copies, so what the device measured contains it.
            copy_ns=max(device_copies_ns, host_copies_ns) + ended - copying,
            shapes={name: made[name].shape for name in self._told_outputs},
        )

    def memory(self) -> MemoryReport:
        """Scratch and weights as TensorRT states them, buffers as allocated, the device's own as the driver says."""
        with self._gpu.current():
            free, total = self._gpu.memory()
            sizes = {
                "activations": int(self._engine.device_memory_size_v2),
                "input_output": self._gpu.allocated_bytes,
                "device_free": free,
                "device_total": total,
            }
            weights = self._tensorrt.member("EngineStat", "TOTAL_WEIGHTS_SIZE")  # unknown to TensorRT 10.3
            if weights is not None:
                sizes["weights"] = int(self._engine.get_engine_stat(weights))
        return MemoryReport(sizes)

    def close(self) -> None:
        """Give everything back. A second call does nothing.

        Raises:
            RunFailed: Another thread opened it, or CUDA failed before.
        """
        if self._closed:
            return
        with self._gpu.current():
            self._closed = True
            self._context = None  # in this order: each lives in the next
            self._engine = None
            self._runtime = None
        self._gpu.close()
        self._mapped.clear()

    def _load(self, plan: bytes) -> None:
        self._logger = self._log.adapter(self._tensorrt)
        with no_collection():
            self._runtime = self._tensorrt.module.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRejected(
                f"{self._tensorrt.title} cannot read the plan on {self._gpu.facts.name}: {self._said()}",
                remedy="compile it on this device: remove it, and open the bundle again",
            )
        with no_collection():
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeUnavailable(
                f"no room for the engine on {self._gpu.facts.name}: {self._said()}",
                remedy="free memory on the device: nvidia-smi shows who has it",
            )
        self._check_network()

    def _check_network(self) -> None:
        """The plan's tensors against the description's, the batch at its largest."""
        engine = self._engine
        held = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {spec.name: spec for spec in (*self._description.inputs, *self._description.outputs)}
        remedy = "build the bundle again: its plan was compiled from another graph"
        if held != set(wanted):
            raise PlanRejected(f"the plan has {sorted(held)}, the manifest {sorted(wanted)}", remedy=remedy)
        for name, spec in wanted.items():
            dtype = _DTYPES.get(engine.get_tensor_dtype(name).name, "unknown")
            shape = tuple(-1 if isinstance(size, str) else size for size in spec.shape)
            planned = tuple(engine.get_tensor_shape(name))
            if dtype != spec.dtype or not self._same_shape(spec, planned):
                raise PlanRejected(
                    f"{name} is {dtype}{list(planned)} in the plan, {spec.dtype}{list(shape)} in the manifest",
                    remedy=remedy,
                )
        for spec in self._description.inputs:
            if spec.batched or spec.free:
                self._check_profile(spec, remedy)

    def _same_shape(self, spec: TensorSpec, planned: tuple[int, ...]) -> bool:
        """Whether free sizes are free and known ones the same. What only a run tells, a compiler may know already."""
        return len(planned) == len(spec.shape) and all(
            size == (-1 if isinstance(wanted, str) else wanted) or wanted in self._told
            for size, wanted in zip(planned, spec.shape, strict=True)
        )

    def _check_profile(self, spec: TensorSpec, remedy: str) -> None:
        """What the plan takes against what the manifest promises."""
        description = self._description
        least, _, most = self._engine.get_tensor_profile_shape(spec.name, 0)
        for name, low, high in zip(spec.shape, least, most, strict=True):
            if name == "batch" and high < description.max_batch:
                raise PlanRejected(
                    f"the plan takes batches up to {high}, the manifest {description.max_batch}", remedy=remedy
                )
            if name not in spec.free:
                continue
            smallest, largest = description.smallest.get(name, 0), description.largest[name]
            if smallest < low or high < largest:
                raise PlanRejected(
                    f"the plan takes {low} to {high} of dimension {name!r}, the manifest {smallest} to {largest}",
                    remedy=remedy,
                )

    def _set_shape(self, spec: TensorSpec, handle: SlotHandle) -> None:
        if not self._context.set_input_shape(spec.name, handle.shape):
            raise self._failed(f"refuses {spec.name} of shape {list(handle.shape)}")

    def _made(self, spec: TensorSpec, handle: SlotHandle) -> SlotHandle:
        """The part of an output's slot that a run fills: of the shape that TensorRT infers from the inputs' shapes."""
        shape = tuple(self._context.get_tensor_shape(spec.name))
        fits = len(shape) == len(handle.shape) and all(
            0 <= size <= room if name in self._told else size == room
            for name, size, room in zip(spec.shape, shape, handle.shape, strict=True)
        )
        if not fits:
            raise RunFailed(
                f"output {spec.name!r} would have shape {list(shape)}, there is room for {list(handle.shape)}",
                remedy="build the bundle again: its manifest does not say what the plan makes of these sizes",
            )
        return handle.shaped(shape)

    def _place(self, spec: TensorSpec, handle: SlotHandle) -> tuple[int, npt.NDArray[Any] | None]:
        """Where the network reads or writes a tensor, and the host memory to copy it from or to, if any.

        The host memory is the slot itself, page-locked, or a page-locked copy; None where the address is the slot.
        """
        buffers = self._buffers[spec.name]
        mapped = self._mapped_address(handle)
        if self._gpu.facts.integrated:
            if mapped is not None:
                return mapped, None
            pinned = self._pinned(buffers)
            return pinned.address, pinned.array[: handle.size_bytes]
        if buffers.device is None:
            buffers.device = self._gpu.allocate(max(buffers.size_bytes, 1))
        host = self._bytes(handle) if mapped is not None else self._pinned(buffers).array[: handle.size_bytes]
        return buffers.device, host

    def _feed(self, spec: TensorSpec, handle: SlotHandle) -> int:
        """Bind an input and start its copy; returns what the host's own copy took, in ns."""
        address, host = self._place(spec, handle)
        self._bind(spec, address)
        if host is None:
            return 0
        started = time.perf_counter_ns()
        slot = self._bytes(handle)
        if host.ctypes.data != slot.ctypes.data:
            host[:] = slot
        ended = time.perf_counter_ns()
        if not self._gpu.facts.integrated:
            self._gpu.copy_in(address, host)
        return ended - started

    def _fetch(self, spec: TensorSpec, handle: SlotHandle) -> Callable[[], None]:
        """Start an output's copy; returns what the host has to do once the stream is through."""
        address, host = self._place(spec, handle)
        if host is None:
            return lambda: None
        if not self._gpu.facts.integrated:
            self._gpu.copy_out(host, address)
        slot = self._bytes(handle)
        if host.ctypes.data == slot.ctypes.data:
            return lambda: None
        return lambda: np.copyto(slot, host)

    def _bind(self, spec: TensorSpec, address: int) -> None:
        if not self._context.set_tensor_address(spec.name, address):
            raise self._failed(f"refuses the address of {spec.name}")

    def _bytes(self, handle: SlotHandle) -> npt.NDArray[Any]:
        flat = SlotHandle(handle.region, handle.offset_bytes, (handle.size_bytes,), "uint8")
        return view_slot(self._regions, flat)

    def _mapped_address(self, handle: SlotHandle) -> int | None:
        """A slot's address as the GPU sees it; None where its region cannot be page-locked, or the slot is askew."""
        if handle.region not in self._mapped:
            self._bytes(handle)  # a known region, or RunFailed
            size = self._regions[handle.region].size_bytes
            whole = self._bytes(SlotHandle(handle.region, 0, (size,), "uint8"))
            self._mapped[handle.region] = (whole, self._gpu.register(whole))
        base = self._mapped[handle.region][1]
        if base is None or handle.offset_bytes % ALIGNMENT_BYTES:
            return None
        self._bytes(handle)  # within the region, or RunFailed
        return base + handle.offset_bytes

    def _forget_removed_regions(self) -> None:
        for number in [number for number in self._mapped if number not in self._regions]:
            array, _ = self._mapped.pop(number)
            self._gpu.unregister(array)

    def _pinned(self, buffers: _Buffers) -> PinnedBuffer:
        if buffers.pinned is None:
            buffers.pinned = self._gpu.pinned(max(buffers.size_bytes, 1))
        return buffers.pinned

    def _failed(self, what: str) -> RunFailed:
        return RunFailed(f"{self._tensorrt.title} {what}: {self._said()}", remedy="restart the engine, then verify it")

    def _said(self) -> str:
        said = "; ".join(self._log.errors) or "it gave no reason"
        self._log.errors.clear()
        return said
