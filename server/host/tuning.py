"""What an operator may ask of the kernel for this process: cores, a real-time class, memory that stays resident.

docs/streaming.md says what each gains.
"""

from __future__ import annotations

import ctypes
import os
import re

from server.errors import StartFailed

MCL_CURRENT, MCL_FUTURE = 1, 2
"""Flags of mlockall(2)."""


def parse_cpus(text: str) -> frozenset[int]:
    """Cores by number, as taskset writes them: `0,2-3`.

    Raises:
        ValueError: The text says something else.
    """
    cpus: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        if match is None:
            raise ValueError("write core numbers, for example 0,2-3")
        cpus.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    if not cpus:
        raise ValueError("write core numbers, the smaller one first, for example 0,2-3")
    return frozenset(cpus)


def pin(cpus: frozenset[int]) -> None:
    """Keep this process, and every thread it starts from here on, on some cores (sched_setaffinity(2)).

    Raises:
        StartFailed: None of them may be used.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        usable = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise StartFailed(
            f"cannot run on cores {','.join(map(str, sorted(cpus)))}: {error.strerror}",
            remedy=f"choose --cpus among {usable}",
        ) from None


def run_first(priority: int) -> None:
    """Put the calling thread, and those it starts, into the real-time class SCHED_FIFO (sched(7)).

    Args:
        priority: 1 to 99.

    Raises:
        StartFailed: It is not permitted.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        raise StartFailed(
            f"cannot run the engine with real-time priority {priority}: {error.strerror}",
            remedy="grant CAP_SYS_NICE (docker run --cap-add SYS_NICE), or leave --realtime-priority out",
        ) from None


def lock_memory() -> None:
    """Keep every page of this process in memory, those to come included (mlockall(2)).

    Raises:
        StartFailed: It is not permitted, or more than RLIMIT_MEMLOCK.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        raise StartFailed(
            f"cannot lock memory: {os.strerror(ctypes.get_errno())}",
            remedy="raise the limit (ulimit -l unlimited, docker run --ulimit memlock=-1), or leave --lock-memory out",
        )
