"""Keeps the memory of large frames in the process, instead of returning and faulting it in for each of them."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD_BYTES = 32 << 20
"""glibc refuses a larger one on 64 bits: mallopt(3)."""


def keep_large_buffers(bytes_kept: int) -> bool:
    """Let glibc reuse buffers up to 32 MiB.

    By default such a buffer may be mapped and unmapped each time; a 6.2 MB frame then costs 1,500 page faults.

    Args:
        bytes_kept: Free memory that stays with the process.

    Returns:
        Whether it took effect; another C library has its own ways.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, bytes_kept))
