"""What a client's times are worth: whether they can be compared with ours, and how well."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protos.monocoque.v1 import stream_pb2 as pb

LONGEST_AGE_NS = 24 * 3600 * 1_000_000_000
"""A time further back is of another clock than was declared, or of a recording: nobody waits for its age."""
LARGEST_ERROR_NS = 3600 * 1_000_000_000
"""A clock that may be off by more than an hour is not synchronized."""

LARGEST_SLEW = 1e-3
"""A clock that is corrected by running faster or slower does so by at most this share (adjtimex(2): 500 ppm)."""
READING_ERROR_NS = 1_000_000
"""Two clocks are not read at the same moment; a thread may lose its core between them."""


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
            None where it cannot be known, which includes a time later than its own arrival, or more than a day before
            it: then the clock is not what it was declared to be. Within the error bound, a later time counts as the
            moment of arrival.
        """
        if client_ns == 0 or self.kind == pb.CLOCK_KIND_UNKNOWN:
            return None
        at = client_ns - self.offset_ns(host)  # anew for each frame, so that a step harms one frame at most
        if not received - LONGEST_AGE_NS <= at <= received + self.error_ns:
            return None
        return min(at, received)

    def offset_ns(self, host: HostClock) -> int:
        """What it is ahead of the server's monotonic clock, if it is what it was declared to be."""
        return host.utc_ns() - host.monotonic_ns() if self.kind == pb.CLOCK_KIND_SYNCHRONIZED else 0


class StepWatch:
    """Notices that a clock was set, rather than ran: a stream's own, or the server's UTC.

    Nothing has to be forgotten here, since times are converted anew for each frame; the client, which estimates an
    offset, starts over when it sees a step.

    Args:
        clock: The stream's.
        host: Ours.
    """

    def __init__(self, clock: ClientClock, host: HostClock) -> None:
        self._clock = clock
        self._host = host
        self._sent_ns = 0
        self._is_wrong = False
        self._offset_ns: int | None = None
        self._received = 0

    def steps(self, sent_ns: int, received: int) -> list[str]:
        """Whose clock has stepped since the last message: `client`, `server`, or none.

        Args:
            sent_ns: When the client sent the message, by its clock; 0 means that it did not say.
            received: Server's monotonic clock when it arrived.
        """
        found = []
        if sent_ns:
            # Messages arrive in the order of their sending, and before nothing is sent.
            is_wrong = self._clock.kind != pb.CLOCK_KIND_UNKNOWN and (
                self._clock.to_monotonic(sent_ns, received, self._host) is None
            )
            if sent_ns < self._sent_ns or (is_wrong and not self._is_wrong):
                found.append("client")
            self._sent_ns, self._is_wrong = sent_ns, is_wrong
        if self._clock.kind == pb.CLOCK_KIND_SYNCHRONIZED:
            offset_ns = self._host.utc_ns() - self._host.monotonic_ns()
            slewed_ns = LARGEST_SLEW * (received - self._received) + READING_ERROR_NS
            if self._offset_ns is not None and abs(offset_ns - self._offset_ns) > slewed_ns:
                found.append("server")
            self._offset_ns, self._received = offset_ns, received
        return found


def declared(clock: pb.Clock, host: HostClock) -> ClientClock:
    """The clock that the server will reckon with: as declared, or UNKNOWN where there is no proof."""
    if clock.kind == pb.CLOCK_KIND_SYNCHRONIZED:
        return ClientClock(pb.CLOCK_KIND_SYNCHRONIZED, clock.error_ns)
    same_host = bool(host.boot_id) and (clock.boot_id, clock.time_namespace) == (host.boot_id, host.time_namespace)
    if clock.kind == pb.CLOCK_KIND_SAME_HOST_MONOTONIC and same_host:
        return ClientClock(pb.CLOCK_KIND_SAME_HOST_MONOTONIC, 0)
    return ClientClock(pb.CLOCK_KIND_UNKNOWN, 0)
