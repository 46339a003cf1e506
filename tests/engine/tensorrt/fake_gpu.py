"""A CUDA driver and a TensorRT that run on the host, strict about what the real ones crash on.

They check the order of things: a context is current, memory is live, everything is freed. They say nothing about a
real GPU.
"""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.tensorrt.api import TensorRT


class CudaError(Exception):
    """`pycuda.driver.Error`."""


class FakeCuda:
    """Stands in for `pycuda.driver` and `cuda.bindings.driver`.

    Attributes:
        live: Bytes of every allocation that was not freed, by address.
        stack: Contexts that are current, per thread.
        retained: Primary contexts that were not detached.
        copies: Bytes of every copy, and its direction.
        registered: Host memory that is page-locked, by address.
        error: Raised by the next synchronization.
    """

    Error = CudaError
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    event_flags = SimpleNamespace(BLOCKING_SYNC=1)
    device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="sm", INTEGRATED="integrated")

    def __init__(self, integrated: bool = False, devices: int = 1, registers: bool = True) -> None:
        self.live: dict[int, Any] = {}
        self.stack: dict[int, list[Any]] = {}
        self.retained = 0
        self.copies: list[tuple[str, int]] = []
        self.registered: dict[int, int] = {}
        self.error: CudaError | None = None
        cuda = self

        class Device:
            def __init__(self, ordinal: int) -> None:
                self.ordinal = ordinal

            @staticmethod
            def count() -> int:
                return devices

            def name(self) -> str:
                return "Fake GPU"

            def compute_capability(self) -> tuple[int, int]:
                return (8, 7)

            def get_attribute(self, attribute: str) -> int:
                return {"sm": 16, "integrated": int(integrated)}[attribute]

            def total_memory(self) -> int:
                return 1 << 30

            def retain_primary_context(self) -> Context:
                cuda.retained += 1
                return Context()

        class Context:
            def push(self) -> None:
                cuda.stack.setdefault(threading.get_ident(), []).append(self)

            @staticmethod
            def pop() -> None:
                cuda.stack[threading.get_ident()].pop()

            def detach(self) -> None:
                cuda.retained -= 1

        class Stream:
            handle = 4242

            def synchronize(self) -> None:
                cuda.current()
                cuda.raise_error()

        class Event:
            def __init__(self, flags: int) -> None:
                cuda.current()

            def record(self, stream: Stream) -> None:
                cuda.current()

            def synchronize(self) -> None:
                cuda.raise_error()

            def time_till(self, end: Event) -> float:
                return 0.25

        self.Device, self.Context, self.Stream, self.Event = Device, Context, Stream, Event

    def init(self) -> None:
        pass

    def current(self) -> None:
        assert self.stack.get(threading.get_ident()), "no context is current"

    def raise_error(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def mem_alloc(self, size: int) -> Any:
        self.current()
        return Allocation(self, size)

    def pagelocked_empty(self, shape: tuple[int], dtype: Any, mem_flags: int) -> Any:
        self.current()
        assert mem_flags == 2
        return PinnedArray(Allocation(self, shape[0]), shape[0])

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        self.current()
        self.check(address, array.nbytes)
        self.copies.append(("in", array.nbytes))
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        self.current()
        self.check(address, array.nbytes)
        self.copies.append(("out", array.nbytes))
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def mem_get_info(self) -> tuple[int, int]:
        self.current()
        return 1 << 29, 1 << 30

    def check(self, address: int, size: int) -> None:
        """An access is inside memory that the GPU may touch."""
        spans = [(start, array.nbytes) for start, array in self.live.items()] + list(self.registered.items())
        assert any(start <= address and address + size <= start + length for start, length in spans), "illegal address"


class Allocation:
    def __init__(self, cuda: FakeCuda, size: int) -> None:
        self.cuda, self.array = cuda, np.zeros(size + 256, np.uint8)
        self.address = -(-self.array.ctypes.data // 256) * 256
        cuda.live[self.address] = self.array

    def __int__(self) -> int:
        return self.address

    def get_device_pointer(self) -> int:
        return self.address

    def free(self) -> None:
        self.cuda.current()
        del self.cuda.live[self.address]


class PinnedArray:
    """Page-locked memory: what the backend uses of such an array. As with PyCUDA, `base` is its allocation."""

    def __init__(self, allocation: Allocation, size: int) -> None:
        self.base = allocation
        start = allocation.address - allocation.array.ctypes.data
        self._array = allocation.array[start : start + size]

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]


class HostRegistration:
    """Stands in for `cuda.bindings.driver`."""

    CU_MEMHOSTREGISTER_PORTABLE = 1
    CU_MEMHOSTREGISTER_DEVICEMAP = 2
    CUresult = SimpleNamespace(CUDA_SUCCESS=0)

    def __init__(self, cuda: FakeCuda, works: bool = True) -> None:
        self.cuda, self.works = cuda, works

    def cuMemHostRegister(self, pointer: int, size: int, flags: int) -> tuple[int]:  # noqa: N802 - CUDA's name
        self.cuda.current()
        assert flags == 3
        if not self.works:
            return (801,)
        self.cuda.registered[pointer] = size
        return (0,)

    def cuMemHostGetDevicePointer(self, pointer: int, flags: int) -> tuple[int, int]:  # noqa: N802 - CUDA's name
        return 0, pointer

    def cuMemHostUnregister(self, pointer: int) -> tuple[int]:  # noqa: N802 - CUDA's name
        self.cuda.current()
        del self.cuda.registered[pointer]
        return (0,)


class FakeEngine:
    """`y = x * 2 + 1` over float32 `(batch, 4)`, at most 4 at once."""

    num_io_tensors = 2
    device_memory_size_v2 = 1000

    def __init__(self, cuda: FakeCuda, **changes: Any) -> None:
        self.cuda = cuda
        self.names = changes.get("names", ["x", "y"])
        self.shape = changes.get("shape", (-1, 4))
        self.dtype = changes.get("dtype", "FLOAT")
        self.largest = changes.get("largest", 4)
        self.launches = changes.get("launches", True)
        self.context = changes.get("context", True)

    def get_tensor_name(self, index: int) -> str:
        return str(self.names[index])

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_shape(self, name: str) -> Any:
        return self.shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return [(1, 4), (2, 4), (self.largest, 4)]

    def create_execution_context(self) -> Any:
        self.cuda.current()
        return FakeContext(self) if self.context else None


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address % 256 == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> Any:
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 4242
        self.engine.cuda.current()
        count = int(np.prod(self.shape))
        x, y = (self._tensor(name, count) for name in ("x", "y"))
        y[:] = x * 2 + 1
        return self.engine.launches

    def _tensor(self, name: str, count: int) -> Any:
        address = self.addresses[name]
        self.engine.cuda.check(address, count * 4)
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


def fake_tensorrt(engine: Any) -> TensorRT:
    """The library, with one engine behind every plan but `b"unreadable"`."""

    class Logger:
        pass

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            if plan == b"unreadable":
                self.logger.log("Severity.ERROR", "magic tag does not match")
                return None
            return engine

    return TensorRT(SimpleNamespace(ILogger=Logger, Runtime=Runtime), "tensorrt", "10.3.0.30")


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, registers: bool = True) -> None:
    """Put the driver where the backend looks for the real one."""
    monkeypatch.setattr("engine.tensorrt.cuda._driver", lambda: cuda)
    monkeypatch.setattr("engine.tensorrt.cuda._host_registration", lambda: HostRegistration(cuda, registers))
