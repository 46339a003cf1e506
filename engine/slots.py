"""Tensors in shared memory: where one lies, and the sealed regions that hold them."""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import threading
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

    def shaped(self, shape: tuple[int, ...]) -> SlotHandle:
        """The same memory from its beginning, with another shape.

        Raises:
            ValueError: The slot is smaller than that.
        """
        if min(shape, default=0) < 0 or math.prod(shape) > math.prod(self.shape):
            raise ValueError(f"a slot of shape {self.shape} used as {shape}")
        return SlotHandle(self.region, self.offset_bytes, shape, self.dtype)

    def first(self, count: int) -> SlotHandle:
        """The same memory, cut to the first `count` entries of the batch.

        Raises:
            ValueError: The slot has fewer entries, so the cut would reach into its neighbour.
        """
        if not self.shape or not 0 <= count <= self.shape[0]:
            raise ValueError(f"first {count} entries of a slot of shape {self.shape}")
        return SlotHandle(self.region, self.offset_bytes, (count, *self.shape[1:]), self.dtype)


class Region:
    """Anonymous shared memory that no process can shrink.

    A sealed memfd: another process maps it through the descriptor, which only its owner can hand over.
    It has no name that a third process could open, and the seals turn a truncation, which would kill a
    reader with SIGBUS, into an error for whoever tries it.

    Args:
        number: The number that handles carry.
        fd: The memfd's descriptor. The region owns it from here on, unless the constructor raises.

    Raises:
        ValueError: The descriptor is not sealed against shrinking, so a map of it could not be trusted.
    """

    def __init__(self, number: int, fd: int) -> None:
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:  # EINVAL: an ordinary file, which cannot have seals
            seals = 0
        if not seals & fcntl.F_SEAL_SHRINK:
            raise ValueError(f"region {number} is not sealed against shrinking")
        self.number = number
        self.fd = fd
        self.size_bytes = os.fstat(fd).st_size
        self._map: mmap.mmap | None = mmap.mmap(fd, self.size_bytes)

    @classmethod
    def create(cls, number: int, size_bytes: int) -> Region:
        """Reserve a new region; every page of it exists from now on.

        Raises:
            OSError: The memory cannot be had (`ENOSPC`, `ENOMEM`).
        """
        fd = os.memfd_create("monocoque", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, max(ALIGNMENT_BYTES, aligned(size_bytes)))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(number, fd)
        except BaseException:
            os.close(fd)
            raise

    def view(self, handle: SlotHandle) -> npt.NDArray[Any]:
        """The tensor at a handle, as an array over the shared memory; nothing is copied.

        Raises:
            ValueError: The handle belongs to another region, is misaligned, reaches past the end or is no
                tensor at all; or the region was closed.
        """
        if self._map is None:
            raise ValueError(f"region {self.number} was closed")
        if handle.region != self.number:
            raise ValueError(f"handle of region {handle.region} used on region {self.number}")
        if any(size < 0 for size in handle.shape):
            raise ValueError(f"a slot of shape {handle.shape}")
        itemsize = np.dtype(handle.dtype).itemsize
        end = handle.offset_bytes + handle.size_bytes
        if handle.offset_bytes < 0 or end > self.size_bytes:
            raise ValueError(
                f"slot of bytes {handle.offset_bytes} to {end}, region {self.number} has {self.size_bytes}"
            )
        if handle.offset_bytes % itemsize:
            raise ValueError(f"{handle.dtype} slot at byte {handle.offset_bytes} is not aligned")
        flat = np.frombuffer(self._map, handle.dtype, count=math.prod(handle.shape), offset=handle.offset_bytes)
        return flat.reshape(handle.shape)

    def discard(self) -> None:
        """Give the memory back to the system, whoever else has a descriptor or a map: it reads as zeros from now on."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Give the descriptor and the mapping back; a second call does nothing.

        Arrays from `view` stay valid: the memory is unmapped with the last of them.
        """
        if self._map is None:
            return
        os.close(self.fd)
        with contextlib.suppress(BufferError):  # a view is alive and keeps the mapping
            self._map.close()
        self._map = None

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RegionTable:
    """The regions a process has mapped, by number: how a runtime turns handles into memory.

    Numbers are not used again, so a handle that outlives its region finds nothing rather than a stranger.
    Regions may be added and removed by one thread while another looks handles up.
    """

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}
        self._highest = 0
        self._lock = threading.Lock()

    def add(self, region: Region) -> None:
        """Make a region's handles usable here.

        Raises:
            ValueError: The number is taken.
        """
        with self._lock:
            self._add(region)

    def create(self, size_bytes: int) -> Region:
        """Reserve a new region under the next number and add it.

        Raises:
            OSError: The memory cannot be had.
        """
        with self._lock:
            region = Region.create(self._highest + 1, size_bytes)
            self._add(region)
            return region

    def view(self, handle: SlotHandle) -> npt.NDArray[Any]:
        """The tensor at a handle.

        Raises:
            KeyError: The region is unknown here.
            ValueError: The handle is not usable, see `Region.view`.
        """
        return self[handle.region].view(handle)

    def remove(self, number: int) -> None:
        """Forget a region and give its memory back.

        Raises:
            KeyError: The region is unknown here.
        """
        self._regions.pop(number).close()

    def close(self) -> None:
        """Give all regions back."""
        for number in list(self._regions):
            self.remove(number)

    def _add(self, region: Region) -> None:
        if region.number in self._regions:
            raise ValueError(f"region {region.number} is already in the table")
        self._regions[region.number] = region
        self._highest = max(self._highest, region.number)

    def __getitem__(self, number: int) -> Region:
        return self._regions[number]

    def __len__(self) -> int:
        return len(self._regions)

    def __contains__(self, number: int) -> bool:
        return number in self._regions
