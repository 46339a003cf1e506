"""What a client's times are worth: whether they can be compared with ours, and how well."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protos.monocoque.v1 import stream_pb2 as pb

LONGEST_AGE_NS = 100 * 365 * 24 * 3600 * 1_000_000_000
"""Recorded frames may be old, but not so old that nanoseconds do not fit into 64 bits."""
LARGEST_ERROR_NS = 3600 * 1_000_000_000
"""A clock that may be off by more than an hour is not synchronized."""


@dataclass(frozen=True)
class HostClock:
    """The clocks of this host, and the proof that another process reads the same ones.

    Attributes:
        monotonic_ns: CLOCK_MONOTONIC.
        utc_ns: CLOCK_REALTIME.
        boot_id: Changes with every boot.
        time_namespace: Two processes in different ones see different monotonic clocks.
    """

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    utc_ns: Callable[[], int] = time.time_ns
    boot_id: str = ""
    time_namespace: str = ""

    @classmethod
    def of_this_host(cls) -> HostClock:
        """Read the proof from /proc; empty where the kernel does not offer it."""
        try:
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot_id = ""
        try:
            time_namespace = str(Path("/proc/self/ns/time").readlink())
        except OSError:  # kernels before 5.6 have no time namespaces
            time_namespace = ""
        return cls(boot_id=boot_id, time_namespace=time_namespace)


@dataclass(frozen=True)
class ClientClock:
    """The clock of one stream.

    Attributes:
        kind: SAME_HOST_MONOTONIC only where it was proved.
        error_ns: Error bound of its times.
    """

    kind: pb.ClockKind.ValueType
    error_ns: int

    def to_monotonic(self, client_ns: int, received: int, host: HostClock) -> int | None:
        """A client's time as a time of the server's monotonic clock.

        Args:
            client_ns: As the client wrote it; 0 means that it did not.
            received: Server's monotonic clock when the message arrived.
            host: Our clocks.

        Returns:
            None where it cannot be known, which includes a time later than its own arrival, or a century before
            it: then the clock is not what it was declared to be. Within the error bound, a later time counts as the
            moment of arrival.
        """
        if client_ns == 0 or self.kind == pb.CLOCK_KIND_UNKNOWN:
            return None
        at = client_ns
        if self.kind == pb.CLOCK_KIND_SYNCHRONIZED:
            at -= host.utc_ns() - host.monotonic_ns()  # anew for each frame, so that a step harms one frame at most
        if not received - LONGEST_AGE_NS <= at <= received + self.error_ns:
            return None
        return min(at, received)


def declared(clock: pb.Clock, host: HostClock) -> ClientClock:
    """The clock that the server will reckon with: as declared, or UNKNOWN where there is no proof."""
    if clock.kind == pb.CLOCK_KIND_SYNCHRONIZED:
        return ClientClock(pb.CLOCK_KIND_SYNCHRONIZED, clock.error_ns)
    same_host = bool(host.boot_id) and (clock.boot_id, clock.time_namespace) == (host.boot_id, host.time_namespace)
    if clock.kind == pb.CLOCK_KIND_SAME_HOST_MONOTONIC and same_host:
        return ClientClock(pb.CLOCK_KIND_SAME_HOST_MONOTONIC, 0)
    return ClientClock(pb.CLOCK_KIND_UNKNOWN, 0)
