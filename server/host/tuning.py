"""What an operator may ask of the kernel: cores, a real-time class, memory that stays resident, cores that stay awake.

docs/streaming.md says what each gains.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct

from server.errors import StartFailed

MCL_CURRENT, MCL_FUTURE = 1, 2
"""Flags of mlockall(2)."""
CPU_LATENCY_DEVICE = "/dev/cpu_dma_latency"
NO_BOUND_US = 2_000_000_000
"""What the kernel takes for no bound."""


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


class WakeLatency:
    """A bound on how long an idle core of this machine takes to wake up, from `hold` to `release`.

    A request to the kernel's power management (PM QoS), gone when its file is closed:
    https://docs.kernel.org/power/pm_qos_interface.html

    Args:
        latency_us: Microseconds; 0 keeps idle cores awake.

    Raises:
        StartFailed: It is not permitted, or the kernel has no such device.
    """

    def __init__(self, latency_us: int) -> None:
        self._latency_us = latency_us
        self._file: int | None = None
        try:
            self._file = os.open(CPU_LATENCY_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StartFailed(
                f"cannot bound the time in which cores wake up: {CPU_LATENCY_DEVICE}: {error.strerror}",
                remedy=f"run as root (docker run --user 0 --device {CPU_LATENCY_DEVICE}), or without --wake-latency-us",
            ) from None
        self.release()

    def hold(self) -> None:
        """From now on."""
        self._ask(self._latency_us)

    def release(self) -> None:
        """Any time will do."""
        self._ask(NO_BOUND_US)

    def close(self) -> None:
        """Withdraw the request."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _ask(self, latency_us: int) -> None:
        if self._file is not None:
            os.write(self._file, struct.pack("i", latency_us))
