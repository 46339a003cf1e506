"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

SAMPLE_INTERVAL_NS = 1_000_000_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessMemory:
    """Resident memory, read at most once a second: reading it costs as much as a small frame's answer.

    Args:
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._sampled_at: int | None = None
        self._resident_bytes = 0

    def resident_bytes(self) -> int:
        """Resident memory, at most a second old."""
        now = self._clock()
        if self._sampled_at is None or now - self._sampled_at >= SAMPLE_INTERVAL_NS:
            self._sampled_at = now
            self._resident_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
        return self._resident_bytes

    @staticmethod
    def peak_bytes() -> int:
        """Largest resident memory so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
