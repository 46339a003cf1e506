"""A pretended engine whose input is as long as a request wants, as `fake_gpu.FakeEngine` is one of fixed sizes."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.engine.tensorrt.fake_gpu import FakeCuda


class FakeFreeEngine:
    """Over float32 `x` (batch, length): `twice` (batch, length) = 2 x, `pairs` (batch, length // 2) = sums of two.

    Attributes:
        profile: Least, usual and largest shape of `x`.
        planned: Shapes that differ from what they should be, by name.
        inferred: The same for shapes of a run.
    """

    num_io_tensors = 3
    device_memory_size_v2 = 1000

    def __init__(self, cuda: FakeCuda, **changes: Any) -> None:
        self.cuda = cuda
        self.profile = changes.get("profile", ((1, 2), (2, 5), (4, 9)))
        self.planned = changes.get("planned", {})
        self.inferred = changes.get("inferred", {})

    def get_tensor_name(self, index: int) -> str:
        return ("x", "twice", "pairs")[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> Any:
        return self.planned.get(name, (-1, -1))

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        assert (name, profile) == ("x", 0)
        return list(self.profile)

    def create_execution_context(self) -> Any:
        self.cuda.current()
        return FakeFreeContext(self)


class FakeFreeContext:
    def __init__(self, engine: FakeFreeEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address != 0 and address % 256 == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        least, _, most = self.engine.profile
        self.shape = shape
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> Any:
        assert self.shape, "TensorRT infers nothing before every input has its shape"
        batch, length = self.shape
        shapes = {"x": self.shape, "twice": self.shape, "pairs": (batch, length // 2)}
        return self.engine.inferred.get(name, shapes[name])

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.cuda.current()
        x = self._tensor("x")
        self._tensor("twice")[:] = 2 * x
        pairs = self._tensor("pairs")
        pairs[:] = x[:, : 2 * pairs.shape[1]].reshape(*pairs.shape, 2).sum(axis=2)
        return True

    def _tensor(self, name: str) -> Any:
        shape = self.get_tensor_shape(name)
        count = int(np.prod(shape))
        self.engine.cuda.check(self.addresses[name], count * 4)
        flat = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))
        return flat.reshape(shape)
