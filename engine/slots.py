from __future__ import annotations

import fcntl
import math
import mmap
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT_BYTES = 256
"""Slots start on this boundary: a cache line for the CPU, and what CUDA kernels want of a base address."""


def aligned(size_bytes: int) -> int:
    """`size_bytes`, rounded up to a slot boundary."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class SlotHandle:
    """Where one tensor lies in shared memory. Small, picklable, and the same in every process.

    Attributes:
        region: Number of the `Region` that holds it.
        offset_bytes: First byte, counted from the region's start.
        shape: Sizes, batch first where there is one.
        dtype: numpy name of the element type.
    """

    region: int
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def first(self, count: int) -> SlotHandle:
        """The same memory, cut to the first `count` entries of the batch."""
        return SlotHandle(self.region, self.offset_bytes, (count, *self.shape[1:]), self.dtype)


class Region:
    """Anonymous shared memory that no process can shrink.

    A sealed memfd: another process maps it through the descriptor, which only its owner can hand over.
    It has no name that a third process could open, and the seals turn a truncation, which would kill a
    reader with SIGBUS, into an error for whoever tries it.

    Args:
        number: The number that handles carry.
        fd: The memfd's descriptor. The region owns it from here on.
    """

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.fd = fd
        self.size_bytes = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size_bytes)

    @classmethod
    def create(cls, number: int, size_bytes: int) -> Region:
        """Reserve a new region; every page of it exists from now on.

        Raises:
            OSError: The memory cannot be had (`ENOSPC`, `ENOMEM`).
        """
        fd = os.memfd_create("monocoque", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, aligned(size_bytes))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(number, fd)
        except BaseException:
            os.close(fd)
            raise

    def view(self, handle: SlotHandle) -> npt.NDArray[Any]:
        """The tensor at a handle, as an array over the shared memory; nothing is copied.

        Raises:
            ValueError: The handle belongs to another region or reaches past the end.
        """
        if handle.region != self.number:
            raise ValueError(f"handle of region {handle.region} used on region {self.number}")
        end = handle.offset_bytes + handle.size_bytes
        if handle.offset_bytes < 0 or end > self.size_bytes:
            raise ValueError(f"slot ends at byte {end}, region {self.number} has {self.size_bytes}")
        return np.frombuffer(
            self._map, handle.dtype, count=math.prod(handle.shape), offset=handle.offset_bytes
        ).reshape(handle.shape)

    def close(self) -> None:
        """Give the mapping and the descriptor back. Arrays from `view` must be gone by then."""
        self._map.close()
        os.close(self.fd)

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RegionTable:
    """The regions a process has mapped, by number: how a runtime turns handles into memory."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}

    def add(self, region: Region) -> None:
        """Make a region's handles usable here.

        Raises:
            ValueError: The number is taken.
        """
        if region.number in self._regions:
            raise ValueError(f"region {region.number} is already in the table")
        self._regions[region.number] = region

    def create(self, size_bytes: int) -> Region:
        """Reserve a new region under the next free number and add it."""
        region = Region.create(max(self._regions, default=0) + 1, size_bytes)
        self.add(region)
        return region

    def view(self, handle: SlotHandle) -> npt.NDArray[Any]:
        """The tensor at a handle.

        Raises:
            KeyError: The region is unknown here.
            ValueError: The handle reaches past the region's end.
        """
        return self._regions[handle.region].view(handle)

    def remove(self, number: int) -> None:
        """Forget a region and give its memory back."""
        self._regions.pop(number).close()

    def close(self) -> None:
        """Give all regions back."""
        for number in list(self._regions):
            self.remove(number)
