"""Where in memory a process's next mappings go: wherever the kernel drew for it, or the same place in every process."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

_NEVER_TOUCHED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
_FIXED_NOREPLACE = 0x100000
_NO_ACCESS = 0
_STACK_ROOM_BYTES = 64 << 20
_PASSES = 8
"""Reading the list of mappings makes some."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def pin(top: int) -> bool:
    """Have the kernel put whatever this process maps from now on right below an address, one below the other.

    Linux takes the highest room that is free. So all that is free above `top` is reserved, without any memory behind
    it; then libraries that are loaded and heaps that are begun lie where they lie in every process that did the same
    from here on. Switching randomization off (`personality(ADDR_NO_RANDOMIZE)`) is forbidden in containers, and leaves
    in place what depends on the environment's size, the number of threads and which modules were compiled before.

    Args:
        top: A multiple of the page size, below everything that was mapped by the system.

    Returns:
        Whether the next mapping lies there: not where address space is limited (`ulimit -v`), nor where the kernel
        takes the lowest room first (`ulimit -s unlimited`).
    """
    try:
        for _ in range(_PASSES):
            if not sum([_reserve(*hole) for hole in _holes(top)]):
                break
    except OSError:
        return False
    return _next_mapping() == top - mmap.PAGESIZE


def _holes(top: int) -> list[tuple[int, int]]:
    """Begin and end of all room between an address and the stack, above which the kernel puts nothing."""
    holes = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
        is_stack = line.endswith("[stack]")
        if (free := begin - _STACK_ROOM_BYTES if is_stack else begin) > top:
            holes.append((top, free))
        if is_stack:
            break
        top = max(top, end)
    return holes


def _reserve(begin: int, end: int) -> bool:
    return _map(begin, end - begin, _NEVER_TOUCHED | _FIXED_NOREPLACE) == begin


def _next_mapping() -> int | None:
    if (address := _map(None, mmap.PAGESIZE, _NEVER_TOUCHED)) is not None:
        _libc.munmap(address, mmap.PAGESIZE)
    return address


def _map(address: int | None, size_bytes: int, flags: int) -> int | None:
    found: int | None = _libc.mmap(address, size_bytes, _NO_ACCESS, flags, -1, 0)
    return None if found == ctypes.c_void_p(-1).value else found
