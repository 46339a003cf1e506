"""Memory that is used again: a fresh 6 MB buffer for each frame costs 1,500 page faults."""

from __future__ import annotations

import math
import mmap
import threading

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
KEPT = 8
"""Buffers that wait to be used again; more than frames are decoded at a time."""


class Buffers:
    """Buffers that outlive a call: whoever takes one gives it back. Any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Array] = []
        self._kept = KEPT

    def take(self, size_bytes: int) -> Array:
        """At least so many bytes, as one row; their values are left over from before."""
        with self._lock:
            fitting = [index for index, buffer in enumerate(self._free) if buffer.size >= size_bytes]
            if fitting:
                return self._free.pop(min(fitting, key=lambda index: self._free[index].size))
        # Mapped, so that it goes back to the system when it is let go; the allocator would keep it, with holes.
        return np.frombuffer(mmap.mmap(-1, size_bytes), np.uint8)

    def give(self, buffer: Array) -> None:
        """Take a buffer back; the smallest is let go where too many wait."""
        with self._lock:
            self._free.append(buffer)
            if len(self._free) > self._kept:
                # By place: arrays have no one answer to being equal.
                del self._free[min(range(len(self._free)), key=lambda index: self._free[index].size)]

    def close(self) -> None:
        """Keep none any more."""
        with self._lock:
            self._kept = 0
            self._free.clear()


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Array] = {}


_scratch = _Scratch()


def scratch(name: str, *shape: int) -> Array:
    """Memory of this thread for one purpose, valid until the thread asks for the same name again.

    Args:
        name: The purpose.
        shape: Wanted shape; the memory grows to the largest one.
    """
    size_bytes = math.prod(shape)
    kept = _scratch.by_name.get(name)
    if kept is None or kept.size < size_bytes:
        kept = _scratch.by_name[name] = np.empty(size_bytes, np.uint8)
    return kept[:size_bytes].reshape(shape)
