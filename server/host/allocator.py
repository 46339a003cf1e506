"""Keeps the memory of large frames in the process, instead of returning and faulting it in for each of them."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGEST_MMAP_THRESHOLD_BYTES = 32 << 20
"""glibc refuses a larger one on 64 bits: mallopt(3)."""


def keep_large_buffers(bytes_kept: int) -> bool:
    """Let glibc reuse buffers up to 32 MiB.

    By default such a buffer may be mapped and unmapped each time; a 6.2 MB frame then costs 1,500 page faults. Each
    thread would keep its own, too: with one arena for all, 2,800 frames of 1080p left 145 MB with the process, where it
    had grown to 290 MB and gone on; frames a second were the same.

    Args:
        bytes_kept: Free memory that stays with the process.

    Returns:
        Whether it took effect; another C library has its own ways.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, bytes_kept),
    )
    return all([bool(mallopt(option, value)) for option, value in settings])
