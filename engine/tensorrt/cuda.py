"""Everything of CUDA: one GPU, its memory, one stream, and the thread that owns them."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import RunFailed, RuntimeUnavailable
from engine.tensorrt.key import DeviceFacts

_REMEDY = "run where an NVIDIA GPU and its driver are: nvidia-smi lists it; install PyCUDA: 'monocoque[tensorrt]'"


@dataclass(frozen=True)
class PinnedBuffer:
    """Host memory that the GPU reaches by itself.

    Attributes:
        array: `(size_bytes,)` uint8, the host's side.
        address: The same memory as the GPU sees it.
    """

    array: npt.NDArray[np.uint8]
    address: int


def device_facts(ordinal: int = 0) -> DeviceFacts:
    """What a GPU is, without opening it.

    Raises:
        RuntimeUnavailable: PyCUDA, the driver or the GPU is missing.
    """
    driver = _driver()
    try:
        driver.init()
        if driver.Device.count() <= ordinal:
            raise RuntimeUnavailable(f"there is no GPU number {ordinal}", remedy=_REMEDY)
        device = driver.Device(ordinal)
        major, minor = device.compute_capability()
        attribute = driver.device_attribute
        return DeviceFacts(
            name=device.name(),
            compute_capability=f"{major}.{minor}",
            sm_count=device.get_attribute(attribute.MULTIPROCESSOR_COUNT),
            memory_bytes=device.total_memory(),
            integrated=bool(device.get_attribute(attribute.INTEGRATED)),
        )
    except driver.Error as error:
        raise RuntimeUnavailable(f"CUDA does not start: {error}", remedy=_REMEDY) from error


class Gpu:
    """One GPU in the hands of one thread.

    It retains the primary context, the one that TensorRT's own CUDA runtime uses. The thread that makes it is the only
    one that may use and close it: PyCUDA cannot free an object of another thread's context, and leaks it with a
    warning. The context is current only inside `current`, since PyCUDA aborts the process where a thread ends with a
    context on its stack.

    Args:
        ordinal: Which GPU.

    Raises:
        RuntimeUnavailable: PyCUDA, the driver or the GPU is missing.

    Attributes:
        facts: What it is.
        allocated_bytes: Device and pinned memory that was allocated here.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.facts = device_facts(ordinal)
        self.allocated_bytes = 0
        self._driver = _driver()
        self._host_registration = _host_registration()
        self._owner = threading.get_ident()
        self._depth = 0
        self._allocations: list[Any] = []
        self._registered: dict[int, npt.NDArray[Any]] = {}
        self._marks: dict[str, Any] = {}
        self._stream: Any = None
        try:
            self._context: Any = self._driver.Device(ordinal).retain_primary_context()
            with self.current():
                self._stream = self._driver.Stream()
        except (self._driver.Error, RunFailed) as error:
            raise RuntimeUnavailable(f"{self.facts.name} cannot be opened: {error}", remedy=_REMEDY) from error

    @property
    def stream(self) -> int:
        """Handle of the one compute stream: contexts that share scratch memory must not overlap."""
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current for a while. May be nested.

        Raises:
            RunFailed: Another thread owns this GPU, or CUDA failed inside.
        """
        if threading.get_ident() != self._owner:
            raise RunFailed(
                "a GPU engine was used by a thread that did not open it",
                remedy="open, run and close it on one thread: this is a bug of the caller",
            )
        if self._context is None:
            raise RunFailed("the GPU engine was closed", remedy="open it again")
        if self._depth == 0:
            self._context.push()
        self._depth += 1
        try:
            yield
        except self._driver.Error as error:
            raise RunFailed(
                f"CUDA failed on {self.facts.name}: {error}", remedy="restart the engine: its context may be lost"
            ) from error
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._driver.Context.pop()

    def allocate(self, size_bytes: int) -> int:
        """Device memory, given back by `close`.

        Returns:
            Its address, aligned to 256 bytes or more.
        """
        allocation = self._driver.mem_alloc(size_bytes)
        self._allocations.append(allocation)
        self.allocated_bytes += size_bytes
        return int(allocation)

    def pinned(self, size_bytes: int) -> PinnedBuffer:
        """Page-locked host memory, mapped into the GPU's addresses, given back by `close`."""
        flags = self._driver.host_alloc_flags.DEVICEMAP
        array = self._driver.pagelocked_empty((size_bytes,), np.uint8, mem_flags=flags)
        self._allocations.append(array.base)
        self.allocated_bytes += size_bytes
        return PinnedBuffer(array, int(array.base.get_device_pointer()))

    def register(self, array: npt.NDArray[Any]) -> int | None:
        """Page-lock memory that exists, such as a shared region, and map it into the GPU's addresses.

        PyCUDA's `register_host_memory` raises on arrays that do not own their memory (its issue 459), which a view of
        a shared region never does, so this one call goes to `cuda.bindings`, in the same context.

        Args:
            array: Contiguous. It is kept until `unregister`, so the mapping outlives its registration.

        Returns:
            The address that the GPU sees, or None where the memory cannot be registered: it must be copied then.
        """
        library = self._host_registration
        if library is None:
            return None
        pointer = array.ctypes.data
        flags = library.CU_MEMHOSTREGISTER_PORTABLE | library.CU_MEMHOSTREGISTER_DEVICEMAP
        success = library.CUresult.CUDA_SUCCESS
        if library.cuMemHostRegister(pointer, array.nbytes, flags)[0] != success:
            return None
        error, address = library.cuMemHostGetDevicePointer(pointer, 0)
        if error != success:
            library.cuMemHostUnregister(pointer)
            return None
        self._registered[pointer] = array
        return int(address)

    def unregister(self, array: npt.NDArray[Any]) -> None:
        """Undo `register`; call it only when no copy of the memory is under way."""
        if self._registered.pop(array.ctypes.data, None) is not None:
            self._host_registration.cuMemHostUnregister(array.ctypes.data)

    def copy_in(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copy host memory to the device, on the stream; none of it is no copy."""
        if array.nbytes:
            self._driver.memcpy_htod_async(address, array, self._stream)

    def copy_out(self, array: npt.NDArray[Any], address: int) -> None:
        """Copy device memory to the host, on the stream; none of it is no copy."""
        if array.nbytes:
            self._driver.memcpy_dtoh_async(array, address, self._stream)

    def mark(self, name: str) -> None:
        """Note the time at which the stream gets here."""
        if name not in self._marks:
            # A thread that waits for it sleeps: on a vehicle the cores belong to decoding.
            self._marks[name] = self._driver.Event(self._driver.event_flags.BLOCKING_SYNC)
        self._marks[name].record(self._stream)

    def wait(self, name: str) -> None:
        """Wait until the stream passed a mark."""
        self._marks[name].synchronize()

    def elapsed_ns(self, start: str, end: str) -> int:
        """Time between two marks that both passed, by the GPU's own clock."""
        milliseconds = float(self._marks[start].time_till(self._marks[end]))
        return round(milliseconds * 1e6)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes. On an integrated GPU the system's, which cuMemGetInfo does not know."""
        if self.facts.integrated:
            return _available_bytes(), self.facts.memory_bytes
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """Give everything back. A second call does nothing.

        Raises:
            RunFailed: Another thread owns this GPU.
        """
        if self._context is None:
            return
        with self.current():
            self._stream.synchronize()
            for array in list(self._registered.values()):
                self.unregister(array)
            for allocation in self._allocations:
                allocation.free()
            # The destructors of these need the context, so they run here rather than whenever.
            self._allocations.clear()
            self._marks.clear()
            self._stream = None
        self._context.detach()
        self._context = None


def _driver() -> Any:  # noqa: ANN401 - PyCUDA ships no types
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(f"PyCUDA does not load: {error}", remedy=_REMEDY) from error


def _host_registration() -> Any:  # noqa: ANN401 - a module, or None
    try:
        return importlib.import_module("cuda.bindings.driver")
    except (ImportError, OSError):
        return None


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
