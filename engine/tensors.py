"""What crosses the boundary of an engine: names, element types and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

DType = Literal[
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]
"""Element types that cross the boundary of an engine, by their numpy names."""

Dimension = Annotated[int, Field(ge=1, strict=True)] | Annotated[str, Field(min_length=1)]
"""A known size, or the name of one that is chosen at run time (`"batch"`)."""


class TensorSpec(BaseModel):
    """Name, element type and shape of one input or output.

    A shape is a tuple of sizes and names: `("batch", 384, 640, 3)`. Two dimensions of the same name
    have the same size in every run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    dtype: DType
    shape: tuple[Dimension, ...]

    @model_validator(mode="after")
    def _batch_leads(self) -> TensorSpec:
        if "batch" in self.shape[1:]:
            raise ValueError(f"{self.name}: 'batch' must be the first dimension, got shape {self.shape}")
        return self

    @property
    def batched(self) -> bool:
        """Whether the first dimension is the batch, free at run time."""
        return bool(self.shape) and self.shape[0] == "batch"

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the dimensions other than the batch that are chosen at run time."""
        return tuple(size for size in self.shape if isinstance(size, str) and size != "batch")

    @property
    def itemsize_bytes(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    def concrete(self, batch: int, sizes: Mapping[str, int] = MappingProxyType({})) -> tuple[int, ...]:
        """The shape at a batch size.

        Args:
            batch: Size that replaces the dimension `"batch"`.
            sizes: Sizes of other dimensions that are chosen at run time, by name.

        Raises:
            ValueError: A named dimension is left.
        """
        shape: list[int] = []
        for dimension in self.shape:
            if isinstance(dimension, int):
                shape.append(dimension)
            elif dimension == "batch":
                shape.append(batch)
            elif dimension in sizes:
                shape.append(sizes[dimension])
            else:
                raise ValueError(f"{self.name}: dimension {dimension!r} of {self.shape} is chosen at run time")
        return tuple(shape)

    def size_bytes(self, batch: int, sizes: Mapping[str, int] = MappingProxyType({})) -> int:
        """Bytes of the whole tensor; arguments as for `concrete`."""
        return math.prod(self.concrete(batch, sizes)) * self.itemsize_bytes
